"""What the watched services wrote down: which release served which run, and what it said to labelled questions."""

import json
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ServedRun:
    """A run that a release accepted; `cited` is None as long as nobody read it to its end."""

    run_id: str
    at: float
    release: str  # its note
    message: str
    probe: bool
    fault: str
    cited: frozenset[str] | None


class WatchLog:
    """The lines of all watched services of a grading. Files grow; each call reads what is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """All lines, those of a process together; half-written ones are left for the next call."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    yield json.loads(line)

    def runs(self) -> dict[str, ServedRun]:
        """Every accepted run by its id."""
        lines = list(self.lines())
        cited = {line["run"]: frozenset(line["citations"]) for line in lines if line["what"] == "told"}
        return {
            line["run"]: ServedRun(line["run"], line["at"], line["note"], line["message"], line["probe"],
                                   line["fault"], cited.get(line["run"]))
            for line in lines if line["what"] == "run"
        }  # fmt: skip

    def served_by(self, release: str) -> set[str]:
        """The ids of the runs that a release accepted."""
        return {line["run"] for line in self.lines() if line["what"] == "run" and line["note"] == release}

    def started(self) -> list[str]:
        """The release of every service that was started, in no order."""
        return [line["note"] for line in self.lines() if line["what"] == "start"]

    def kill(self) -> None:
        """End the services that a platform left behind, and the relays before them."""
        for line in self.lines():
            if line["what"] == "start":
                for pid in (line["service"], line["pid"]):
                    if is_ours(pid, self.folder):
                        with suppress(ProcessLookupError, PermissionError):
                            os.kill(pid, signal.SIGKILL)


def is_ours(pid: int, folder: Path) -> bool:
    """Whether a process is of this grading: its number may be somebody else's by now."""
    import psutil

    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        return any(str(folder.parent) in word for word in process.cmdline()) or (
            process.environ().get("COURSE_LAB_RUNS", "").startswith(str(folder.parent))
        )
    return False


def probes_of(runs: Iterable[ServedRun], articles: Mapping[str, str]) -> list[tuple[str, bool]]:
    """(question, whether the article that its label names was cited) of every labelled question that was answered.

    Args:
        articles: question -> article.
    """
    asked = [run for run in runs if run.probe and run.message in articles and run.cited is not None]
    return [(run.message, articles[run.message] in (run.cited or ())) for run in asked]
