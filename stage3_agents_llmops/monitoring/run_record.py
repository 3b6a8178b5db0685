"""One run as a row: who, which arm and release, how long, what it cost, what it found, and what the customer thought.

The row is made by whoever watches the run from outside (the gateway, a probe), from the events and its own clock, so
that it does not depend on what the release says of itself. No text of the customer or of the answer is in it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

STATUSES = ("answered", "waiting", "human", "cancelled", "failed", "refused", "lost")
SERVED = ("answered", "waiting", "human")  # the customer got what the service gives; these count for latency
ERRORS = ("failed", "refused", "lost")  # refused: turned away for want of room; lost: the stream broke without an end
NOT_UNDERSTOOD = "not_understood"  # the intent of a message that nobody understood
WORDS = re.compile(r"[\u3000-\u9fff\uff00-\uffef]{1,3}|[^\s\u3000-\u9fff\uff00-\uffef]+")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A row of the table `runs`. Times in seconds; `started` since 1970, the others since the request was sent.

    Raises:
        ValueError: an unknown status, a time or count below 0, a feedback that is no thumb.
    """

    run_id: str
    trace_id: str = ""
    thread_id: str = ""
    unit: str = ""  # the customer, or the thread where nobody is known
    arm: str = ""
    release: str = ""
    instance: str = ""
    started: float = 0.0
    first_event_s: float | None = None
    first_token_s: float | None = None
    duration_s: float | None = None
    status: str = "answered"
    intent: str | None = None
    confidence: float | None = None
    language: str | None = None
    query_chars: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    retrieval_score: float | None = None
    citations: int = 0
    citation_clicks: int = 0
    retrieval_hit: bool | None = None  # probes: was the right article cited?
    handed_to_human: bool = False
    guardrails: int = 0
    unsafe: int = 0
    wrong: bool | None = None  # probes: was the answer wrong?
    feedback: int | None = None  # -1, 0, 1
    resolved: bool | None = None
    probe: bool = False
    error: str | None = None

    def __post_init__(self) -> None:
        if not self.run_id or self.status not in STATUSES or self.feedback not in (None, -1, 0, 1):
            raise ValueError(f"run {self.run_id!r}: status {self.status!r} or feedback {self.feedback!r} is unknown")
        for name in NUMBERS:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"run {self.run_id}: {name} is {value}")


def ended(run: RunRecord) -> float:
    """When a run was over, in seconds since 1970."""
    return run.started + (run.duration_s or 0.0)


FIELDS = tuple(item.name for item in fields(RunRecord))
FLAGS = ("handed_to_human", "probe", "retrieval_hit", "wrong", "resolved")
NUMBERS = (
    "started", "first_event_s", "first_token_s", "duration_s", "query_chars", "input_tokens", "output_tokens", "cost",
    "citations", "citation_clicks", "guardrails", "unsafe",
)  # fmt: skip


class Seen(NamedTuple):
    """An event as it arrived: `seconds` after the request was sent, by the watcher's own monotonic clock."""

    type: str
    data: Mapping[str, Any]
    seconds: float


class Prices(NamedTuple):
    """What a million tokens cost. The defaults are the course shop's book-keeping, nobody's list price."""

    input: float = 0.50
    output: float = 1.50

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Of one run."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


PRICES = Prices()


def count_words(text: str) -> int:
    """Tokens where no language model counts them: words, and up to three Chinese characters at a time."""
    return len(WORDS.findall(text))


def record_from_events(
    events: Iterable[Seen], *, run_id: str, started: float, query: str = "", approved: Mapping[str, Any] | None = None,
    prices: Prices = PRICES, **known: Any,
) -> RunRecord:  # fmt: skip
    """The row of a run from its event stream.

    A `start` with `resumed` begins the telling anew, so citations, guardrails, the intent and the answer are those of
    the last telling; tokens that a model has billed are billed, and the first token stays the first that was seen.
    Tokens are the sum of the `usage` events. Where a run has none, because no language model took part, they are
    counted: the words of the query, and the pieces of the answer.

    Args:
        events: in order; without an `end` the run is "lost", unless `status` says otherwise.
        query: the customer's message; only its length, language and number of words are kept.
        approved: the data of the `interrupt` that the customer has said yes to with this request, if that is what it
            was. A sensitive write without it is unsafe; so is personal data in the answer.
        known: the other fields of the record: trace_id, thread_id, unit, arm, release, instance, probe, ...; they win.
    """
    seen = list(events)
    last = [event for event in _last_telling(seen) if event.type != "node"]
    answer = "".join(event.data["text"] for event in last if event.type == "token")
    pieces = sum(event.type == "token" for event in last)
    intents = [event.data for event in last if event.type == "intent"]
    scores = [s for event in last if (s := _score(event)) is not None]
    ends = [event for event in seen if event.type == "end"]
    errors = [event.data["code"] for event in last if event.type == "error"]
    reason = ends[-1].data["reason"] if ends else "lost"
    billed = [event.data for event in seen if event.type == "usage"]
    tokens = _tokens(billed) if billed else (count_words(query), pieces) if seen else (0, 0)
    fields_ = {
        "run_id": run_id, "started": started, "status": reason, "query_chars": len(query),
        "first_event_s": seen[0].seconds if seen else None,
        "first_token_s": next((event.seconds for event in seen if event.type == "token"), None),
        "duration_s": (ends[-1] if ends else seen[-1]).seconds if seen else None,
        "intent": (NOT_UNDERSTOOD if intents[0]["abstain"] else intents[0]["intent"]) if intents else None,
        "confidence": intents[0]["confidence"] if intents else None,
        "language": _language(query), "input_tokens": tokens[0], "output_tokens": tokens[1],
        "cost": prices.cost(*tokens), "retrieval_score": max(scores, default=None),
        "citations": sum(event.type == "citation" for event in last),
        "handed_to_human": reason == "human" or any(event.type == "human" for event in last),
        "guardrails": sum(event.type == "guardrail" for event in last),
        "unsafe": count_unsafe(last, answer, approved), "error": errors[-1] if errors else None,
    }  # fmt: skip
    return RunRecord(**fields_ | known)


def count_unsafe(events: Iterable[Seen], answer: str, approved: Mapping[str, Any] | None) -> int:
    """Sensitive writes that the customer has not agreed to, word for word, and kinds of personal data in the answer."""
    from stage3_agents_llmops.agent.guardrails.pii import mask_pii

    writes = [
        event.data for event in events
        if event.type == "tool" and event.data["phase"] == "result" and event.data["write"] and event.data["sensitive"]
        and event.data.get("ok")
    ]  # fmt: skip
    agreed = (approved["tool"], approved["arguments"]) if approved else None
    unasked = sum((each["name"], each["arguments"]) != agreed for each in writes)
    return unasked + len(mask_pii(answer).found)


def _last_telling(seen: list[Seen]) -> list[Seen]:
    begins = [place for place, event in enumerate(seen) if event.type == "start" and event.data.get("resumed")]
    return seen[begins[-1] :] if begins else seen


def _score(event: Seen) -> float | None:
    """The best passage's evidence, from the result of a search in the help centre."""
    if event.type == "tool" and event.data["phase"] == "result" and event.data["name"] == "search_help":
        return (event.data.get("result") or {}).get("score")
    return None


def _tokens(billed: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    pairs = [(usage["input_tokens"] or 0, usage["output_tokens"] or 0) for usage in billed]
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def _language(query: str) -> str | None:
    from stage3_agents_llmops.agent.understanding.language import language_of

    return language_of(query) if query else None
