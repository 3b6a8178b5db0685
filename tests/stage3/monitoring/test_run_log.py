"""Each test names the bug that it catches."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import NOW, run_of

from labkit.errors import LabError
from stage3_agents_llmops.monitoring import Figure, RunLog, RunRecord, summarise
from stage3_agents_llmops.monitoring.run_record import FIELDS, STATUSES

MAYBE = st.one_of(st.none(), st.booleans())
RECORDS = st.builds(
    RunRecord, run_id=st.uuids().map(str), release=st.sampled_from("ab"), arm=st.sampled_from(["stable", "canary"]),
    started=st.floats(0, 1e6), duration_s=st.one_of(st.none(), st.floats(0, 100)), status=st.sampled_from(STATUSES),
    intent=st.one_of(st.none(), st.text(max_size=5)), retrieval_hit=MAYBE, wrong=MAYBE, resolved=MAYBE,
    handed_to_human=st.booleans(), probe=st.booleans(), feedback=st.sampled_from([None, -1, 0, 1]),
    cost=st.floats(0, 10), input_tokens=st.integers(0, 10**9),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(RECORDS, max_size=8, unique_by=lambda each: each.run_id))
def test_what_is_written_comes_back(tmp_path_factory, records):
    """Catches: a field that is lost, a None that becomes False, a truth that becomes 1."""
    with RunLog(tmp_path_factory.mktemp("log") / "runs.sqlite") as log:
        log.add(*records)
        found = {each.run_id: each for each in log.window()}
    assert found == {each.run_id: each for each in records}
    for each in found.values():
        assert all(type(getattr(each, name)) is bool for name in ("probe", "handed_to_human"))


def test_a_window_is_half_open_and_every_condition_counts(log):
    """Catches: a run counted in two windows; a condition that is ignored."""
    log.add(*(run_of(run_id=f"r{place}", started=float(place), release="ab"[place % 2], probe=place == 3,
                     arm="canary" if place > 3 else "stable") for place in range(6)))  # fmt: skip

    def ids(**conditions) -> list[str]:
        return [each.run_id for each in log.window(**conditions)]

    assert ids(since=1.0, until=3.0) == ["r1", "r2"]
    assert ids(since=3.0, until=5.0) == ["r3", "r4"]
    assert ids(release="b") == ["r1", "r3", "r5"]
    assert ids(release="b", arm="canary") == ["r5"]
    assert ids(probes=True) == ["r3"]
    assert ids(release="b", probes=False) == ["r1", "r5"]
    assert ids(ended_after=4.4) == ["r5"]
    assert [each.run_id for each in log.ends(2)] == ["r4", "r5"]
    assert [each.run_id for each in log.ends(2, newest=False)] == ["r0", "r1"]


def test_a_run_has_one_row_that_changes_only_as_it_may(log):
    """Catches: a gateway that writes twice, a thumb that makes a row, a field that must not change."""
    assert log.add(run_of(run_id="r"), run_of(run_id="s")) == 2
    assert log.add(run_of(run_id="r", status="failed")) == 0
    assert log.get("r").status == "answered"
    assert log.update("r", feedback=1, resolved=True)
    assert not log.update("nobody", feedback=1)
    assert log.click("r") and log.click("r") and not log.click("nobody")
    row = log.get("r")
    assert (row.feedback, row.resolved, row.citation_clicks) == (1, True, 2)
    assert log.get("s") == replace(row, run_id="s", feedback=None, resolved=None, citation_clicks=0)
    with pytest.raises(ValueError, match="release"):
        log.update("r", release="other")
    with pytest.raises(ValueError, match="feedback"):
        log.update("r", feedback=7)


def _write(path: str, name: str, count: int) -> None:
    with RunLog(path) as log:
        for number in range(count):
            log.add(run_of(run_id=f"{name}-{number}"))
            log.click(f"{name}-{number}")
            log.click("shared")


def test_several_processes_write_at_once(tmp_path):
    """Catches: "database is locked", and clicks that overwrite one another."""
    path = tmp_path / "runs.sqlite"
    with RunLog(path) as log:
        log.add(run_of(run_id="shared"))
        context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
        writers = [context.Process(target=_write, args=(str(path), f"w{place}", 40)) for place in range(3)]
        for each in writers:
            each.start()
        for each in writers:
            each.join(60)
        assert [each.exitcode for each in writers] == [0, 0, 0]
        assert len(log.window()) == 121
        assert log.get("shared").citation_clicks == 120


KILLED = """
import sys
from stage3_agents_llmops.monitoring import RunLog, RunRecord
with RunLog(sys.argv[1]) as log:
    number = 0
    while True:
        log.add(RunRecord(run_id=f"r{number}", started=float(number)))
        print(number, flush=True)
        number += 1
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_row_that_was_written_survives_a_kill(tmp_path):
    """Catches: rows that wait in memory."""
    path = tmp_path / "runs.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    told = 0
    while told < 50:
        told = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    last = int(rest[-1]) if rest else told
    with RunLog(path) as log:
        assert {f"r{number}" for number in range(last + 1)} <= {each.run_id for each in log.window()}
        log.add(run_of(run_id="after"))


def test_another_file_is_said(tmp_path):
    """Catches: a traceback of sqlite3 for a file that is no table, or another program's."""
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(LabError, match="cannot hold runs"):
        RunLog(tmp_path / "text")
    with pytest.raises(LabError, match="cannot hold runs"):
        RunLog(tmp_path / "text" / "below")
    import sqlite3

    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE runs (run_id TEXT, started REAL)")
    other.close()
    with pytest.raises(LabError, match="cannot hold runs"):
        RunLog(tmp_path / "other.sqlite")


def test_the_table_has_the_records_fields(log):
    """Catches: a field that was added to the record and not to the table."""
    assert tuple(row[1] for row in log.query("PRAGMA table_info(runs)")) == FIELDS


def test_figures_say_how_many_they_rest_on():
    """Catches: a rate over the wrong runs: cancelled ones as good ones, probes' labels over all runs."""
    runs = [run_of(duration_s=0.1 * place) for place in range(1, 21)]
    runs += [run_of(status="failed"), run_of(status="cancelled"), run_of(status="refused", duration_s=None)]
    runs += [run_of(feedback=1), run_of(feedback=-1), run_of(feedback=1), run_of(feedback=0)]
    runs += [run_of(citations=2, citation_clicks=1), run_of(citations=1), run_of(probe=True, retrieval_hit=True)]
    seen = summarise(runs)
    assert (seen.n, seen.errors) == (30, 2)
    assert seen.error_rate == Figure(2 / 29, 29)
    assert seen.satisfaction == Figure(2 / 3, 3)
    assert seen.citation_clicks == Figure(0.5, 2)
    assert seen.retrieval_accuracy == Figure(1.0, 1)
    assert seen.wrong == Figure(None, 0)
    assert str(seen.wrong) == str(seen.p95) == "too few samples"
    assert seen.p50.n == 27 and seen.p50.value == pytest.approx(0.7)
    assert summarise([]).error_rate == Figure(None, 0)


def test_a_minute_is_found_by_an_index(log):
    """Catches: a scan of the whole table for the last minute of it, every five seconds."""
    plan = " ".join(str(row) for row in log.query("EXPLAIN QUERY PLAN SELECT * FROM runs WHERE started >= ?", (NOW,)))
    assert "USING INDEX runs_started" in plan
