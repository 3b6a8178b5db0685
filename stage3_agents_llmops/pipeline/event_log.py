"""What a controller knows is what it has written down: events of all deployments, one file, nothing else to believe.

    {"number": 12, "kind": "finished", "data": {"deployment": "d003", "step": "register", "version": 4, ...}, ...}

The file is the registry's chained log (registry/event_log.py): a line counts once it is on the disk, a killed writer
leaves at most half a line, and a changed line is noticed. Whoever starts a controller again replays the events and
goes on after the last finished step. A step that had begun is done again, so every step must be able to be repeated.

| kind | says |
|---|---|
| deployment | a deployment began: what is to be released, with which preset, against which champion |
| begun, finished | a step, and the facts that later steps need |
| weights | the gateway took these weights |
| verdict | a look at the canary: continue, pause or abort, with the figures |
| requested | a person asked for a rollback |
| notice | worth telling: an alert, a restarted process, a clock that is wrong |
| ended | done, rolled back or held, with the reason and the times |
"""

import errno
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from stage3_agents_llmops.registry.event_log import Event, EventLog

KINDS = ("deployment", "begun", "finished", "weights", "verdict", "requested", "notice", "ended")
ENDINGS = ("done", "rolled back", "held")
BALLAST = 256 * 1024  # bytes that are given back when the disk is full, so that a rollback can be written down


@dataclass
class Deployment:
    """What the events of one deployment add up to.

    `facts` holds what finished steps left, by step. `pending` is a step that began and did not finish.
    """

    id: str
    started: str
    order: Mapping[str, Any]
    finished: list[str] = field(default_factory=list)
    pending: str | None = None
    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    requested: str | None = None  # why a person wants it back
    ending: str | None = None
    end: Mapping[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.ending is None


def replay(events: Iterable[Event]) -> list[Deployment]:
    """Fold the events into deployments, the oldest first."""
    found: dict[str, Deployment] = {}
    for event in events:
        name = event.data.get("deployment")
        if event.kind == "deployment":
            found[name] = Deployment(name, event.time, {k: v for k, v in event.data.items() if k != "deployment"})
        if name not in found:  # a notice between deployments
            continue
        one, data = found[name], event.data
        one.events.append(event)
        if event.kind == "begun":
            one.pending = data["step"]
        elif event.kind == "finished":
            one.finished.append(data["step"])
            one.facts[data["step"]] = {k: v for k, v in data.items() if k not in ("deployment", "step")}
            one.pending = None
        elif event.kind == "requested":
            one.requested = data["reason"]
        elif event.kind == "ended":
            one.ending, one.end = data["ending"], data
    return list(found.values())


# exercise: pipeline.next_step
def next_step(deployment: Deployment, steps: Sequence[str]) -> str | None:
    """The step with which a controller goes on; None when nothing is left to do.

    It is the first of `steps` that was not finished, whatever else was begun; a deployment that has ended has none.

    Args:
        steps: all steps in their order.
    """
    if not deployment.running:
        return None
    return next((step for step in steps if step not in deployment.finished), None)
# end exercise


class DeploymentLog:
    """Append and read. Any number of processes may append: each append takes the lock for its moment.

    Args:
        path: of the JSON lines; `.lock`, `.head` and `.ballast` lie beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = EventLog(path)
        self._lock = FileLock(path.with_suffix(".lock"))
        self._ballast = path.with_suffix(".ballast")

    def append(self, kind: str, deployment: str | None = None, **data: Any) -> Event:
        """Write an event; it is on the disk when this returns.

        On a full disk the ballast is given back once, and the event is written in its place.

        Raises:
            OSError: the disk is full, and the ballast is used up.
            Damaged: the log was changed by somebody else.
        """
        if kind not in KINDS:
            raise ValueError(f"no event is called {kind}")
        row = {"deployment": deployment, **data}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            try:
                return self._log.append(kind, row)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._ballast.exists():
                    raise
                self._ballast.unlink()
                return self._log.append(kind, row)

    def load_ballast(self) -> None:
        """Set space aside for bad times; nothing happens when there is none to be had."""
        if not self._ballast.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                self._ballast.write_bytes(b"\0" * BALLAST)

    def events(self) -> list[Event]:
        """All events, their chain checked."""
        return self._log.read()

    def deployments(self) -> list[Deployment]:
        """All deployments, the oldest first."""
        return replay(self.events())

    def last(self) -> Deployment | None:
        """The newest deployment."""
        return next(iter(reversed(self.deployments())), None)

    def next_id(self) -> str:
        """The name of the next deployment: d001, d002, ..."""
        return f"d{len(self.deployments()) + 1:03d}"
