"""Stage 2's tests need its environment: without it they are left out, and a line says so."""

from importlib.util import find_spec

import pytest

MISSING = [name for name in ("pymilvus", "fastapi", "rouge") if find_spec(name) is None]
collect_ignore_glob = ["*"] if MISSING else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    if MISSING:
        terminalreporter.write_line(f"left out: tests/stage2, which needs {', '.join(MISSING)}: make setup STAGE=2")
