"""The reactive customer: it does not read out a list, it answers what the agent does.

    agent proposes a write      one that a step wants: yes or no, by a button or in words; any other: no
    agent asks for a slot       the value, in other words each time it is asked again
    proposes it for a reason    says no, and the reason
      that was never given
    agent left out what         asks once more, in other words
      the step is about
    otherwise                   the next step; after the last one, thanks and goodbye

So a conversation takes as many turns as the agent makes of it; `MOST_TURNS` ends one that leads nowhere.
"""

from collections.abc import Mapping, Sequence
from random import Random

from data.customer_service.normalise import order_number
from data.customer_service.schema import same_value
from data.scripted_customers.dialogue import Act, Decide, Leave, Proposal, Say, Turn
from data.scripted_customers.facts import says
from data.scripted_customers.script import SENSITIVE, Action, Script, Step
from data.scripted_customers.wording import worded, worded_parts

MOST_TURNS = 18
ASKED_AGAIN = 3  # times that the same question is answered
SLOT_PHRASES = {"order_id": "order_id", "product": "product", "item_id": "product", "address": "address"}
BUTTON_SHARE = 0.6  # of the answers to proposals
PHRASES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "en": {
        "yes": ("Yes, please.", "Yes, go ahead.", "Yes, that's right, do it."),
        "no": ("No.", "No, please don't.", "No, leave it as it is."),
        "unasked": ("No, that is not what I asked for.", "No. I did not ask for that."),
        "wrong_reason": ("No, that is not the reason.", "No, the reason is another one."),
        "order_id": ("It's {}.", "{}", "The number is {}."),
        "product": ("The {}.", "It's the {}.", "{}"),
        "address": ("{}", "To {}.", "The new address is {}."),
        "damaged": ("It arrived broken.", "It is broken.", "It came damaged."),
        "wrong_item": ("You sent me the wrong thing.", "It's not the item I ordered, you sent another one."),
        "wrong_size": ("It's too small.", "The size is wrong, it doesn't fit."),
        "missing_parts": ("Parts are missing.", "A part was missing from the box."),
        "not_as_described": ("It's not like in the picture.", "It does not look like the description."),
        "changed_mind": ("I don't need it any more.", "I changed my mind."),
        "late": ("It came far too late.",),
        "unknown": ("I don't know.", "No idea, sorry."),
        "thanks": ("Thanks, bye.", "Thank you, that's all.", "Great, thanks a lot."),
    },
    "zh": {
        "yes": ("对，麻烦办理。", "可以，确认。", "是的，就这样办吧。"),
        "no": ("不用了。", "不要，先别办。", "不，保持原样。"),
        "unasked": ("不是，我没说要办这个。", "不对，我没有这个要求。"),
        "wrong_reason": ("不对，原因不是这个。", "不是这个原因。"),
        "order_id": ("订单号是{}。", "{}", "是{}这单。"),
        "product": ("是{}。", "{}", "就是那个{}。"),
        "address": ("{}", "改到{}。", "新地址是{}。"),
        "damaged": ("收到就是坏的。", "东西是坏的。", "到货时就破损了。"),
        "wrong_item": ("你们发错货了。", "收到的不是我买的那个，发错了。"),
        "wrong_size": ("太小了，穿不了。", "尺码不对，不合适。"),
        "missing_parts": ("少了配件。", "里面缺零件。"),
        "not_as_described": ("跟图片不一样。", "和描述不符。"),
        "changed_mind": ("不想要了。", "用不上了，不想要了。"),
        "late": ("到得太晚了。",),
        "unknown": ("我不清楚。", "不知道。"),
        "thanks": ("谢谢，再见。", "好的，谢谢，没别的了。", "谢谢你，麻烦了。"),
    },
}


