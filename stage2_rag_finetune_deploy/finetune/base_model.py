"""The model that is fine-tuned: a causal language model and its tokenizer from a folder.

Without a folder it is SmolLM2-135M-Instruct, as `python -m data fetch smollm2-135m-instruct` lays it down.
"""

from pathlib import Path
from typing import Any

import torch

import data
from labkit.device import choose_device, choose_dtype
from labkit.errors import LabError

SMOLLM2 = "smollm2-135m-instruct"


def load_base(folder: str | Path | None = None, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A causal language model of transformers and its tokenizer.

    Args:
        folder: a Hugging Face folder (config.json, safetensors, tokenizer); None is the packaged SmolLM2.
        dtype: of the weights.

    Returns:
        model in eval mode, tokenizer with a pad token.

    Raises:
        LabError: the folder is not there or holds no whole model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = data.fetch(SMOLLM2) if folder is None else Path(folder)
    if not (folder / "config.json").is_file():
        raise LabError(f"no model in {folder}: config.json is missing", "a folder that save_pretrained wrote")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise LabError(f"no whole model in {folder}: {str(error).splitlines()[0][:120]}",
                       "a folder that save_pretrained wrote, with its tokenizer") from None  # fmt: skip
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_placed(folder: str | Path | None = None, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """`load_base` on the device and in the dtype that the names choose (labkit/device.py).

    On a processor the fused attention is slow in bfloat16, 508 tokens/s with it and 724 without (NOTES.md): there the
    explicit one is used.
    """
    place = choose_device(device)
    model, tokenizer = load_base(folder, choose_dtype(dtype, place))
    if place.type == "cpu" and model.dtype == torch.bfloat16:
        model.set_attn_implementation("eager")
    return model.to(place), tokenizer


def parameter_count(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters, tied ones once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
