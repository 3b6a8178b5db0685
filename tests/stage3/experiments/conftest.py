"""The command line in this process, and configurations as TOML texts."""

from collections.abc import Callable

import pytest
from lab_cli import lab_cli

from stage3_agents_llmops.experiments import Experiments
from stage3_agents_llmops.experiments.configuration import DEFAULT_FILE


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """`python -m stage3_agents_llmops.experiments` without the second process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    return lab_cli(capsys, "stage3_agents_llmops.experiments")


@pytest.fixture(scope="session")
def shop() -> Experiments:
    """The lab's own configuration."""
    return Experiments.load(DEFAULT_FILE)
