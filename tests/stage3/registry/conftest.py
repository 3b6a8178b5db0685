"""The command line in this process, releases to publish, and a maker of MLflow registries that migrates once."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_cli import lab_cli

from stage3_agents_llmops.registry.conformance import Bench, Make
from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.targets import empty_database, make_mlflow

sys.path.insert(0, str(Path(__file__).parent))  # release_folders, hub_server, processes, broken_registries

from release_folders import write_release  # noqa: E402


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """`python -m stage3_agents_llmops.registry` without the second process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return lab_cli(capsys, "stage3_agents_llmops.registry")


@pytest.fixture
def bench(tmp_path) -> Bench:
    """A registry of files, and drafts for it."""
    return Bench(FileRegistry, tmp_path / "bench")


@pytest.fixture(scope="session")
def mlflow_maker() -> Make:
    """Makes MLflow registries out of one database that was migrated once: here, before any test forks."""
    empty_database()
    return make_mlflow


@pytest.fixture
def release_folder(tmp_path) -> Callable[..., Path]:
    """`release_folder("a")` writes a release as the pipeline does; the label is its prompt."""
    return lambda label, **more: write_release(tmp_path / f"release-{label}", label, **more)
