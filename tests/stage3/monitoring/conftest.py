"""A table for rows of runs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stage3_agents_llmops.monitoring import RunLog  # noqa: E402


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    """An empty table."""
    with RunLog(tmp_path / "runs.sqlite") as log:
        yield log
