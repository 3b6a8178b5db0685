"""A lab's command line in the test's own process; a lab's conftest.py makes its `cli` fixture of it."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from labkit.cli import lab_main

Cli = Callable[..., tuple[int, str, str]]


def lab_cli(capsys: Any, package: str) -> Cli:
    """`python -m <package>` without a second process: words in, (exit code, stdout, stderr) out."""
    commands = import_module(f"{package}.__main__").COMMANDS
    return captured_cli(capsys, lambda words: lab_main(f"python -m {package}", "", commands, words))


def captured_cli(capsys: Any, main: Callable[[list[str]], int]) -> Cli:
    """The same for a lab whose `main` reads its words itself."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
