"""What a run tells: typed events, in order, ending with exactly one `end`.

| type | data |
|---|---|
| start | thread_id, turn, run_id, understander, wording, resumed, schema; release, where it is known |
| node | name, agent, phase "start" or "end", ms |
| intent | intent, confidence, abstain, source, request (from 1), of |
| slots | slots (all that are remembered), asked (the slot asked for, or null) |
| handoff | from, to, count |
| tool | name, arguments, phase "call" or "result", sensitive, write; a result also has ok, message_code, result |
| citation | number, id, title, text, kind |
| guardrail | stage "message", "passage", "answer" or "pii", finding, action |
| token | text |
| interrupt | proposal_id, tool, arguments, summary, title |
| usage | input_tokens, output_tokens, model, ms |
| human | ticket_id, position |
| error | code, message, retryable |
| end | reason "answered", "waiting", "human", "cancelled" or "failed"; text |

The answer is the tokens joined, and stands again in `end`. A `start` with `resumed` begins the telling anew: what a
reader had of the answer before it is void.
"""

from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
EVENT_FIELDS = {
    "start": ("thread_id", "turn", "run_id", "understander", "wording", "resumed", "schema"),
    "node": ("name", "agent", "phase", "ms"),
    "intent": ("intent", "confidence", "abstain", "source", "request", "of"),
    "slots": ("slots", "asked"),
    "handoff": ("from", "to", "count"),
    "tool": ("name", "arguments", "phase", "sensitive", "write"),
    "citation": ("number", "id", "title", "text", "kind"),
    "guardrail": ("stage", "finding", "action"),
    "token": ("text",),
    "interrupt": ("proposal_id", "tool", "arguments", "summary", "title"),
    "usage": ("input_tokens", "output_tokens", "model", "ms"),
    "human": ("ticket_id", "position"),
    "error": ("code", "message", "retryable"),
    "end": ("reason", "text"),
}
END_REASONS = ("answered", "waiting", "human", "cancelled", "failed")


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run.

    Raises:
        ValueError: an unknown type, or a field that this type must have is missing.
    """

    type: str
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.type not in EVENT_FIELDS:
            raise ValueError(f"unknown event type {self.type!r}")
        missing = [name for name in EVENT_FIELDS[self.type] if name not in self.data]
        if missing:
            raise ValueError(f"event {self.type} lacks {', '.join(missing)}")


@dataclass(frozen=True)
class Decision:
    """A customer's answer to one proposal."""

    proposal_id: str
    approve: bool


@dataclass(frozen=True)
class Reply:
    """One run, gathered: what the customer reads, and what is asked of them."""

    text: str
    reason: str
    events: tuple[Event, ...]
    interrupt: dict[str, Any] | None = None  # the data of the interrupt event
    citations: tuple[dict[str, Any], ...] = ()


def gather(events: list[Event]) -> Reply:
    """A run's events as one reply.

    Raises:
        ValueError: the run has not exactly one `end`, or something follows it.
    """
    ends = [event for event in events if event.type == "end"]
    if len(ends) != 1 or events[-1] is not ends[0]:
        raise ValueError(f"a run ends with exactly one end event, not {len(ends)}")
    asked = [event.data for event in events if event.type == "interrupt"]
    citations = tuple(event.data for event in events if event.type == "citation")
    return Reply(ends[0].data["text"], ends[0].data["reason"], tuple(events), asked[-1] if asked else None, citations)
