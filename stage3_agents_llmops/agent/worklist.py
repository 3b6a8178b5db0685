"""The queue of requests, and the five ways in which work on one of them goes on.

Every function takes the state and gives the keys to change; nothing is changed in place, because a node may run again
after a crash and must begin from the same state.
"""

import hashlib
import json
from typing import Any

from stage3_agents_llmops.agent.shop import TOOLS
from stage3_agents_llmops.agent.state import ConversationState, Outcome, Proposal, Request
from stage3_agents_llmops.agent.wording import tool_title

Update = dict[str, Any]


def current_request(state: ConversationState) -> Request:
    """The request that is being worked on."""
    return next(request for request in state["requests"] if request["number"] == state["current"])


def changed(state: ConversationState, number: int | None, **changes: Any) -> list[Request]:
    """The queue with one request changed."""
    return [{**each, **changes} if each["number"] == number else each for each in state["requests"]]


def outcome(
    code: str, request: int | None = None, passages: list[dict[str, Any]] | None = None, **facts: Any
) -> Outcome:
    """Something to say: a template's name and its facts."""
    return {"code": code, "facts": facts, "passages": passages or [], "request": request}


def told(state: ConversationState, *said: Outcome) -> list[Outcome]:
    """The outcomes with more of them."""
    return [*state["outcomes"], *said]


def finish(state: ConversationState, *said: Outcome, **more: Any) -> Update:
    """The request is done with."""
    number = state["current"]
    said = tuple({**each, "request": number} for each in said)
    return {"requests": changed(state, number, status="done"), "outcomes": told(state, *said), **more}


def ask(
    state: ConversationState, slot: str, said: Outcome, options: list[dict[str, Any]] | None = None, **more: Any
) -> Update:
    """Ask the customer for a slot; a question that is open for another request gives way to this one."""
    number, before = state["current"], state.get("asked") or {}
    again = before.get("request") == number and before.get("slot") == slot
    requests = changed(state, number, status="asking")
    if before and before["request"] != number:
        requests = [{**each, "status": "done"} if each["number"] == before["request"] else each for each in requests]
    asked = {"slot": slot, "request": number, "options": options or [], "times": before["times"] + 1 if again else 1,
             "turn": before["turn"] if again else state["turn"]}  # fmt: skip
    return {"requests": requests, "asked": asked, "outcomes": told(state, {**said, "request": number}), **more}


def propose(
    state: ConversationState, tool: str, arguments: dict[str, Any], facts: dict[str, Any], summary: str = ""
) -> Update:
    """Put a checked write forward: a sensitive one waits for the customer's yes, another one is done next."""
    number = state["current"]
    proposal: Proposal = {
        "proposal_id": write_key(state, tool, arguments),
        "tool": tool,
        "arguments": arguments,
        "sensitive": TOOLS[tool].sensitive,
        "title": tool_title(tool, state["language"]),
        "summary": summary,
        "request": number,
        "facts": facts,
    }
    if not proposal["sensitive"]:
        return {"write": proposal}
    return {"proposal": proposal, "requests": changed(state, number, status="proposed")}


def hand_over(state: ConversationState, to: str, **changes: Any) -> Update:
    """Let another agent go on with the request."""
    return {"handoff_to": to, "requests": changed(state, state["current"], **changes)}


def write_key(state: ConversationState, tool: str, arguments: dict[str, Any]) -> str:
    """The idempotency key of a write.

    It is a hash of what makes the write this one and no other: the conversation, the request, the turn, the tool and
    its arguments. A node that runs again after a crash therefore comes to the same key.
    """
    request = state["current"]
    parts = [state["thread_id"], state["turn"], request, tool, arguments]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return "P" + hashlib.sha256(text.encode()).hexdigest()[:24]


def new_requests(state: ConversationState, found: list[dict[str, Any]]) -> list[Request]:
    """The queue with new requests at its end; those that are done are forgotten, but for the last one."""
    kept = [each for each in state["requests"] if each["status"] != "done"] or state["requests"][-1:]
    number = max((each["number"] for each in state["requests"]), default=0)
    fresh = {"status": "open", "turn": state["turn"]}
    return [*kept, *({**fresh, **each, "number": number + place} for place, each in enumerate(found, 1))]
