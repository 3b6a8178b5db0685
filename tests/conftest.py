"""What every test may rely on: no test touches the learner's own runs, and no window opens."""

import os
from collections.abc import Iterator

import pytest

# Before anything imports torch or numpy. `pytest -n 2` keeps the cores busy with processes: two threads each would wait
# for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# rich keeps the width it finds here when its console is made, whatever a test sets later.
os.environ.pop("COLUMNS", None)


# What takes longest: every exercise's body removed once, runs killed and resumed, whole platforms graded.
SLOW_NAMES = {"test_removing_any_marked_body_fails_its_test", "test_a_disk_that_is_really_full",
              "test_killed_and_resumed_is_the_same_run", "test_ablation_exchanges_every_part"}  # fmt: skip
SLOW_FILES = {"test_distributed.py", "test_postgres.py", "test_mlflow_server.py", "test_month5.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests above as slow."""
    for item in items:
        if getattr(item, "originalname", "") in SLOW_NAMES or item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def own_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs go to a folder of the test session unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_LAB_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("MPLBACKEND", "Agg")
        yield
