"""The first two nodes: what was written (guard), and what is wanted (classify).

`classify` reads a message against the background of the conversation: an answer to a question that was asked, a yes or
a no to a proposal or an offer, or new requests, of which one message may hold several.
"""

import asyncio
import re
from typing import Any, Literal

from langgraph.types import Command

from data.customer_service.normalise import order_number
from stage3_agents_llmops.agent.agents.complaint_agent import is_doubtful
from stage3_agents_llmops.agent.confirmation import decision_of, record
from stage3_agents_llmops.agent.dialogue import asks_about_rules, asks_the_price, forbidden_wish, is_angry
from stage3_agents_llmops.agent.run_context import RunContext, node, tell
from stage3_agents_llmops.agent.screening import tell_findings
from stage3_agents_llmops.agent.shop.policy import FAULTS
from stage3_agents_llmops.agent.state import ConversationState
from stage3_agents_llmops.agent.supervisor import FORBIDDEN
from stage3_agents_llmops.agent.turn_taking import (
    ASKING_ONLY,
    NEED_A_YES,
    ORDER,
    Pieces,
    begins_with_no,
    fill,
    reconsider,
    soothe,
    take_offer,
    take_requests,
    wants_something_new,
)
from stage3_agents_llmops.agent.understanding import Understanding, find_slots, reply_kind, split_requests
from stage3_agents_llmops.agent.wording import tool_title
from stage3_agents_llmops.agent.worklist import changed, outcome, told

FORGET_AFTER = 4  # turns after which a question that was not answered is no longer open
PARCEL = re.compile(
    r"\b(?:carrier|courier|tracking|parcel|package|deliver(?:s|y|ed)?|arriv(?:e|es|al|ing))\b|快递|物流|运单|谁送|哪家送|到货|送到",
    re.IGNORECASE,
)
LISTED = re.compile(r"[\s,，、和跟与及&+]*(?:and|or|also|还有|以及)?[\s,，、]*", re.IGNORECASE)  # what stands in a list
ELLIPSIS = re.compile(r"^\s*(?:and|what about|how about|same for|also)\b|^\s*(?:那|还有)|呢[？?]?\s*$", re.IGNORECASE)


@node("guard")
async def guard(state: ConversationState, context: RunContext) -> dict[str, Any]:
    """Take the message into the conversation and tell what the screening found."""
    incoming = state["incoming"]
    tell_findings(incoming)
    turn = state["turn"] + 1
    message = {"role": "customer", "text": incoming["shown"], "turn": turn, "citations": [], "run_id": context.run_id}
    limit = context.services.settings.max_messages
    update: dict[str, Any] = {"turn": turn, "messages": [*state["messages"], message][-limit:]}
    if incoming["language"]:
        update["language"] = incoming["language"]
    if incoming["blocked"]:
        update["outcomes"] = told(state, outcome("blocked"))
    elif not incoming["text"].strip():
        update["outcomes"] = told(state, outcome("empty"))
    asked = state.get("asked")
    if asked and turn - asked["turn"] > FORGET_AFTER:
        update |= {"asked": None, "requests": changed(state, asked["request"], status="done")}
    return update


def after_guard(state: ConversationState) -> Literal["classify", "human_handoff", "generate"]:
    """Silent while a person writes; a message of which nothing was left is answered without being read."""
    if state["human_active"]:
        return "human_handoff"
    return "generate" if state["outcomes"] else "classify"


@node("classify")
async def classify(state: ConversationState, context: RunContext) -> Command[Literal["supervisor", "act"]]:
    """Read the message; a plain yes to a proposal goes straight to the write, everything else to the supervisor."""
    text = state["incoming"]["text"]
    angry = is_angry(text)
    mood: dict[str, Any] = {"anger": state["anger"] + 1} if angry else {}
    if state.get("proposal") and (kind := reply_kind(text)) != "other":
        return await answered(state, context, kind == "yes", mood)
    if state.get("offer") and (kind := reply_kind(text)) != "other":
        return Command(goto="supervisor", update=mood | take_offer(state, kind == "yes", text))
    refused = bool(state.get("proposal")) and begins_with_no(text)
    pieces = await read_pieces(state, context, text)
    if refused and not wants_something_new(state, pieces):
        return await answered(state, context, False, mood)
    update = mood | {"offer": None}
    if state.get("proposal"):
        update |= reconsider(state, pieces, text)
    elif (asked := state.get("asked")) and (filled := fill(state, asked, pieces, text)):
        update |= filled
    else:
        update |= take_requests(state, pieces)
    if angry:
        update |= soothe({**state, **update}, context.services.settings.angry_until_human, text)
    return Command(goto="supervisor", update=update)


