"""The model that is fine-tuned: a causal language model and its tokenizer from a folder.

Without a folder it is SmolLM2-135M-Instruct, as `python -m data fetch smollm2-135m-instruct` lays it down. The
name `random-7b` stands for a model of Qwen2.5-7B's shape with random weights: speed and memory on a GPU are real.
"""

from pathlib import Path
from typing import Any

import psutil
import torch

import data
from labkit.device import choose_device, choose_dtype
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.lora import ALL_LINEAR, find_linear

SMOLLM2 = "smollm2-135m-instruct"
RANDOM_7B = "random-7b"
QWEN_7B = {
    "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152_064, "max_position_embeddings": 32_768,
}  # fmt: skip


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
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = data.fetch(SMOLLM2) if folder is None else Path(folder)
    if not (folder / "config.json").is_file():
        raise LabError(f"no model in {folder}: config.json is missing", "a folder that save_pretrained wrote")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise LabError(f"no whole model in {folder}: {str(error).splitlines()[0][:120]}",
                       "a folder that save_pretrained wrote, with its tokenizer") from None  # fmt: skip
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def is_random(folder: str | Path | None) -> bool:
    """Whether random weights are asked for: what such a model answers says nothing."""
    return str(folder) == RANDOM_7B


def load_random(device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """A model of Qwen2.5-7B's shape with random weights, made on the device, and SmolLM2's tokenizer.

    Raises:
        LabError: the device's memory is too small.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    tokenizer = AutoTokenizer.from_pretrained(data.fetch(SMOLLM2))
    shape = Qwen2Config(**QWEN_7B, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    with torch.device("meta"):  # weights without memory: to be counted
        require_memory(parameter_count(AutoModelForCausalLM.from_config(shape))[1] * dtype.itemsize, device)
    torch.manual_seed(0)  # the same weights every time: a run can be gone on with
    with device:
        model = AutoModelForCausalLM.from_config(shape, dtype=dtype)
    return model.eval(), tokenizer


def require_memory(size: int, device: torch.device) -> None:
    """Stop before a machine is brought to its knees.

    Raises:
        LabError: fewer than `size` bytes are free.
    """
    on_card = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_card else psutil.virtual_memory().available
    if size > free:
        raise LabError(f"a model of {size / 1e9:.0f} GB does not fit into the {free / 1e9:.0f} GB that are free",
                       "a larger GPU" if on_card else "a machine with a GPU, or --preset cpu")  # fmt: skip


def load_placed(folder: str | Path | None = None, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """`load_base` on the device and in the dtype that the names choose (labkit/device.py).

    On a processor the fused attention is slow in bfloat16, 508 tokens/s with it and 724 without (NOTES.md): there the
    explicit one is used.
    """
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    model, tokenizer = load_random(place, kind) if is_random(folder) else load_base(folder, kind)
    if place.type == "cpu" and model.dtype == torch.bfloat16:
        model.set_attn_implementation("eager")
    return model.to(place), tokenizer


def quantise_with_bitsandbytes(model: Any, double: bool = True) -> Any:
    """The linear layers as bitsandbytes' Linear4bit (NF4), in place: what from_pretrained does with BitsAndBytesConfig.

    Args:
        double: quantise the absmax values as well.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    for parent, name, child in find_linear(model, ALL_LINEAR):
        weight = child.weight
        layer = Linear4bit(child.in_features, child.out_features, child.bias is not None, weight.dtype, double, "nf4",
                           device="meta")  # fmt: skip
        layer.weight = Params4bit(weight.data, False, compress_statistics=double, quant_type="nf4",
                                  module=layer).to(weight.device)  # fmt: skip
        layer.bias = child.bias
        layer.support_avx512bf16_for_cpu = False  # its faster product has no gradient, and an evaluation turns it on
        setattr(parent, name, layer)
    model.is_loaded_in_4bit = True
    return model


def release(model: Any) -> None:
    """Give a model's memory back, whoever still holds the model; it can no longer be used."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def parameter_count(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters, tied ones once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
