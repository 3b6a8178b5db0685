"""An append-only log: one JSON object a line, each with the hash of the line before.

    {"number": 2, "time": ..., "kind": "alias", "data": {...}, "previous": <sha256 of line 1>, "sha256": <of this one>}

Changing, dropping or swapping a line breaks the chain from there on, as in a git history. The chain cannot see that its
end is gone; `<log>.head` says how far it went. Who can write both files can still write another history from start to
end: against that, only a copy of the head elsewhere helps.

Crash safety: a line ends with its newline, and an event counts once its newline is on the disk. A writer that was
killed leaves at most an unfinished last line, which readers skip and the next writer cuts off.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.files import sync_folder, write_json
from stage3_agents_llmops.registry.interface import Damaged

START = "0" * 64  # `previous` of the first event


@dataclass(frozen=True)
class Event:
    """One line. `number` counts from 1; `time` is for people, nothing is ordered by it."""

    number: int
    time: str
    kind: str
    data: Mapping[str, Any]
    previous: str
    sha256: str


def event_sha256(event: Mapping[str, Any]) -> str:
    """The hash of an event: of all its fields but the hash itself."""
    plain = {name: value for name, value in event.items() if name != "sha256"}
    return hashlib.sha256(_line(plain)).hexdigest()


# exercise: registry.first_broken
def first_broken(events: Sequence[Mapping[str, Any]]) -> int | None:
    """The place (from 0) of the first event that does not continue the chain; None when all do.

    An event continues the chain when its `number` counts on from 1, its `previous` is the `sha256` of the event before
    (START for the first), and its `sha256` is what `event_sha256` says.
    """
    previous = START
    for place, event in enumerate(events):
        linked = event["number"] == place + 1 and event["previous"] == previous
        if not linked or event["sha256"] != event_sha256(event):
            return place
        previous = event["sha256"]
    return None
# end exercise


class EventLog:
    """Reading needs no lock. Appending does: the caller holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = path.with_suffix(".head")

    def read(self) -> list[Event]:
        """All events, their chain checked.

        Raises:
            Damaged: a line was changed, or lines are gone.
        """
        head = self._read_head()  # before the log: writers append first, so the log may be ahead but never behind
        whole, _ = self._lines()
        rows = [self._parse(number, line) for number, line in enumerate(whole, 1)]
        if (broken := first_broken(rows)) is not None:
            raise self._damaged(f"line {broken + 1} was changed, or one before it is gone")
        if head["number"] > len(rows) or (head["number"] and rows[head["number"] - 1]["sha256"] != head["sha256"]):
            raise self._damaged(f"it has {len(rows)} events, but {head['number']} were written")
        return [Event(**row) for row in rows]

    def append(self, kind: str, data: Mapping[str, Any]) -> Event:
        """Write an event and flush it to the disk.

        Raises:
            Damaged: what is there cannot be continued.
            OSError: the disk is full; the log is as it was.
        """
        events = self.read()
        plain = {"number": len(events) + 1, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind,
                 "data": dict(data), "previous": events[-1].sha256 if events else START}  # fmt: skip
        event = Event(**plain, sha256=event_sha256(plain))
        self._append_line(_line(asdict(event)) + b"\n")
        write_json(self.head, {"number": event.number, "sha256": event.sha256})
        return event

    def _append_line(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            whole = self._lines()[1]
            os.ftruncate(descriptor, whole)  # what a killed writer began
            os.lseek(descriptor, whole, os.SEEK_SET)
            try:
                _write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, whole)
                raise
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)

    def _lines(self) -> tuple[list[bytes], int]:
        """Finished lines, and the bytes that they take."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        return content[:whole].splitlines(), whole

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if set(row) == set(Event.__dataclass_fields__):
                return row
        except (ValueError, TypeError):
            pass
        raise self._damaged(f"line {number} is no event")

    def _read_head(self) -> dict[str, Any]:
        try:
            head = json.loads(self.head.read_text(encoding="utf-8"))
            return {"number": int(head["number"]), "sha256": str(head["sha256"])}
        except FileNotFoundError:
            return {"number": 0, "sha256": START}
        except (ValueError, KeyError, TypeError):
            raise self._damaged(f"{self.head.name} cannot be read") from None

    def _damaged(self, what: str) -> Damaged:
        return Damaged(f"the history {self.path} was tampered with: {what}", "a backup of the registry's folder")


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _write_all(descriptor: int, content: bytes) -> None:
    """`os.write` may write less than it was given, on a disk that is nearly full for one."""
    while content:
        content = content[os.write(descriptor, content) :]
