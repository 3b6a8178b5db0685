"""python -m stage1_foundations.embeddings evaluate | train | explain | leaderboard"""

import logging
import sys

from labkit.cli import Command, lab_main
from stage1_foundations.embeddings import evaluate_command, explain_command, train_command

COMMANDS = [
    Command("evaluate", "models times tasks through mteb, and the leaderboard", evaluate_command.EvaluateConfig,
            evaluate_command.run_evaluate, evaluate_command.PRESETS),
    Command("train", "fine-tune an encoder on pairs; before and after on held-out queries, with a paired test",
            train_command.TrainConfig, train_command.run_train, train_command.PRESETS),
    Command("explain", "anisotropy, pooling, prompts, normalisation: figures, and the price of each mistake",
            explain_command.ExplainConfig, explain_command.run_explain, explain_command.PRESETS),
    Command("leaderboard", "the tables of earlier evaluations again: terminal, Markdown, HTML, plot",
            evaluate_command.LeaderboardConfig, evaluate_command.run_leaderboard),
]  # fmt: skip

if __name__ == "__main__":
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # its remark about a kernel that nothing here needs
    TITLE = "Which embedding model, and how do you know?"
    sys.exit(lab_main("python -m stage1_foundations.embeddings", TITLE, COMMANDS))
