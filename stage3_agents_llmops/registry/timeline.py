"""What was in production when: an alias's history as spans of time.

The first question after an incident. A registry that only knows the present cannot answer it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from labkit.errors import LabError
from stage3_agents_llmops.registry.interface import AliasChange


@dataclass(frozen=True)
class Span:
    """An alias pointed at a version from `start` to `end` (None: it still does); `rollback`: it came back to it."""

    alias: str
    version: int
    start: datetime
    end: datetime | None
    rollback: bool
    reason: str = ""


def spans(changes: Iterable[AliasChange]) -> list[Span]:
    """The spans of every alias, as they began. Moves made outside have no time and are left out."""
    timed = [change for change in changes if change.kind != "outside"]
    found = []
    for place, change in enumerate(timed):
        following = next((later for later in timed[place + 1 :] if later.alias == change.alias), None)
        end = datetime.fromisoformat(following.time) if following else None
        found.append(Span(change.alias, change.version, datetime.fromisoformat(change.time), end,
                          change.kind == "rollback", change.reason))  # fmt: skip
    return found


def version_at(changes: Sequence[AliasChange], alias: str, when: datetime) -> int | None:
    """What an alias pointed at at a time; None before it existed."""
    before = [span for span in spans(changes) if span.alias == alias and span.start <= when]
    return before[-1].version if before else None


def parse_time(text: str) -> datetime:
    """A date or a time as ISO 8601 writes it; without a zone it is UTC.

    Raises:
        LabError: something else.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise LabError(f"{text} is no time", "--at 2026-11-29T10:30") from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
