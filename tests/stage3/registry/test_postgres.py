"""MLflow on PostgreSQL, where the machine has one: the checks that depend on the database."""

import pytest
from postgres_server import postgres_server

from labkit.errors import LabError
from stage3_agents_llmops.registry.conformance import Bench, load_checks, run_check
from stage3_agents_llmops.registry.registries import open_registry

CHECKS = {check.name: check for check in load_checks()}
DEPEND = ("the_second_writer_is_told", "of_many_writers_one_wins")


@pytest.fixture(scope="module")
def server():
    """An empty server: postgresql://course@127.0.0.1:PORT."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="module")
def make(server):
    """`make(folder)`: a registered model of its own for each folder, all in one database that was migrated once."""
    from stage3_agents_llmops.registry.mlflow_registry import MlflowRegistry

    return lambda folder: MlflowRegistry(f"{server}/postgres", f"m-{folder.parent.name}", str(folder / "artifacts"))


@pytest.mark.parametrize("name", DEPEND)
def test_conformance(name, make, tmp_path):
    """Catches: SQL that only SQLite understands; an isolation under which two writers win."""
    result = run_check(CHECKS[name], make, tmp_path / name)
    assert result.status == "passed", result.message


def test_where_the_files_go_is_asked_for_once(server, tmp_path):
    """Catches: `--artifacts` that every command wants again, and that may be another one each time."""
    bench = Bench(lambda folder: open_registry(f"{server}/postgres", "m-once", str(folder / "files")), tmp_path)
    bench.publish("a")
    again = open_registry(f"{server}/postgres", "m-once")
    assert again.publish(bench.draft("b")).version == 2 and again.verify() == []
    assert len(list((bench.place / "files").rglob("prompt.txt"))) == 2
    with pytest.raises(LabError, match="where shall the files of 127.0.0.1:[0-9]+/postgres go"):
        open_registry(f"{server}/postgres", "m-new")
