"""python -m stage2_rag_finetune_deploy.finetune sft | evaluate | experiments | ask | qlora | draw | llamafactory"""

import sys

from labkit.cli import Command, lab_main
from labkit.errors import guarded
from stage2_rag_finetune_deploy.finetune import (
    ask_command,
    evaluate_command,
    experiments_command,
    hand_drawn,
    llamafactory_command,
    qlora_command,
    sft_command,
    sft_config,
)

COMMANDS = [
    Command("sft", "fine-tune, merge, export, measure", sft_config.SftConfig, sft_command.run_sft, sft_config.PRESETS),
    Command("evaluate", "base, base with examples, tuned: intervals and McNemar", evaluate_command.EvaluateConfig,
            evaluate_command.run_evaluate, evaluate_command.PRESETS),
    Command("experiments", "rank, alpha, target modules: memory against quality",
            experiments_command.ExperimentsConfig, experiments_command.run_experiments, experiments_command.PRESETS),
    Command("ask", "what the tuned model makes of a sentence", ask_command.AskConfig, ask_command.run_ask),
    Command("qlora", "four bits: memory, loss, and by hand beside bitsandbytes", qlora_command.QloraConfig,
            qlora_command.run_qlora, qlora_command.PRESETS),
    Command("llamafactory", "the same from YAML files", llamafactory_command.LlamafactoryConfig,
            llamafactory_command.run_llamafactory, llamafactory_command.PRESETS),
    Command("draw", "the figures of LoRA and QLoRA, drawn by hand", hand_drawn.DrawConfig, hand_drawn.run_draw),
]  # fmt: skip


def main(words: list[str]) -> int:
    """The command line; `ask` and `llamafactory` take plain words as well."""
    words = llamafactory_command.with_words(ask_command.with_text(words))
    return lab_main("python -m stage2_rag_finetune_deploy.finetune", "LoRA, QLoRA and SFT.", COMMANDS, words)


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
