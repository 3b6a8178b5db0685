"""python -m stage1_foundations.embeddings evaluate | leaderboard"""

import sys

from labkit.cli import Command, lab_main
from stage1_foundations.embeddings import evaluate_command

COMMANDS = [
    Command("evaluate", "models times tasks through mteb, and the leaderboard", evaluate_command.EvaluateConfig,
            evaluate_command.run_evaluate, evaluate_command.PRESETS),
    Command("leaderboard", "the tables of earlier evaluations again: terminal, Markdown, HTML, plot",
            evaluate_command.LeaderboardConfig, evaluate_command.run_leaderboard),
]  # fmt: skip

if __name__ == "__main__":
    TITLE = "Which embedding model, and how do you know?"
    sys.exit(lab_main("python -m stage1_foundations.embeddings", TITLE, COMMANDS))
