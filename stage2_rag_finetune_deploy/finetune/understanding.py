"""The task: what a customer wrote in, `{"intent": ..., "slots": {...}}` out; the prompt, the reading, the score.

The prompt (data/customer_service/prompt.py) is the same for the base model, the tuned one and the served one, and it is
short: every training step pays for it. What the intents are called stands nowhere in it; that is what the tuned model
learns. The base model is also asked with all of it spelt out and with examples (`few_shot_messages`), so that it is not
beaten by a bad prompt.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.customer_service.prompt import SYSTEM
from data.customer_service.schema import REASONS, Label, same_value
from data.understanding import Utterance


def few_shot_messages(text: str, language: str, examples: Sequence[Utterance]) -> list[dict[str, str]]:
    """All intents and slots of the examples spelt out, and the examples as earlier turns."""
    intents = list(dict.fromkeys(example.intent for example in examples))
    slots = list(dict.fromkeys(slot for example in examples for slot in example.slots))
    lines = [SYSTEM[language], f"intents: {', '.join(intents)}", f"slots: {', '.join(slots)}"]
    if "reason" in slots:
        lines.append(f"reason is one of: {', '.join(REASONS)}")
    messages = [{"role": "system", "content": "\n".join(lines)}]
    for example in examples:
        messages.append({"role": "user", "content": example.text})
        messages.append({"role": "assistant", "content": example.label})
    return [*messages, {"role": "user", "content": text}]


# exercise: finetune.parse_reply
def parse_reply(text: str) -> Label | None:
    """The first JSON object of a reply as a label; None where there is none, or it is not a label.

    Talk before and after the object is forgiven, and so are numbers as values; a missing intent, slots that are no
    object, and values that are objects or lists are not.
    """
    start = text.find("{")
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    intent, slots = found.get("intent"), found.get("slots")
    if not isinstance(intent, str) or not isinstance(slots, dict):
        return None
    if any(not isinstance(value, str | int | float) or isinstance(value, bool) for value in slots.values()):
        return None
    return Label(intent, {name: str(value) for name, value in slots.items()})
# end exercise


@dataclass(frozen=True)
class Scores:
    """What a model got right; the tuples have one value an utterance, for paired tests.

    Attributes:
        exact: intent and all slots equal, letter case and runs of spaces aside (`same_value`).
        intent: the intent is equal.
        valid: the reply holds a label at all.
        slot_f1: of all slot values over all utterances (micro).
    """

    exact: tuple[bool, ...]
    intent: tuple[bool, ...]
    valid: tuple[bool, ...]
    slot_f1: float

    def mean(self, what: str) -> float:
        """Share of `exact`, `intent` or `valid`."""
        values = getattr(self, what)
        return sum(values) / len(values)

    def as_dict(self) -> dict[str, Any]:
        """The four figures."""
        return {name: self.mean(name) for name in ("exact", "intent", "valid")} | {"slot_f1": self.slot_f1}


def comparable(slots: Mapping[str, str]) -> set[tuple[str, str]]:
    """Slots as pairs that can be compared."""
    return {(name, same_value(value)) for name, value in slots.items()}


# exercise: finetune.score
def score(utterances: Sequence[Utterance], replies: Sequence[str]) -> Scores:
    """Replies against the utterances' labels, in the same order.

    A reply without a label is wrong in everything, and its slots count as missed. Slot F1 is 2 hits / (predicted +
    wanted), over all utterances together; 1 where nobody wanted or gave a slot.
    """
    exact, intent, valid = [], [], []
    hits = predicted = wanted = 0
    for utterance, reply in zip(utterances, replies, strict=True):
        label, gold = parse_reply(reply), comparable(utterance.slots)
        given = comparable(label.slots) if label else set()
        valid.append(label is not None)
        intent.append(label is not None and label.intent == utterance.intent)
        exact.append(intent[-1] and given == gold)
        hits, predicted, wanted = hits + len(given & gold), predicted + len(given), wanted + len(gold)
    f1 = 2 * hits / (predicted + wanted) if predicted + wanted else 1.0
    return Scores(tuple(exact), tuple(intent), tuple(valid), f1)
# end exercise