async def answered(state: ConversationState, context: RunContext, yes: bool, mood: dict[str, Any]) -> Command:
    """A yes or a no in words, to the proposal that is open."""
    proposal = state["proposal"]
    await asyncio.to_thread(record, context, proposal, yes)
    update = mood | {"proposal": None, "failures": 0, "current": proposal["request"], "offer": None,
                     "decided": decision_of(proposal, yes)}  # fmt: skip
    if yes:
        return Command(goto="act", update=update | {"write": proposal})
    said = outcome("declined", proposal["request"], title=tool_title(proposal["tool"], state["language"]))
    requests = changed(state, proposal["request"], status="done")
    return Command(goto="supervisor", update=update | {"outcomes": told(state, said), "requests": requests})


async def read_pieces(state: ConversationState, context: RunContext, text: str) -> Pieces:
    """The requests of the message as they were understood."""
    settings, understander = context.services.settings, context.services.understander
    texts = (split_requests(text) or [text])[: settings.max_requests]
    language = state["language"]
    # all at once: a slow endpoint is waited for once and not once for each request
    read = await context.think(lambda: asyncio.gather(*(understander.understand(piece, language) for piece in texts)))
    pieces = [piece_of(state, place, *each) for place, each in enumerate(zip(texts, read, strict=True))]
    pieces = [one for piece in numbers_handed_on(pieces) for one in one_an_order(piece)][: settings.max_requests]
    for number, piece in enumerate(pieces, 1):
        tell("intent", intent=piece["intent"], confidence=piece["confidence"], abstain=piece["abstain"],
             source=piece["source"], request=number, of=len(pieces))  # fmt: skip
    return pieces


def piece_of(state: ConversationState, place: int, text: str, meaning: Understanding) -> dict[str, Any]:
    """One piece of a message as plain data: what the model understood, and what rules find in the text."""
    by_rules = find_slots(text, state["language"])
    slots = by_rules | ({} if meaning.abstain else meaning.slots)
    # A reason decides what the policy allows. One that gives more time must stand in the customer's own words.
    if "reason" in by_rules or slots.get("reason") in FAULTS:
        slots.pop("reason", None)
        slots |= {name: value for name, value in by_rules.items() if name == "reason"}
    piece = {"place": place, "intent": str(meaning.intent), "slots": slots, "text": text, "abstain": meaning.abstain,
             "confidence": round(float(meaning.confidence), 3), "source": meaning.source}  # fmt: skip
    if (rule := forbidden_wish(text)) and (meaning.abstain or meaning.intent not in NEED_A_YES):
        return piece | {"intent": FORBIDDEN, "slots": {"rule": rule}, "abstain": False, "source": "rules"}
    unclear = meaning.abstain or meaning.intent == "out_of_scope"
    if unclear and slots.get("product") and asks_the_price(text):
        return piece | {"intent": "product_question", "abstain": False, "source": "rules"}
    return completed(state, piece)


def one_an_order(piece: dict[str, Any]) -> Pieces:
    """A piece that lists several orders, as "cancel KM204817 and KM204818", as one piece each."""
    found = list(ORDER.finditer(piece["text"]))
    between = [piece["text"][first.end() : second.start()] for first, second in zip(found, found[1:], strict=False)]
    listed = bool(between) and all(LISTED.fullmatch(text) for text in between)
    numbers = {order_number(match[0]): match[0].strip() for match in found}
    if not listed or len(numbers) < 2 or "order_id" not in piece["slots"]:
        return [piece]
    return [{**piece, "slots": {**piece["slots"], "order_id": written}} for written in numbers.values()]


def numbers_handed_on(pieces: Pieces) -> Pieces:
    """A second number that is left over in a piece belongs to the next one, if that names nothing: "an invoice for
    KM204817, and KM204818 I don't want any more. Cancel." """
    result: Pieces = []
    for piece in pieces:
        left = ORDER.findall(result[-1]["text"]) if result else []
        if len(left) > 1 and not piece["slots"].keys() & {"order_id", "product"}:
            piece = {**piece, "slots": {**piece["slots"], "order_id": left[-1].strip()}}
        result.append(piece)
    return result


def completed(state: ConversationState, piece: dict[str, Any]) -> dict[str, Any]:
    """What is too short to be understood alone, with the help of what was said before it."""
    doubtful = is_doubtful(piece)  # "sorry, I mistyped, it's KM204817" sounds like one
    if not piece["abstain"] and piece["intent"] != "out_of_scope" and not doubtful:
        return piece
    of_parcel = PARCEL.search(piece["text"]) and not asks_about_rules(piece["text"]) and not doubtful
    if state["slots"].get("order_id") and of_parcel:
        return piece | {"intent": "order_status", "abstain": False, "source": "rules"}
    short = len(piece["text"].split()) <= 6 and len(piece["text"]) <= 40
    last = state["requests"][-1]["intent"] if state["requests"] else None
    names = piece["slots"].keys() & {"product", "order_id"}
    if short and names and (last in NEED_A_YES or last in ASKING_ONLY and ELLIPSIS.search(piece["text"])):
        return piece | {"intent": last, "abstain": False, "source": "rules"}
    if short and order_number(piece["slots"].get("order_id", "")):
        return piece | {"intent": "order_status", "abstain": False, "source": "rules"}
    return piece
