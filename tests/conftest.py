"""What every test may rely on: no test touches the learner's own runs, and no window opens."""

import os
from collections.abc import Iterator

import pytest

# Before anything imports torch or numpy. `pytest -n 2` keeps the cores busy with processes: two threads each would wait
# for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs go to a folder of the test session unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_LAB_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("MPLBACKEND", "Agg")
        yield
