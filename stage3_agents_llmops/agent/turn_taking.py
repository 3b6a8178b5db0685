"""What a message does to the queue: it fills a slot that was asked for, changes a proposal's mind, or adds requests.

Pure functions of the state and of the message's pieces; each gives the keys of the state to change.
"""

import re
from typing import Any

from data.customer_service.normalise import order_number
from stage3_agents_llmops.agent.dialogue import pick_option
from stage3_agents_llmops.agent.state import ConversationState, Request
from stage3_agents_llmops.agent.supervisor import SMALL_TALK
from stage3_agents_llmops.agent.understanding import reply_kind
from stage3_agents_llmops.agent.wording import tool_title
from stage3_agents_llmops.agent.worklist import changed, new_requests, outcome, told

NEED_A_YES = ("cancel_order", "change_address", "return_item", "exchange_item")
ASKING_ONLY = ("order_status", "refund_status", "product_question", "stock_check")  # a proposal may wait meanwhile
VAGUE = ("complaint", "out_of_scope", "return_item", *SMALL_TALK)  # what an answer to a question is easily taken for
ORDER = re.compile(r"(?<![A-Za-z])[A-Za-z]{2}[ -]?\d{3} ?\d{3}(?!\d)")
QUESTION = re.compile(r"[?？]|吗")
RULES = {"abstain": False, "confidence": 1.0, "source": "rules"}  # of a request that no model had to understand
Pieces = list[dict[str, Any]]


def understood(pieces: Pieces) -> Pieces:
    """The pieces that want something; small talk counts only where there is nothing else."""
    return [piece for piece in pieces if not piece["abstain"] and piece["intent"] not in (*SMALL_TALK, "out_of_scope")]


def take_requests(state: ConversationState, pieces: Pieces) -> dict[str, Any]:
    """New requests at the end of the queue: all that want something; of the rest, questions that were not understood;
    if there is neither, the first piece."""
    wanted = merged(understood(pieces))
    asked = [piece for piece in pieces if piece["abstain"] and QUESTION.search(piece["text"])] if wanted else []
    found = sorted([*wanted, *asked], key=lambda piece: piece["place"]) or pieces[:1]
    update = {"requests": new_requests(state, found)}
    return update if found[0]["abstain"] else update | {"failures": 0}


def merged(pieces: Pieces) -> Pieces:
    """Pieces of one request, as "I want to return the lamp. It is broken.", as one."""
    result: Pieces = []
    for piece in pieces:
        before = result[-1] if result else None
        clash = before and any(before["slots"].get(name, value) != value for name, value in piece["slots"].items())
        if before and before["intent"] == piece["intent"] and not clash:
            slots = {**before["slots"], **piece["slots"]}
            result[-1] = {**before, "slots": slots, "text": f"{before['text']} {piece['text']}"}
        else:
            result.append(piece)
    return result


def fill(state: ConversationState, asked: dict[str, Any], pieces: Pieces, text: str) -> dict[str, Any] | None:
    """The changes if the message answers the question that is open; None if it is about something else."""
    request = next((each for each in state["requests"] if each["number"] == asked["request"]), None)
    if request is None or request["status"] != "asking":
        return None
    if reply_kind(text) == "no":
        said = outcome("dropped", request["number"])
        requests = changed(state, request["number"], status="done")
        return {"asked": None, "requests": requests, "outcomes": told(state, said)}
    if says_something_else(request, asked, pieces):
        return None
    value = answer_to(asked, pieces, text)
    if value is None:
        if understood(pieces):
            return None
        requests = changed(state, request["number"], status="open")  # its agent asks once more
        return {"requests": requests, "failures": state["failures"] + 1}
    mentioned = {name: slot for name, slot in pieces[0]["slots"].items() if name in ("reason", "address")}
    slots = {**request["slots"], **mentioned, asked["slot"]: value}
    if asked["slot"] == "order_id" and not pieces[0]["slots"].get("product"):
        slots.pop("product", None)
    asking = {**state, "requests": changed(state, request["number"], slots=slots, status="open", filled=True)}
    others = [piece for piece in understood(pieces[1:]) if piece["intent"] != request["intent"]]
    return {"requests": new_requests(asking, others), "failures": 0}


def says_something_else(request: Request, asked: dict[str, Any], pieces: Pieces) -> bool:
    """Whether the message is surely a request of its own.

    "It arrived broken" after "why do you return it?" may look like a complaint, and "KM204817" like anything; but
    "where is KM204817?" after "which order shall I cancel?" is no answer.
    """
    first = pieces[0]
    if first["abstain"] or first["intent"] == request["intent"] or first["intent"] in SMALL_TALK:
        return False
    if (
        asked["options"]
        and len(pieces) == 1
        and is_brief(first["text"])
        and pick_option(first["text"], asked["options"])
    ):
        return False
    if asked["slot"] == "reason" and first["slots"].get("reason") and first["intent"] in VAGUE:
        return False
    if first["intent"] in VAGUE and asked["slot"] != "reason":
        return False
    bare = re.sub(r"[A-Za-z] ?[A-Za-z][ -]?\d{3} ?\d{3}|[\W\d_]+", " ", first["text"]).split()
    return len(bare) > 2 or any(len(word) > 4 for word in bare if not word.isascii())


