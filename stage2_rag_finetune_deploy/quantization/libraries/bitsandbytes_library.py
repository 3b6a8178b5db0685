"""bitsandbytes' NF4, through transformers."""

import os
import shutil

import torch

from labkit.timing import Timer
from stage2_rag_finetune_deploy.quantization.checkpoint import check_whole
from stage2_rag_finetune_deploy.quantization.libraries.child import free
from stage2_rag_finetune_deploy.quantization.libraries.interface import Task

METHODS = ("nf4",)


def quantise(task: Task) -> float:
    """See `interface.Quantiser`. The weights are quantised as they are loaded, so loading is in the seconds."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    check_whole(task.source)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    with Timer() as timer:
        model = AutoModelForCausalLM.from_pretrained(task.source, quantization_config=config, dtype=torch.bfloat16)
    temporary = task.out.with_name(f".tmp-{task.out.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(task.source).save_pretrained(temporary)
        os.replace(temporary, free(task.out))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return timer.seconds
