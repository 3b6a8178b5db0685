"""python -m stage2_rag_finetune_deploy.rag ingest | ask | serve | compare | evaluate | train-reranker | ..."""

import sys

from labkit.cli import Command, lab_main
from labkit.errors import guarded
from stage2_rag_finetune_deploy.rag import commands, compare_command, evaluate_command, train_reranker_command

PROG = "python -m stage2_rag_finetune_deploy.rag"
COMMANDS = [
    Command("ingest", "documents into an index; later only what changed", commands.IngestConfig, commands.run_ingest,
            commands.INGEST_PRESETS),
    Command("ask", 'ask "a question": the answer and its passages', commands.AskConfig, commands.run_ask),
    Command("serve", "the same over HTTP, with a page", commands.ServeConfig, commands.run_serve),
    Command("compare", "what each part of the search buys, and what it costs", compare_command.CompareConfig,
            compare_command.run_compare, compare_command.PRESETS),
    Command("evaluate", "answers, citations, refusals, judges and injections, against labels",
            evaluate_command.EvaluateConfig, evaluate_command.run_evaluate, evaluate_command.PRESETS),
    Command("train-reranker", "a cross-encoder from questions that a language model wrote",
            train_reranker_command.TrainConfig, train_reranker_command.run_train_reranker,
            train_reranker_command.PRESETS),
    Command("make-questions", "let SmolLM2 write more of these questions", train_reranker_command.QuestionsConfig,
            train_reranker_command.run_questions),
]  # fmt: skip


def main(argv: list[str]) -> int:
    """The lab's command line; a question may stand without its option."""
    if len(argv) > 1 and argv[0] == "ask" and not argv[1].startswith("-"):
        argv = ["ask", "--question", *argv[1:]]
    return lab_main(PROG, "A complete RAG: found, ordered, answered, cited, served.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
