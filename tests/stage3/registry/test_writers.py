"""Several processes on one registry. Each test names the bug that it catches."""

import os
import sqlite3
import threading
import time
from contextlib import closing
from functools import partial

import pytest
from filelock import FileLock
from processes import at_once

from stage3_agents_llmops.registry.conformance import Bench
from stage3_agents_llmops.registry.drills import race
from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.interface import AliasChange, Locked
from stage3_agents_llmops.registry.release import Release

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(params=["files", "mlflow"])
def make(request):
    return FileRegistry if request.param == "files" else request.getfixturevalue("mlflow_maker")


def test_of_four_processes_one_moves_the_alias(make, tmp_path):
    """Catches: a condition that only holds inside one process."""
    bench = Bench(make, tmp_path)
    bench.publish(*"abcde")
    current = None
    for _ in range(3):
        wanted = [version for version in range(1, 6) if version != current][:4]
        done = at_once([partial(move, make, bench.place, version, current) for version in wanted])
        won = [result for result in done if isinstance(result, AliasChange)]
        assert len(won) == 1 and sum(str(result).startswith("Conflict: champion") for result in done) == 3, done
        current = won[0].version
        assert bench.client().aliases() == {"champion": current}
    assert len(bench.client().history()) == 3


def move(make, place, version, expected):
    """In a child: a client of its own."""
    return make(place).set_alias("champion", version, expected=expected)


def test_four_processes_publish(make, tmp_path):
    """Catches: two releases with one number; a release that is lost."""
    bench = Bench(make, tmp_path)
    drafts = [bench.draft(label) for label in "abcd"]
    done = at_once([partial(publish, make, bench.place, draft) for draft in drafts])
    assert all(isinstance(result, Release) for result in done), done
    assert sorted(release.version for release in done) == [1, 2, 3, 4]
    assert len(bench.client().versions()) == 4 and bench.client().verify() == []


def publish(make, place, draft):
    """In a child: a client of its own."""
    return make(place).publish(draft)


def test_two_command_lines(bench):
    """Catches: a `promote` that exits with 0 whatever happened."""
    bench.publish("a", "b", "c")
    for number in range(2):
        result = race(bench.place, "champion", (1, 2, 3), f"round {number}")
        assert result.one_won and sorted(result.codes) == [0, 2], result


def test_a_locked_registry_says_so(bench):
    """Catches: a command that waits for ever, or goes ahead without the lock."""
    bench.publish("a")
    quick = FileRegistry(bench.place, patience=0.1)
    with FileLock(bench.place / "lock"):
        (bench.place / "lock.owner").write_text("process 4711 since 10:20:30\n")
        with pytest.raises(Locked, match="locked by process 4711 since 10:20:30"):
            quick.set_alias("champion", 1)
        assert quick.versions()[0].version == 1, "reading needs no lock"
    assert quick.set_alias("champion", 1).version == 1


def test_a_locked_mlflow_says_so(mlflow_maker, tmp_path):
    """Catches: a traceback of the database."""
    from stage3_agents_llmops.registry.mlflow_registry import MlflowRegistry

    bench = Bench(mlflow_maker, tmp_path)
    bench.publish("a")
    registry = MlflowRegistry(bench.registry.url, patience=0.2)
    with closing(sqlite3.connect(bench.place / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Locked, match="locked by another process"):
            registry.set_alias("champion", 1)
        other.execute("ROLLBACK")
    assert registry.set_alias("champion", 1).previous is None


def test_a_rollback_does_not_wait_for_an_upload(bench, monkeypatch):
    """Catches: a lock that is held while large files are copied."""
    bench.publish("a", "b")
    bench.registry.set_alias("champion", 1)
    bench.registry.set_alias("champion", 2)
    slow, begun, go_on = FileRegistry(bench.place), threading.Event(), threading.Event()
    write = slow.store._write

    def slowly(file):
        begun.set()
        go_on.wait(10)
        return write(file)

    monkeypatch.setattr(slow.store, "_write", slowly)
    upload = threading.Thread(target=slow.publish, args=(bench.draft("c"),))
    upload.start()
    assert begun.wait(10)
    started = time.monotonic()
    assert FileRegistry(bench.place, patience=5).rollback("champion").version == 1
    assert time.monotonic() - started < 5
    go_on.set()
    upload.join()
    assert [release.version for release in bench.registry.versions()] == [1, 2, 3]
