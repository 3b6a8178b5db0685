"""A Hugging Face folder of the Llama family, read for the engine: config and weights by their usual names.

SmolLM2, Llama, Mistral, Qwen2 and Qwen2.5 have this shape: RMSNorm, RoPE, grouped heads, SwiGLU; Qwen2's query, key
and value projections have a bias as well. What the engine cannot compute is refused by name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.device import choose_dtype
from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.packing import TENSORS, from_tensors
from stage2_rag_finetune_deploy.serving.checkpoint_folder import (
    check_adapter,
    check_checkpoint,
    read_json,
    weight_files,
)

KNOWN = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
ADVICE = "--engine vllm, or a folder of the Llama family"


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of the model.

    Attributes:
        eos_ids: tokens that end an answer.
        longest: positions the model was trained for.
    """

    vocab_size: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float
    tied: bool
    longest: int
    eos_ids: tuple[int, ...]


def read_config(folder: Path) -> LlamaConfig:
    """The sizes, from config.json and generation_config.json.

    Raises:
        LabError: the folder is not whole, or its model has parts that this engine has not.
    """
    raw = check_checkpoint(folder)
    architecture = (raw.get("architectures") or ["no architecture"])[0]
    if architecture not in KNOWN:
        raise LabError(f"the mini engine knows {', '.join(KNOWN)}, not {architecture}", ADVICE)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    refuse_unknown_parts(raw, rope)
    heads = raw["num_attention_heads"]
    return LlamaConfig(
        raw["vocab_size"], raw["hidden_size"], raw["intermediate_size"], raw["num_hidden_layers"], heads,
        raw.get("num_key_value_heads") or heads, raw.get("head_dim") or raw["hidden_size"] // heads,
        raw["rms_norm_eps"], rope.get("rope_theta") or raw.get("rope_theta") or 10000.0,
        bool(raw.get("tie_word_embeddings", False)), raw["max_position_embeddings"], eos_ids(folder, raw),
    )  # fmt: skip


def refuse_unknown_parts(raw: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    """Raise where a model of a known class is built otherwise than this engine computes."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    method = (raw.get("quantization_config") or {}).get("quant_method")
    unknown = {
        f"RoPE of type {kind}": kind != "default",
        f"activation {raw.get('hidden_act')}": raw.get("hidden_act") != "silu",
        "a bias in its feed-forward": raw.get("mlp_bias"),
        "sliding-window attention": raw.get("sliding_window") and raw.get("use_sliding_window", True),
        f"weights quantised by {method}": method is not None and not is_gptq(raw),
    }
    if found := [name for name, is_there in unknown.items() if is_there]:
        raise LabError(f"the mini engine cannot compute {found[0]}", ADVICE)


def is_gptq(raw: Mapping[str, Any]) -> bool:
    """Whether the weights are in GPTQ's format, version 1."""
    settings = raw.get("quantization_config") or {}
    return settings.get("quant_method") == "gptq" and settings.get("checkpoint_format", "gptq") == "gptq"


def eos_ids(folder: Path, raw: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that end an answer: generation_config.json knows more than config.json where it is there."""
    path = folder / "generation_config.json"
    named = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    value = named.get("eos_token_id", raw.get("eos_token_id"))
    return tuple(value) if isinstance(value, list) else () if value is None else (value,)


def read_weights(folder: Path, adapter: Path | None = None) -> dict[str, Tensor]:
    """All tensors by name, without the prefix `model.`; unpacked, and with a LoRA adapter merged into them."""
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for path in weight_files(folder, "the folder that save_pretrained wrote"):
        weights |= load_file(path)
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    raw = read_json(folder / "config.json", ADVICE)
    if is_gptq(raw):
        dequantise(weights, raw["quantization_config"]["bits"])
    if adapter is not None:
        merge_adapter(weights, adapter)
    return weights


def dequantise(weights: dict[str, Tensor], bits: int) -> None:
    """Packed layers (`qweight` and the others, see quantization/packing.py) become the weights they stand for.

    The engine computes with those: it shows what quantising does to answers, and saves no memory.
    """
    for name in [name.removesuffix(".qweight") for name in weights if name.endswith(".qweight")]:
        packed = {key: weights.pop(f"{name}.{key}") for key in TENSORS if f"{name}.{key}" in weights}
        weights[f"{name}.weight"] = from_tensors(packed, bits, name).weights()


def merge_adapter(weights: dict[str, Tensor], folder: Path) -> None:
    """W + alpha / rank * B A for every adapted matrix (Hu et al. 2021, eq. 3), in PEFT's file format.

    Raises:
        LabError: the adapter is of a kind that is not merged here, or of another model.
    """
    from safetensors.torch import load_file

    config = check_adapter(folder)
    if any(config.get(name) for name in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern")):
        raise LabError(f"the mini engine merges plain LoRA only, and {folder} is not", "--engine vllm")
    factors = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    for name, down in factors.items():
        if ".lora_A." not in name:
            continue
        target = name.removeprefix("base_model.model.").removeprefix("model.").replace(".lora_A", "")
        up = factors[name.replace(".lora_A.", ".lora_B.")]
        if target not in weights or weights[target].shape != (up.shape[0], down.shape[1]):
            raise LabError(f"the adapter {folder} is of another model: {target}", "the base it was trained on")
        weights[target] = (weights[target].float() + scale * (up.float() @ down.float())).to(weights[target].dtype)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of the folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """`auto`, `bfloat16`, `bf16` and so on, as a dtype of torch."""
    short = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(name, name)
    return choose_dtype(short, device)
