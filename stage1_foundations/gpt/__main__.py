"""python -m stage1_foundations.gpt train | sample | anatomy | ablate | bench"""

import sys

from labkit.cli import Command, lab_main
from stage1_foundations.gpt import ablation, anatomy, bench, sample_command, train_command, train_config

COMMANDS = [
    Command("train", "train a model and write a checkpoint", train_config.TrainConfig, train_command.run_train,
            train_config.PRESETS),
    Command("sample", "stream text from a checkpoint, or from SmolLM2", sample_command.SampleConfig,
            sample_command.run_sample),
    Command("anatomy", "draw what is inside a trained model", anatomy.AnatomyConfig, anatomy.run_anatomy),
    Command("ablate", "exchange one part at a time and compare the loss", ablation.AblateConfig, ablation.run_ablate,
            ablation.PRESETS),
    Command("bench", "time to a loss, decode speed, BPE training, beside their peers", bench.BenchConfig,
            bench.run_bench, bench.PRESETS),
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(lab_main("python -m stage1_foundations.gpt", "A mini-GPT, written by hand.", COMMANDS))
