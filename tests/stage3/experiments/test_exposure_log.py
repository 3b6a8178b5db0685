"""Each test names the bug that it catches."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labkit.errors import LabError
from stage3_agents_llmops.experiments import Exposure, ExposureLog
from stage3_agents_llmops.experiments.exposure_log import read_exposures
from stage3_agents_llmops.experiments.multiple_exposures import exposed_units

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
from stage3_agents_llmops.experiments import Exposure, ExposureLog
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log = ExposureLog(path)
for number in range(first, last):
    log.add([Exposure("test", f"u-{number}", "control", "user", 1.0)])
    print(number, flush=True)
"""


def writer(path: Path, first: int, last: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first), str(last)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def test_a_unit_is_logged_once_however_often_it_comes(shop, tmp_path):
    """Catches: a row a message, which would make the talkative count more."""
    with ExposureLog(tmp_path / "log.sqlite") as log:
        assignment = shop.assign({"user": "u-1"})
        assert not log.knows(assignment)
        assert log.expose(assignment) == len(assignment.arms)
        assert log.knows(assignment) and not log.knows(assignment, suffix=".2")
        assert log.expose(assignment) == 0
    with ExposureLog(tmp_path / "log.sqlite") as again:  # another process, with an empty memory
        assert again.expose(shop.assign({"user": "u-1"})) == 0
        assert len(again.rows()) == len(assignment.arms)
        assert again.expose(shop.assign({"user": "u-2"}), "release-canary") == 1
        assert [row.unit for row in again.rows("release-canary")] == ["u-1", "u-2"]


def test_testers_and_experiments_that_were_not_met_leave_no_row(shop, tmp_path):
    """Catches: testers in the analysis; a biased event counted as exposed."""
    with ExposureLog(tmp_path / "log.sqlite") as log:
        log.expose(shop.assign({"user": "tester-1"}))
        log.expose(shop.assign({"user": "u-9"}, overrides={"rerank": "treatment"}))
        assert "rerank" not in {row.experiment for row in log.rows()}


def test_a_second_arm_leaves_a_trace(tmp_path):
    """Catches: a key without the arm, under which a broken assignment looks perfect."""
    with ExposureLog(tmp_path / "log.sqlite") as log:
        for arm in ("control", "treatment"):
            log.add([Exposure("test", "u-1", arm, "user", 1.0)])
        log.add([Exposure("test", "u-2", "control", "user", 1.0)])
        exposed = exposed_units(log.rows("test"))
    assert exposed.multiple == {"u-1"} and exposed.arms == {"u-2": "control"}


def test_a_step_of_a_rollout_has_a_name_of_its_own(shop, tmp_path):
    """Catches: a unit that moves into the growing canary taken for a broken assignment."""
    with ExposureLog(tmp_path / "log.sqlite") as log:
        log.expose(shop.assign({"user": "u-1"}), "release-canary", suffix=".step-2")
        assert [row.experiment for row in log.rows()] == ["release-canary.step-2"]


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Catches: rows kept in a buffer, and a file that cannot be opened after a crash."""
    path = tmp_path / "log.sqlite"
    process = writer(path, 0, 1_000_000)
    said = [int(process.stdout.readline()) for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    rest = [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
    process.wait()
    with ExposureLog(path) as log:
        units = {row.unit for row in log.rows()}
        assert {f"u-{number}" for number in said + rest} <= units
        assert len(units) <= len(said + rest) + 1  # one may be written and not said
        assert log.add([Exposure("test", "new", "control", "user", 1.0)]) == 1


def test_processes_and_threads_write_at_once(tmp_path):
    """Catches: `database is locked`, and units that are counted twice."""
    path = tmp_path / "log.sqlite"
    processes = [writer(path, 0, 150), writer(path, 50, 200)]
    with ExposureLog(path) as log, ThreadPoolExecutor(4) as pool:
        rows = [Exposure("test", f"u-{number % 250}", "control", "user", 1.0) for number in range(500)]
        list(pool.map(lambda row: log.add([row]), rows))
        for process in processes:
            process.communicate()
            assert process.returncode == 0
        assert sorted(row.unit for row in log.rows()) == sorted(f"u-{number}" for number in range(250))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_exposures_from_other_files(tmp_path, kind):
    """Catches: a byte order mark in the first column's name, numbers as units."""
    rows = [{"experiment": "a", "unit": 1, "arm": "x"}, {"experiment": "b", "unit": 2, "arm": "y"}]
    lines = ["experiment,unit,arm", "a,1,x", "b,2,y"] if kind == "csv" else [json.dumps(row) for row in rows]
    path = tmp_path / f"exposures.{kind}"
    path.write_text("\ufeff" * (kind == "csv") + "\n".join(lines) + "\n", encoding="utf-8")
    assert [row[:3] for row in read_exposures(path, "a")] == [("a", "1", "x")]
    assert len(read_exposures(path)) == 2


def test_files_that_hold_no_exposures(tmp_path):
    """Catches: a traceback for a wrong path, a text file, a missing column."""
    text = tmp_path / "log.sqlite"
    text.write_text("this is not a database, but long enough to be read as one " * 20)
    broken = tmp_path / "broken.csv"
    broken.write_text("experiment,unit\na,1\n")
    with pytest.raises(LabError, match="there are no exposures at"):
        read_exposures(tmp_path / "none.csv")
    with pytest.raises(LabError, match="cannot hold exposures"):
        read_exposures(text)
    with pytest.raises(LabError, match="no column 'arm'"):
        read_exposures(broken)


def test_a_failed_write_leaves_nothing_and_can_be_repeated(tmp_path):
    """Catches: exposures remembered as written although the disk refused them."""
    with ExposureLog(tmp_path / "log.sqlite") as log:
        log._db.execute("CREATE TRIGGER refuse BEFORE INSERT ON exposures BEGIN SELECT RAISE(ABORT, 'full'); END")
        row = Exposure("test", "u-1", "control", "user", 1.0)
        with pytest.raises(LabError, match="cannot be written: full"):
            log.add([row])
        log._db.execute("DROP TRIGGER refuse")
        assert log.add([row]) == 1
    with sqlite3.connect(tmp_path / "log.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
