"""The log of deployments; each test names the bug that it catches."""

import errno
import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage3_agents_llmops.pipeline.event_log import DeploymentLog, next_step, replay
from stage3_agents_llmops.pipeline.schedule import STEPS
from stage3_agents_llmops.registry import Damaged
from stage3_agents_llmops.registry.event_log import Event


@pytest.fixture
def log(tmp_path):
    return DeploymentLog(tmp_path / "events.jsonl")


def event(kind, **data):
    return Event(1, "2026-11-29T09:00:00+00:00", kind, {"deployment": "d001", **data}, "", "")


def test_replay_gives_facts_and_the_pending_step(log):
    """Catches: facts of an unfinished step; a step that counts as finished because it began."""
    log.append("deployment", "d001", champion=1)
    log.append("begun", "d001", step="train")
    log.append("finished", "d001", step="train", folder="x")
    log.append("begun", "d001", step="evaluate")
    one = log.last()
    assert (one.finished, one.pending, one.running) == (["train"], "evaluate", True)
    assert one.facts == {"train": {"folder": "x"}} and one.order == {"champion": 1}
    assert next_step(one, ["train", "evaluate", "gates"]) == "evaluate"


def test_next_step_by_hand():
    """Catches: a step that is skipped, done twice, or done after the end."""
    begin = [event("deployment")]
    assert next_step(replay(begin)[0], STEPS) == STEPS[0]
    some = begin + [event("finished", step=step) for step in STEPS[:3]] + [event("begun", step=STEPS[3])]
    assert next_step(replay(some)[0], STEPS) == STEPS[3]
    hole = begin + [event("finished", step=STEPS[0]), event("finished", step=STEPS[2])]
    assert next_step(replay(hole)[0], STEPS) == STEPS[1]
    every = begin + [event("finished", step=step) for step in STEPS]
    assert next_step(replay(every)[0], STEPS) is None
    ended = some + [event("ended", ending="rolled back", reason="bad")]
    assert next_step(replay(ended)[0], STEPS) is None


@given(st.integers(0, len(STEPS)), st.integers(0, 2))
def test_a_controller_that_is_killed_anywhere_does_every_step_in_order(cut, again):
    """Catches: an order of steps that depends on where the controller died."""
    events = [event("deployment")]
    done = []
    for place, step in enumerate(STEPS):
        if place == cut:
            events += [event("begun", step=step)] * (1 + again)  # begun again and again, never finished
        found = next_step(replay(events)[0], STEPS)
        assert found == step
        events += [event("begun", step=step), event("finished", step=step)]
        done.append(found)
    assert done == list(STEPS) and next_step(replay(events)[0], STEPS) is None


def test_deployments_do_not_mix(log):
    """Catches: facts of one deployment that are read as another's; the ids' order."""
    for name in ("d001", "d002"):
        log.append("deployment", name)
    log.append("finished", "d001", step="train", folder="one")
    log.append("ended", "d001", ending="held", reason="gates")
    log.append("finished", "d002", step="train", folder="two")
    first, second = log.deployments()
    assert first.facts["train"] == {"folder": "one"} and first.ending == "held" and not first.running
    assert second.facts["train"] == {"folder": "two"} and second.running and log.next_id() == "d003"


def test_killed_writer_leaves_whole_events(log):
    """Catches: half an event that stops the next controller."""
    program = (
        "import sys; from pathlib import Path; from stage3_agents_llmops.pipeline.event_log import DeploymentLog\n"
        "log = DeploymentLog(Path(sys.argv[1]))\n"
        "for number in range(1, 10**6): log.append('notice', None, text='x' * 3000, number=number)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(log.path)])
    deadline = time.monotonic() + 60
    while not log.path.exists() or log.path.stat().st_size < 20_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.wait()
    with open(log.path, "ab") as file:
        file.write(b'{"number": 99, "half an ev')
    numbers = [each.data["number"] for each in log.events()]
    assert numbers == list(range(1, len(numbers) + 1))
    log.append("notice", None, number=len(numbers) + 1)
    assert [each.data["number"] for each in log.events()] == [*numbers, len(numbers) + 1]


def test_changed_line_is_noticed(log):
    """Catches: a history that can be rewritten: "this one was never rolled back"."""
    log.append("deployment", "d001")
    log.append("ended", "d001", ending="rolled back", reason="bad")
    log.path.write_bytes(log.path.read_bytes().replace(b"rolled back", b"done       "))
    with pytest.raises(Damaged, match="tampered"):
        log.last()


def test_ballast_is_given_back_when_the_disk_is_full(log, monkeypatch):
    """Catches: a rollback that nobody can write down; a disk that stays full and is not told."""
    log.append("deployment", "d001")
    log.load_ballast()
    ballast = log.path.with_suffix(".ballast")
    assert ballast.stat().st_size > 100_000
    real = os.fsync

    def full(descriptor):
        if ballast.exists():
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    log.append("ended", "d001", ending="rolled back", reason="bad")
    assert log.last().ending == "rolled back" and not ballast.exists()
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        log.append("notice", "d001", text="more")
    assert len(log.events()) == 2


def test_unknown_kind_is_refused(log):
    """Catches: an event that no reader knows."""
    with pytest.raises(ValueError, match="finnished"):
        log.append("finnished", "d001")
