"""Two deployments under traffic, and what the grader's customers and watched services saw of them."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from milestones.customer_traffic import Traffic
from milestones.grade import Context
from milestones.hidden_release import BAD, GOOD, STABLE, Drawn
from milestones.learner_model import LearnerFault
from milestones.learner_pipeline import Deployed, LearnerPlatform
from milestones.metric_agreement import Reported, growth, read_metrics
from milestones.watch_log import WatchLog


@dataclass
class Rollout:
    """One deployment, and what came of it."""

    role: str
    before: str  # the note of the release that served until then
    began: float = 0.0
    ended: float = 0.0
    struck: float | None = None  # when the bad release turned bad
    outcome: Deployed | None = None
    fault: str = ""  # why there is no outcome
    serving: Mapping[str, int] | None = None  # note -> runs after its end
    share: float = 0.0  # of customers that /releases gives the deployed one

    @property
    def live(self) -> bool:
        """Whether the command says so."""
        return self.outcome is not None and self.outcome.code == 0


@dataclass
class Measured:
    """Everything that was seen."""

    rollouts: list[Rollout]
    reported: Reported | str  # what /metrics grew by in the good rollout, or what was wrong with it
    window: tuple[float, float]  # of that

    def rollout(self, role: str) -> Rollout:
        """That of one release."""
        return next(rollout for rollout in self.rollouts if rollout.role == role)


@dataclass(frozen=True)
class Snapshot:
    """/metrics at one moment, or what was wrong with it."""

    at: float
    text: str
    fault: str = ""


def deploy_all(
    context: Context, platform: LearnerPlatform, traffic: Traffic, log: WatchLog, releases: Mapping[str, Path],
    drawn: Drawn, scratch: Path,
) -> Measured:  # fmt: skip
    """Both deployments in the drawn order."""
    serving, measured = drawn.notes[STABLE], Measured([], "the good release was not deployed", (0.0, 0.0))
    for place, role in enumerate(drawn.order, start=1):
        context.say(f"deployment {place} of {len(drawn.order)}")
        rollout = Rollout(role, serving)
        measured.rollouts.append(rollout)
        before = snapshot(context, platform, traffic) if role == GOOD else None
        rollout.began = time.time()
        with struck_when_reached(rollout, traffic, log, drawn, scratch) if role == BAD else nullcontext():
            try:
                rollout.outcome = platform.deploy(releases[role], context.month.settings["deploy_limit"])
            except LearnerFault as fault:
                rollout.fault = str(fault)
        rollout.ended = time.time()
        if before:
            after = snapshot(context, platform, traffic)
            measured.window, measured.reported = (before.at, after.at), growth_of(before, after)
        rollout.serving = serving_now(context, platform, traffic, log)
        with suppress(LearnerFault):
            rollout.share = platform.shares().get(drawn.notes[role], 0.0)
        serving = drawn.notes[role] if rollout.live else serving
    return measured


@contextmanager
def struck_when_reached(
    rollout: Rollout, traffic: Traffic, log: WatchLog, drawn: Drawn, scratch: Path
) -> Iterator[None]:  # fmt: skip
    """Turn the bad release bad as soon as it has answered a customer; it stays bad."""
    over, note = threading.Event(), drawn.notes[BAD]

    def watch() -> None:
        while not over.wait(0.1):
            if log.served_by(note) & set(traffic.begun):
                new = scratch / "switch.new"
                new.write_text(json.dumps({"note": note, "kind": drawn.fault, "share": drawn.share}))
                rollout.struck = time.time()
                new.replace(scratch / "switch.json")
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def snapshot(context: Context, platform: LearnerPlatform, traffic: Traffic) -> Snapshot:
    """The text of /metrics while no run is going on, as soon as it counts every run that was answered."""
    settings = context.month.settings
    traffic.pause(settings["answer_limit"])
    answered = sum(run.reason != "failed" for run in traffic.seen())
    end, found = time.monotonic() + settings["settle"], Snapshot(time.time(), "")
    while time.monotonic() < end:
        found = taken(platform)
        if counted(found) >= answered:
            break
        time.sleep(0.5)
    traffic.resume()
    return found


def taken(platform: LearnerPlatform) -> Snapshot:
    """/metrics now."""
    try:
        return Snapshot(time.time(), platform.metrics())
    except LearnerFault as fault:
        return Snapshot(time.time(), "", str(fault))


def counted(found: Snapshot) -> float:
    """How many runs a snapshot has counted."""
    with suppress(LearnerFault):
        return read_metrics(found.text).runs
    return 0.0


def growth_of(before: Snapshot, after: Snapshot) -> Reported | str:
    """What the metrics grew by, or what is wrong with them."""
    if fault := before.fault or after.fault:
        return fault
    try:
        return growth(read_metrics(before.text), read_metrics(after.text))
    except LearnerFault as fault:
        return str(fault)


def serving_now(context: Context, platform: LearnerPlatform, traffic: Traffic, log: WatchLog) -> dict[str, int]:
    """Which releases serve the customers' runs, counted for a few seconds."""
    known = set(traffic.begun)
    time.sleep(context.month.settings["confirm"])
    new = set(traffic.begun) - known  # first: a run is written down before its customer knows of it
    runs = log.runs()
    notes = [runs[id].release if id in runs else "unknown" for id in new]
    return {note: notes.count(note) for note in set(notes)}
