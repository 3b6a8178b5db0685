"""The learner's platform as the grader sees it: two commands, and HTTP on the gateway's port.

    python -m stage3_agents_llmops.pipeline platform --shop FILE --state FOLDER --release FOLDER --probes FILE
                                                     --wrap WORDS --port PORT
    python -m stage3_agents_llmops.pipeline deploy --state FOLDER --release FOLDER
    GET /health      200 once a customer is answered; customers talk as in month 4 (learner_service.py), and may
    POST /runs/ID/feedback {"score": 1 or -1}
    GET /releases    {"releases": [{"release", "note", "share", "status"}]}
    GET /alerts      {"alerts": [{"name", "family", "release", "state", "since", "until"}]}, those that are over too
    GET /metrics     Prometheus' text format

`deploy` brings one release to everybody or takes it back, and says so in its last line, a JSON object. WORDS come
before the command of every service that the platform starts (watched_service.py).
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from milestones.learner_model import LearnerFault, plain
from milestones.learner_process import LONGEST_ANSWER, LearnerProcess, end, environment, last_line
from milestones.learner_service import LearnerService

MODULE = "stage3_agents_llmops.pipeline"
WATCHED = Path(__file__).with_name("watched_service.py")
T = TypeVar("T")


@dataclass(frozen=True)
class Alert:
    """One alert; `until` is None while it fires."""

    name: str
    family: str
    release: str
    since: float
    until: float | None


@dataclass(frozen=True)
class Deployed:
    """How a deployment ended: what the command said, its exit code, seconds."""

    release: str
    status: str
    reason: str
    code: int
    seconds: float


class LearnerPlatform(LearnerService):
    """The hand-in's platform on a shop, with one release at 100 %.

    Args:
        secret: what `make_secret` wrote into `state`.
        probes: labelled questions, a line of JSON each.
        settings: of the watched services.
        scratch: where the hand-in's commands may write; also the mark by which their processes are found.

    Raises (every method):
        LearnerFault: it ends, does not answer in time, or answers something else than the form.
    """

    def __init__(
        self, folder: Path, shop: Path, state: Path, release: Path, secret: bytes, probes: Path, settings: Path,
        scratch: Path, **limits: Any,
    ) -> None:  # fmt: skip
        self._secret, self._folder, self._state, self._scratch = secret, folder, state, scratch
        self._threads = limits["threads"]
        watched = shlex.join([sys.executable, "-P", str(WATCHED), str(settings)])
        words = [MODULE, "platform", "--shop", str(shop), "--state", str(state), "--release", str(release)]
        words += ["--probes", str(probes), "--wrap", watched]
        LearnerProcess.__init__(self, folder, words, scratch, **limits)

    def close(self) -> None:
        """End the platform, and whatever it started in sessions of their own."""
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        end_marked(f"{self._scratch}")
        super().close()

    def give_feedback(self, customer_id: str, run_id: str, score: int) -> None:
        """A thumb, 1 or -1."""
        with self._open(f"/runs/{run_id}/feedback", {"score": score}, headers=self._headers(customer_id)) as reply:
            reply.read(LONGEST_ANSWER)

    def deploy(self, release: Path, limit: float) -> Deployed:
        """Let the hand-in deploy a release, from the command's start to its end."""
        words = [MODULE, "deploy", "--state", str(self._state), "--release", str(release)]
        began = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *words], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=out,
                stderr=log, env=environment(self._folder, self._scratch, self._threads), start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                raise LearnerFault(f"deploy did not end within {limit:.0f} s{last_line(log)}") from None
            finally:
                end(process)
            out.seek(0)
            said = last_object(out.read(LONGEST_ANSWER).decode("utf-8", "replace"))
            if said is None:
                raise LearnerFault(f"deploy ended with exit code {code} and no JSON in its last line{last_line(log)}")
        words_ = [plain(str(said.get(name, ""))) for name in ("release", "status", "reason")]
        return Deployed(*words_, code=code, seconds=time.monotonic() - began)

    def shares(self) -> dict[str, float]:
        """The share of customers of each release, by its note."""
        return dict(self._rows("/releases", "releases", lambda row: (str(row["note"]), float(row["share"] or 0))))

    def alerts(self) -> list[Alert]:
        """All alerts since the start."""
        return self._rows("/alerts", "alerts", alert_of)

    def metrics(self) -> str:
        """The text of /metrics."""
        with self._open("/metrics", None) as reply:
            return reply.read(LONGEST_ANSWER).decode("utf-8", "replace")

    def _rows(self, path: str, name: str, read: Callable[[Mapping[str, Any]], T]) -> list[T]:
        rows = self.ask(path).get(name)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise LearnerFault(f"{path} gave no list of {name}")
        try:
            return [read(row) for row in rows]
        except (KeyError, TypeError, ValueError):
            raise LearnerFault(f"{path} lacks a field that milestones/README.md names") from None


def alert_of(row: Mapping[str, Any]) -> Alert:
    """An alert from its row."""
    until = None if row.get("until") is None else float(row["until"])
    return Alert(str(row["name"]), str(row["family"]), str(row.get("release") or ""), float(row["since"]), until)


def last_object(text: str) -> dict[str, Any] | None:
    """The JSON object in the last line of a text, if there is one."""
    with suppress(ValueError, IndexError):
        said = json.loads(text.strip().splitlines()[-1])
        return said if isinstance(said, dict) else None
    return None


def end_marked(mark: str) -> None:
    """End every process that was started, however indirectly, with this mark in COURSE_LAB_RUNS."""
    own = os.getpid()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != own and process.environ().get("COURSE_LAB_RUNS") == mark:
                process.kill()