class ScriptedCustomer:
    """One customer in one conversation.

    Args:
        script: what they want.
        values: of the script's placeholders, as shop_values.py found them.
        rng: decides wordings, typos, and whether a proposal is answered by a button.
    """

    def __init__(self, script: Script, values: Mapping[str, str], rng: Random) -> None:
        self.script, self.values, self.rng = script, values, rng
        self.done = False  # every step was said, and goodbye
        self.turns = 0
        self._place = -1
        self._open: list[tuple[Step, Action | None]] = []  # what may be proposed
        self._asked: dict[str, int] = {}
        self._rephrased = self._corrected = self._goodbye = False
        self._heard = self._wording = ""
        self._pending: Act | None = None
        self.heard_from: list[int] = []  # the turn at which each step was said, from 0

    def next(self, turn: Turn | None) -> Act | None:
        """What the customer does after the agent's turn (None: the conversation begins); None: they are gone."""
        if self._pending:
            act, self._pending = self._pending, None
        else:
            act = self._react(turn) if turn else self._next_step()
        if act is None or (self.turns >= MOST_TURNS and not isinstance(act, Leave)):
            return None
        self.turns += not isinstance(act, Leave)
        return act

    @property
    def step(self) -> Step:
        """The step that the customer is at."""
        return self.script.steps[max(0, self._place)]

    def _react(self, turn: Turn) -> Act | None:
        self._heard += f"\n{turn.text}"
        if turn.proposal:
            return self._answer_proposal(turn.proposal)
        if self._goodbye:
            self.done = True
            return None
        slot = turn.asked
        if slot and self._asked.get(slot, 0) < ASKED_AGAIN:
            self._asked[slot] = self._asked.get(slot, 0) + 1
            return Say(self._slot(slot))
        if not self._rephrased and not self._satisfied(turn):
            self._rephrased = True
            return Say(self._words(self.step, again=True))
        return self._next_step()

    def _satisfied(self, turn: Turn) -> bool:
        """Whether the agent at least spoke of what the step asks."""
        missing = [fact for fact in self.step.facts if not says(self._heard, self._filled(fact))]
        unproposed = any(action and step is self.step for step, action in self._open)
        return not missing and not unproposed or turn.end == "human"

    def _next_step(self) -> Act | None:
        if self._place + 1 == len(self.script.steps):
            self._goodbye = True
            return Say(self._phrase("thanks"))
        self._place += 1
        self._heard, self._asked, self._rephrased, self._corrected = "", {}, False, False
        step = self.step
        self.heard_from.append(self.turns)
        self._open += [(step, action) for action in step.does if action.tool in SENSITIVE]
        if step.proposes:
            self._open.append((step, None))
        say = Say(self._words(step))
        if step.leaves:
            self._pending = say
            return Leave()
        return say

    def _answer_proposal(self, proposal: Proposal) -> Act:
        for place, (step, action) in enumerate(self._open):
            if action and fits(action, proposal, self.values):
                if wrong_reason(action, proposal) and not self._corrected:
                    self._corrected = True
                    return Say(f"{self._phrase('wrong_reason')} {self._phrase(action.reason[0])}", False)
                del self._open[place]
                return self._confirm(proposal, True, step.leaves_at_proposal)
            if not action and proposal.tool == step.proposes:
                if step.instead and step is self.step and not self._rephrased:
                    self._rephrased = True
                    return Say(self._filled_words(step.instead))
                return self._confirm(proposal, False, step.leaves_at_proposal)
        tempted = any(proposal.tool in step.tempts for step in self.script.steps[: self._place + 1])
        return self._confirm(proposal, tempted, False, unasked=True)

    def _confirm(self, proposal: Proposal, approve: bool, leaves: bool, unasked: bool = False) -> Act:
        if self.rng.random() < BUTTON_SHARE:
            act: Act = Decide(proposal, approve)
        else:
            act = Say(self._phrase("yes" if approve else "unasked" if unasked else "no"), approve)
        if leaves:
            self._pending = act
            return Leave()
        return act

    def _slot(self, slot: str) -> str:
        """The value of a slot, as the customer would tell it; what they do not know they do not know."""
        phrases, about = PHRASES[self.script.language], self.step.about
        if slot in self.script.knows:
            return self._filled_words(self.script.knows[slot])
        if slot == "reason":
            reasons = [action.reason[0] for action in self.step.does if action.reason]
            return self._phrase(reasons[0] if reasons else "changed_mind")
        address = next((name for name, condition in self.script.find.items() if condition.get("kind") == "address"), "")
        names = {"order_id": f"{about}.id", "product": f"{about}.product", "address": f"{address}.text"}
        name = names.get(SLOT_PHRASES.get(slot, ""), "")
        if name not in self.values:
            return self._phrase("unknown")
        return self._filled_words([wording.replace("{}", f"{{{name}}}") for wording in phrases[SLOT_PHRASES[slot]]])

    def _words(self, step: Step, again: bool = False) -> str:
        """The step in one of its wordings; `again` in another one."""
        options = {"form": self.script.form, "typos": self.script.typos and not again}
        if step.parts:
            return worded_parts(step.parts, self.values, self.script.language, self.rng, **options)
        others = [wording for wording in step.say if wording != self._wording] or list(step.say)
        self._wording = self.rng.choice(others if again else list(step.say))
        return worded([self._wording], self.values, self.script.language, self.rng, **options)

    def _filled_words(self, wordings: Sequence[str]) -> str:
        return worded(wordings, self.values, self.script.language, self.rng, form=self.script.form, typos=False)

    def _filled(self, text: str) -> str:
        return filled(text, self.values)

    def _phrase(self, name: str) -> str:
        return self.rng.choice(PHRASES[self.script.language][name])


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with its placeholders filled, word for word."""
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def wrong_reason(action: Action, proposal: Proposal) -> bool:
    """Whether a proposal names a reason that the customer has not given."""
    given = proposal.arguments.get("reason")
    return bool(action.reason) and given is not None and given not in action.reason


def fits(action: Action, proposal: Proposal, values: Mapping[str, str]) -> bool:
    """Whether a proposal is what the customer wants: the tool, the order, and the address or the item."""
    given = {name: str(value) for name, value in proposal.arguments.items()}
    order = order_number(given.get("order_id", ""))
    if proposal.tool != action.tool or order != values[f"{action.about}.id"]:
        return False
    if action.address:
        return same_value(given.get("address", "")) == same_value(values[f"{action.address}.text"])
    if action.tool in ("return_item", "exchange_item"):
        return given.get("item_id") == values[f"{action.about}.item_{action.item}"]
    return True
