"""Texts of every kind for hypothesis, and chunkers that need no download: sizes by rule of thumb, random vectors."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from lab_cli import captured_cli

from stage1_foundations.embeddings.encoders import RandomEncoder
from stage2_rag_finetune_deploy.chunking.dispatch import make_chunker
from stage2_rag_finetune_deploy.chunking.spans import SpanParser

settings.register_profile("chunking", max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("chunking")


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """Where this test's runs go."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def chunker() -> Callable[..., SpanParser]:
    """A chunker by name that needs no model."""

    def make(name: str, cap: int = 40, overlap: int = 0, **options: object) -> SpanParser:
        if name == "parent-child":
            options = {"child_cap": 16, **options}
        if name == "code":
            options = {"language": "rust", **options}
        return make_chunker(name, cap=cap, overlap=overlap, encoder=RandomEncoder(8), **options)

    return make


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """The lab's command line without the second process: (exit code, stdout, stderr)."""
    from labkit.errors import guarded
    from stage2_rag_finetune_deploy.chunking.__main__ import main

    return captured_cli(capsys, guarded(main))
