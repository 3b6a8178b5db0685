"""What a conversation remembers: the graph's state, a checkpoint of which is written after every step.

Everything in it is plain JSON (str, int, bool, None, list, dict), so a checkpoint can hold no code, and everything that
came from a customer was screened and had its phone numbers, e-mails, IDs and cards masked before it got here.

    queue of requests:  open -> asking (a slot is missing) -> open -> proposed (waits for a yes) -> done
"""

from typing import Any, Literal, TypedDict

AGENTS = ("order_agent", "refund_agent", "product_agent", "complaint_agent")


class Message(TypedDict, total=False):
    """One line of the conversation."""

    role: Literal["customer", "agent", "human"]
    text: str
    turn: int
    citations: list[dict[str, Any]]
    run_id: str | None
    agent: str  # of an agent's message: which of AGENTS worked in the run, else "supervisor"
    proposal: dict[str, Any]  # what the message ends with a question about
    decided: dict[str, Any]  # {"proposal_id", "approve"}: the customer's decision that the run carried out


class Request(TypedDict, total=False):
    """One thing a customer wants; a message may hold several."""

    number: int  # from 1, within the conversation: part of the idempotency key of a write
    turn: int  # of the message that asked for it
    intent: str
    slots: dict[str, str]
    text: str
    filled: bool  # a question about it was answered
    status: Literal["open", "asking", "proposed", "done"]
    confidence: float
    abstain: bool
    source: str


class Proposal(TypedDict, total=False):
    """A write that has been checked against the policy and not been done."""

    proposal_id: str  # also the write's idempotency key
    tool: str
    arguments: dict[str, Any]
    sensitive: bool  # then a customer must agree before it is done
    summary: str  # what will be done, in the customer's language
    title: str
    request: int
    facts: dict[str, Any]


class Outcome(TypedDict, total=False):
    """What an agent found or did for one request; `generate` puts it in words."""

    code: str  # the template's name, see answers/*.toml
    facts: dict[str, Any]
    passages: list[dict[str, Any]]
    request: int | None


class Asked(TypedDict, total=False):
    """The question the agents are waiting for an answer to."""

    slot: str
    request: int
    options: list[dict[str, Any]]  # what the customer may choose from: {"value", "names", "date"}
    times: int
    turn: int  # when it was asked first


class ConversationState(TypedDict, total=False):
    """The graph's state. Keys below `run` begin anew with every message or decision."""

    # of the conversation
    thread_id: str
    customer_id: str
    messages: list[Message]
    turn: int
    language: str
    slots: dict[str, str]  # remembered across turns: order_id, product, item_id
    requests: list[Request]
    asked: Asked | None
    proposal: Proposal | None  # waits for the customer's yes
    offer: dict[str, Any] | None  # what a plain "yes" would start: {"intent", "slots"}
    active_agent: str
    human: bool  # a person was asked for, and has not handed the conversation back
    human_active: bool  # that person is writing: the agents are silent
    ticket_id: str | None
    failures: int  # messages in a row that nobody understood
    anger: int  # angry messages so far
    # of the run
    run_id: str | None
    incoming: dict[str, Any] | None  # the screened and masked message, see screening.py
    current: int | None  # the number of the request that is being worked on
    write: Proposal | None  # what `act` does next
    outcomes: list[Outcome]
    handoff_to: str | None
    handoffs: int
    answered_by: str
    decided: dict[str, Any] | None
    draft: str
    citations: list[dict[str, Any]]
    answer: str


def new_run(run_id: str | None) -> dict[str, Any]:
    """The values with which the keys of a run begin."""
    return {
        "run_id": run_id,
        "current": None,
        "write": None,
        "outcomes": [],
        "handoff_to": None,
        "handoffs": 0,
        "answered_by": "supervisor",
        "decided": None,
        "draft": "",
        "citations": [],
        "answer": "",
    }


def new_conversation(thread_id: str, customer_id: str, language: str) -> dict[str, Any]:
    """The state of a conversation in which nothing has been said."""
    return {
        "thread_id": thread_id,
        "customer_id": customer_id,
        "messages": [],
        "turn": 0,
        "language": language,
        "slots": {},
        "requests": [],
        "asked": None,
        "proposal": None,
        "offer": None,
        "active_agent": "supervisor",
        "human": False,
        "human_active": False,
        "ticket_id": None,
        "failures": 0,
        "anger": 0,
    }
