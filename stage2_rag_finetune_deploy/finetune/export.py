"""A merged checkpoint folder, as transformers and vLLM load it: written whole or not at all, and found again."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from data.convert_smollm2 import name_tokenizer_class
from labkit.errors import LabError
from labkit.runs import latest_run
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.full_disk import full_disk_named


def export_merged(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Merge the adapter, if there is one, and write config, safetensors in bfloat16 and tokenizer to `folder`.

    The model is changed: afterwards it is a plain one, in bfloat16, as it was written.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    lora.unload(model)
    model.to(torch.bfloat16)
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with full_disk_named(folder):
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        name_tokenizer_class(temporary / "tokenizer_config.json")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def newest_merged(
    lab: str = "finetune", command: str = "sft", missing: str = "no fine-tuned model yet"
) -> Path:
    """The merged checkpoint of the newest run of a lab's command.

    Raises:
        LabError: there is none; `missing` is the message.
    """
    folder = latest_run("stage2", lab, command)
    if folder is None or not (folder / "merged" / "config.json").is_file():
        raise LabError(missing, f"python -m stage2_rag_finetune_deploy.{lab} {command}")
    return folder / "merged"
