"""python -m stage2_rag_finetune_deploy.chunking evaluate | show"""

import sys

from labkit.cli import Command, lab_main
from labkit.errors import guarded
from stage2_rag_finetune_deploy.chunking import evaluate_command, show_command

PROG = "python -m stage2_rag_finetune_deploy.chunking"
COMMANDS = [
    Command("evaluate", "every chunker on three kinds of documents, by what retrieval finds",
            evaluate_command.EvaluateConfig, evaluate_command.run_evaluate, evaluate_command.PRESETS),
    Command("show", "show FILE: how a file is cut", show_command.ShowConfig, show_command.run_show),
]  # fmt: skip


def main(argv: list[str]) -> int:
    """The lab's command line; a file may stand without its option."""
    return lab_main(PROG, "The right knife for each document.", COMMANDS, show_command.with_file(argv))


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
