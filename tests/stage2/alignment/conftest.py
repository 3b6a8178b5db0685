"""A tiny model and the lab's command line."""

from collections.abc import Callable

import pytest
from tiny_model import build, one_thread, runs, tiny_base, tokenizer  # noqa: F401 - fixtures


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """The lab's command line in this process: (exit code, stdout, stderr)."""
    from labkit.cli import lab_main
    from stage2_rag_finetune_deploy.alignment.__main__ import COMMANDS

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = lab_main("python -m stage2_rag_finetune_deploy.alignment", "", COMMANDS, [str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
