"""GPTQModel, in the serving environment: https://github.com/ModelCloud/GPTQModel"""

from pathlib import Path

from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.quantization.libraries.child import run_script
from stage2_rag_finetune_deploy.quantization.libraries.interface import Task

METHODS = ("gptq",)
SCRIPT = Path(__file__).with_name("gptqmodel_script.py")


def quantise(task: Task) -> float:
    """See `interface.Quantiser`. On the same ids as the code of this lab."""
    return run_script(SERVE, SCRIPT, task, {}, {"GPTQMODEL_CPU_WORKERS": "2"})  # its pool refuses more than it has