def is_brief(text: str) -> bool:
    """A few words and no question, as "the lamp" or "是台灯那单"."""
    return len(text.split()) <= 4 and len(text) <= 30 and not QUESTION.search(text)


def answer_to(asked: dict[str, Any], pieces: Pieces, text: str) -> str | None:
    """The value of the slot in the message, or None."""
    slot, slots = asked["slot"], pieces[0]["slots"]
    if slot == "address":
        return slots.get("address") or (text.strip() if looks_like_address(text) else None)
    if asked["options"] and (chosen := pick_option(text, asked["options"])):
        return chosen
    if slot == "order_id":
        return slots.get("order_id")
    if slot == "reason":
        return slots.get("reason") or ("changed_mind" if asked["times"] >= 2 and not QUESTION.search(text) else None)
    if slot == "product" and len(text) <= 40 and not QUESTION.search(text):
        return slots.get(slot) or text.strip()
    return slots.get(slot)


def looks_like_address(text: str) -> bool:
    """Whether the whole message may be an address: a number or a Chinese place in it, and no question."""
    place = re.search(r"\d|[省市区县路街号村镇]", text)
    return bool(place) and 5 <= len(text.strip()) <= 200 and not QUESTION.search(text) and not order_number(text)


def take_offer(state: ConversationState, yes: bool, text: str) -> dict[str, Any]:
    """A plain yes starts what was offered."""
    if not yes:
        return {"offer": None, "failures": 0, "outcomes": told(state, outcome("offer_declined"))}
    request = {"text": text, **state["offer"], **RULES, "filled": True}
    return {"offer": None, "failures": 0, "requests": new_requests(state, [request])}


def begins_with_no(text: str) -> bool:
    """Whether the first clause is a no, as in "No. I did not ask for that." """
    return reply_kind(re.split(r"[.,!;，。！；\n]", text.strip(), maxsplit=1)[0]) == "no"


def wants_something_new(state: ConversationState, pieces: Pieces) -> bool:
    """Whether a no goes on with a wish, or with other values for the one that was refused."""
    clear = [piece for piece in understood(pieces) if piece["intent"] not in VAGUE or piece["slots"]]
    corrected = any(differs(name, value, state["proposal"]) for name, value in pieces[0]["slots"].items())
    same = [piece for piece in clear if piece["intent"] == state["proposal"]["tool"]]
    return corrected or len(clear) > len(same)


def reconsider(state: ConversationState, pieces: Pieces, text: str) -> dict[str, Any]:
    """Neither yes nor no to a proposal: it waits while a question is answered, and gives way to a new wish.

    A correction ("no, the other one", "make it KM204818") is the same wish with other slots. What is not understood
    changes nothing: the question is asked again.
    """
    proposal = state["proposal"]
    wanted = merged(understood(pieces))
    changes = {name: value for name, value in pieces[0]["slots"].items() if differs(name, value, proposal)}
    if wanted and all(piece["intent"] in ASKING_ONLY for piece in wanted):
        return {"requests": new_requests(state, wanted), "failures": 0}
    request = next(each for each in state["requests"] if each["number"] == proposal["request"])
    if not wanted and not changes:
        questions = [piece for piece in pieces if QUESTION.search(piece["text"])]
        if questions:
            return {"requests": new_requests(state, questions[:1])}
        return {"outcomes": told(state, outcome("yes_or_no"))}
    withdrawn = {**state, "requests": changed(state, request["number"], status="done")}
    new = wanted or [{**request, "slots": {**request["slots"], **changes}, "text": text}]
    if wanted and wanted[0]["intent"] == request["intent"]:
        kept = {} if "order_id" in wanted[0]["slots"] or "product" in wanted[0]["slots"] else request["slots"]
        new = [{**wanted[0], "slots": {**kept, **wanted[0]["slots"]}}, *wanted[1:]]
    said = outcome("withdrawn", proposal["request"], title=tool_title(proposal["tool"], state["language"]))
    requests = new_requests(withdrawn, [{**piece, "status": "open", "turn": state["turn"]} for piece in new])
    return {"proposal": None, "outcomes": told(state, said), "failures": 0, "requests": requests}


def differs(name: str, value: str, proposal: dict[str, Any]) -> bool:
    """Whether a slot of the message contradicts the proposal."""
    if name == "order_id":
        number = order_number(value)
        return number is not None and number != proposal["arguments"].get("order_id")
    if name in ("address", "reason"):
        return name in proposal["arguments"] and value != proposal["arguments"][name]
    return False


def soothe(state: ConversationState, limit: int, text: str) -> dict[str, Any]:
    """An apology to somebody who is angry; a person for whoever is angry again and wants nothing an agent could do."""
    wanted = [each for each in state["requests"] if each["status"] == "open"]
    helpless = all(each["abstain"] or each["intent"] in VAGUE for each in wanted)
    if not state["human"] and (state["anger"] > limit or state["anger"] == limit and helpless):
        request = {**RULES, "intent": "human_agent", "slots": {}, "text": text}
        requests = [
            {**each, "status": "done"} if each in wanted and each["abstain"] else each for each in state["requests"]
        ]
        said = outcome("sorry_again")
        return {"requests": new_requests({**state, "requests": requests}, [request]), "outcomes": told(state, said)}
    if wanted and all(each["intent"] == "complaint" for each in wanted):
        return {}  # its agent says sorry
    return {"outcomes": [outcome("sorry"), *state["outcomes"]]}
