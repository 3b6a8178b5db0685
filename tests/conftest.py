"""What every test may rely on: no test touches the learner's own runs, and no window opens."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs go to a folder of the test session unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_LAB_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("MPLBACKEND", "Agg")
        yield
