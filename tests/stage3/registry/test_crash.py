"""Kill -9 at every call that touches the disk or the database; each test names the bug that it catches."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from processes import every_kill, killed_at

from stage3_agents_llmops.registry.conformance import WEIGHTS, Bench
from stage3_agents_llmops.registry.file_registry import FileRegistry

DISK = [(os, name) for name in ("replace", "fsync", "write", "ftruncate", "unlink", "chmod")]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def filled(folder: Path) -> Bench:
    """Versions 1 to 4, with a champion that has moved twice."""
    bench = Bench(FileRegistry, folder)
    for label in "abcd":
        bench.registry.publish(bench.draft(label, weights=WEIGHTS + label.encode()))
    for version in (1, 2, 3):
        bench.registry.set_alias("champion", version)
    return bench


@pytest.fixture
def copies(tmp_path):
    """`copies(case)` is a fresh copy of one filled registry, and `bench` makes drafts."""
    bench = filled(tmp_path / "filled")

    def copy(case: int) -> FileRegistry:
        place = tmp_path / f"case-{case}"
        if not place.exists():
            shutil.copytree(bench.place, place)
        return FileRegistry(place)

    return bench, copy


def test_publishing(copies, tmp_path):
    """Catches: a version whose files are not there; files of nobody that stay; a number that is used twice."""
    bench, copy = copies
    draft = bench.draft("new", weights=WEIGHTS + b"new")
    published, cases = 0, 0
    for case in every_kill(DISK, lambda case: partial(copy(case).publish, draft)):
        registry = copy(case)
        numbers = [release.version for release in registry.versions()]
        assert numbers in ([1, 2, 3, 4], [1, 2, 3, 4, 5]) and registry.verify() == []
        published += numbers[-1] == 5
        assert registry.publish(draft).version == 5 and registry.aliases() == {"champion": 3}
        assert (registry.load(5, tmp_path / f"out-{case}") / "graph/prompt.txt").read_text() == "new"
        registry.collect_garbage(keep=5)
        there = {sha256 for sha256, _ in registry.store.stored()}
        owned = {file.sha256 for release in registry.versions() for file in release.manifest.files}
        assert len(there) == len(owned) + 5 and not list(registry.store.incoming.iterdir())
        cases += 1
    assert cases > 20 and 0 < published < cases


def test_moving_an_alias(copies):
    """Catches: an alias that is neither where it was nor where it was to go; a history that cannot be read."""
    _, copy = copies
    seen = set()
    for case in every_kill(DISK, lambda case: partial(copy(case).set_alias, "champion", 4, expected=3)):
        registry = copy(case)
        now = registry.aliases()["champion"]
        seen.add(now)
        assert [change.version for change in registry.history()] == ([1, 2, 3] if now == 3 else [1, 2, 3, 4])
        assert registry.set_alias("champion", 4, expected=now).previous == now
        assert registry.rollback("champion").version == 3
    assert seen == {3, 4}


def test_collecting_garbage(copies):
    """Catches: files that are gone while their version is still listed."""
    _, copy = copies
    cases = 0
    for case in every_kill(DISK, lambda case: partial(copy(case).collect_garbage, keep=1)):
        registry = copy(case)
        assert registry.verify() == []
        registry.collect_garbage(keep=1)
        assert [release.version for release in registry.versions()] == [2, 3, 4] and registry.verify() == []
        assert registry.rollback("champion").version == 2
        cases += 1
    assert cases > 5


def test_loading(copies, tmp_path):
    """Catches: half a release in the target."""
    _, copy = copies

    def target_of(case: int) -> Path:
        return tmp_path / f"out-{case}" / "release"

    for case in every_kill(DISK, lambda case: partial(copy(case).load, 4, target_of(case))):
        target = target_of(case)
        assert not target.exists() or copy(case).load(4, target) == target
        assert (copy(case).load(4, target) / "graph/prompt.txt").read_text() == "d"


def test_a_half_line_of_the_log_is_no_event(copies):
    """Catches: a torn write that makes the whole history unreadable."""
    _, copy = copies
    registry = copy(0)
    with open(registry.log.path, "ab") as log:
        log.write(b'{"number": 8, "kind": "set", "da')
    assert registry.aliases() == {"champion": 3}
    assert registry.set_alias("champion", 4).number == 8
    assert copy(0).aliases() == {"champion": 4}


def test_mlflow_publishing(tmp_path, mlflow_maker):
    """Catches: a version whose upload had not ended; a run without a version that stays for ever."""
    from mlflow.tracking import MlflowClient

    from stage3_agents_llmops.registry.mlflow_registry import MlflowRegistry

    watched = [(MlflowClient, name) for name in
               ("create_run", "log_metric", "log_artifacts", "create_model_version", "set_terminated")]  # fmt: skip
    bench = Bench(FileRegistry, tmp_path / "drafts")
    draft, published, cases = bench.draft("new", metrics={"exact": 0.5}), 0, 0

    def place(case: int) -> Path:
        folder = tmp_path / f"case-{case}"
        folder.mkdir(exist_ok=True)
        return folder

    for case in every_kill(watched, lambda case: lambda: mlflow_maker(place(case)).publish(draft)):
        registry = MlflowRegistry(f"sqlite:///{place(case)}/mlflow.db", orphan_age=0.0)
        before = registry.versions()
        assert len(before) <= 1 and registry.verify() == []
        published += len(before)
        assert registry.publish(draft).version == 1
        registry.collect_garbage()
        assert len(list((place(case) / "artifacts").rglob("prompt.txt"))) == 1 and registry.verify() == []
        cases += 1
    assert cases == 5 and published == 1  # after create_model_version


def test_mlflow_moving_an_alias(tmp_path, mlflow_maker):
    """Catches: an alias that moved and a history that does not know it."""
    from sqlalchemy import Connection

    from stage3_agents_llmops.registry.alias_table import AliasTable

    bench = Bench(mlflow_maker, tmp_path / "moved")
    bench.publish("a", "b")
    bench.registry.set_alias("champion", 1)
    url, table = bench.registry.url, AliasTable(bench.registry.url, "customer-service")
    for number in (1, 2):
        move = partial(AliasTable(url, "customer-service").move, "champion", 2, 1, "set", "", "")
        assert killed_at(number, [(Connection, "execute")], move)
        assert table.current("champion") == 1 and len(bench.client().history()) == 1
    assert not killed_at(3, [(Connection, "execute")], move), "there are two statements: the move and its line"
    assert [change.version for change in bench.client().history()] == [1, 2] and table.current("champion") == 2
