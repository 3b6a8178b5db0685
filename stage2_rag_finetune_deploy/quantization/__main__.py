"""python -m stage2_rag_finetune_deploy.quantization quantize | layers | compare"""

import sys

from labkit.cli import Command, lab_main
from stage2_rag_finetune_deploy.quantization import compare_command, layers_command, quantize_command

COMMANDS = [
    Command("quantize", "one model, one method, one checkpoint that vLLM loads", quantize_command.QuantizeConfig,
            quantize_command.run_quantize, quantize_command.PRESETS),
    Command("layers", "error of single layers' outputs, and their Hessians", layers_command.LayersConfig,
            layers_command.run_layers, layers_command.PRESETS),
    Command("compare", "the trade-off table, and the three orderings that courses teach",
            compare_command.CompareConfig, compare_command.run_compare, compare_command.PRESETS),
]  # fmt: skip

if __name__ == "__main__":
    sys.exit(lab_main("python -m stage2_rag_finetune_deploy.quantization", "RTN, GPTQ, AWQ, NF4.", COMMANDS))
