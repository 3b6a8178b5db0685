"""python -m stage1_foundations.first_rag build | ask | trace | modes | evaluate"""

import sys

from labkit.cli import Command, lab_main
from labkit.errors import guarded
from stage1_foundations.first_rag import commands, evaluate_command

PROG = "python -m stage1_foundations.first_rag"
COMMANDS = [
    Command("build", "read documents, split, embed, and keep an index", commands.BuildConfig, commands.run_build,
            commands.BUILD_PRESETS),
    Command("ask", 'ask "a question": the answer and where it stands', commands.AskConfig, commands.run_ask),
    Command("trace", "the same, with every step that LlamaIndex takes", commands.TraceConfig, commands.run_trace),
    Command("modes", "the same question through four response synthesizers", commands.QuestionConfig,
            commands.run_modes),
    Command("evaluate", "retrieval, citations and refusals on questions with known passages",
            evaluate_command.EvaluateConfig, evaluate_command.run_evaluate, evaluate_command.PRESETS),
]  # fmt: skip


def main(argv: list[str]) -> int:
    """The lab's command line; a question may stand without its option."""
    return lab_main(PROG, "A first RAG on LlamaIndex, laid open.", COMMANDS, commands.with_question(argv))


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
