"""python -m stage2_rag_finetune_deploy.alignment warm-up | sft | dpo | grpo | compare | bench | explain"""

import sys

from labkit.cli import Command, lab_main
from stage2_rag_finetune_deploy.alignment import (
    bench_command,
    compare_command,
    loss_figures,
    script_commands,
    train_dpo,
    train_grpo,
    train_sft,
)
from stage2_rag_finetune_deploy.alignment.script import PROG

COMMANDS = [
    Command("warm-up", "SFT of the base on a few questions: the start of the others", train_sft.SftConfig,
            script_commands.run_warm_up, script_commands.WARM_UP_PRESETS),
    Command("sft", "the right answers are shown", train_sft.SftConfig, script_commands.run_sft,
            script_commands.SFT_PRESETS),
    Command("dpo", "of two answers one is preferred", train_dpo.DpoConfig, script_commands.run_dpo,
            script_commands.DPO_PRESETS),
    Command("grpo", "a verifier scores the model's own answers", train_grpo.GrpoConfig, script_commands.run_grpo,
            script_commands.GRPO_PRESETS),
    Command("compare", "all three from one start, several seeds", compare_command.CompareConfig,
            compare_command.run_compare, compare_command.PRESETS),
    Command("bench", "a step of GRPO beside TRL's", bench_command.BenchConfig, bench_command.run_bench,
            bench_command.PRESETS),
    Command("explain", "the losses drawn, the KL estimators measured", loss_figures.ExplainConfig,
            loss_figures.run_explain, loss_figures.PRESETS),
]  # fmt: skip


if __name__ == "__main__":
    sys.exit(lab_main(PROG, "SFT, DPO and GRPO.", COMMANDS))
