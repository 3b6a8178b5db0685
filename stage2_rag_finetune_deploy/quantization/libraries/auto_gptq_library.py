"""AutoGPTQ 0.7.1, where GPTQ checkpoints come from. Archived: it needs transformers 4, and quantises only with CUDA.

    python -m venv .venv-autogptq
    .venv-autogptq/bin/pip install torch==2.13.0 "transformers<5" auto-gptq==0.7.1
"""

from pathlib import Path

import torch

from labkit.errors import LabError
from labkit.side_environment import SideEnvironment
from stage2_rag_finetune_deploy.quantization.libraries.child import run_script
from stage2_rag_finetune_deploy.quantization.libraries.interface import Task

METHODS = ("gptq",)
SCRIPT = Path(__file__).with_name("auto_gptq_script.py")
AUTO_GPTQ = SideEnvironment(
    "AutoGPTQ", ".venv-autogptq", "COURSE_LAB_AUTOGPTQ", "python",
    "the two lines at the top of stage2_rag_finetune_deploy/quantization/libraries/auto_gptq_library.py",
)  # fmt: skip


def quantise(task: Task) -> float:
    """See `interface.Quantiser`.

    Raises:
        LabError: no CUDA, an order it does not have, or no environment.
    """
    if not torch.cuda.is_available():
        raise LabError("AutoGPTQ refuses to quantise without CUDA, and there is none here", "--library gptqmodel")
    if task.settings.order == "group":
        raise LabError("AutoGPTQ has no order by groups", "--order none or act")
    return run_script(AUTO_GPTQ, SCRIPT, task, {}, {})
