"""python -m stage3_agents_llmops.agent chat | ask | serve | evaluate | ...: without a word it lists its commands."""

import importlib
import sys

from labkit.cli import lab_main
from labkit.errors import guarded

PROG = "python -m stage3_agents_llmops.agent"
MODULES = ("chat_command", "serve_command", "reset_command", "graph_command", "retention_command", "evaluate_command",
           "guardrails_command", "knowledge_command", "bench_command")  # fmt: skip


def commands() -> list:
    """The lab's commands; each module lists its own in COMMANDS."""
    package = "stage3_agents_llmops.agent"
    return [command for module in MODULES for command in importlib.import_module(f"{package}.{module}").COMMANDS]


def main(argv: list[str]) -> int:
    """The lab's command line; a message may stand without its option."""
    if len(argv) > 1 and argv[0] == "ask" and not argv[1].startswith("-"):
        argv = ["ask", "--message", *argv[1:]]
    return lab_main(PROG, "A multi-agent customer service: ask, confirm, act, remember.", commands(), argv)


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
