"""A tiny model and the lab's command line."""

from collections.abc import Callable

import pytest
from lab_cli import lab_cli
from tiny_model import build, one_thread, runs, tiny_base, tokenizer  # noqa: F401 - fixtures


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """The lab's command line in this process: (exit code, stdout, stderr)."""
    return lab_cli(capsys, "stage2_rag_finetune_deploy.alignment")
