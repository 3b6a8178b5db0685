"""Real weights in this model: SmolLM2 (shape llama) and GPT-2 (shape gpt2).

A Hugging Face folder holds config.json, model.safetensors and tokenizer.json. Loading is a matter of names and of
layout: here q, k, v are one matrix, and so are gate and up; GPT-2's files hold matrices transposed (its `Conv1D`).
Logits equal transformers' within 1e-4 in float32: tests/stage1/gpt/test_pretrained.py.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import data
from labkit.errors import LabError
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.model_config import ModelConfig
from stage1_foundations.gpt.tokenizer import HuggingFaceTokenizer

SMOLLM2 = "smollm2-135m-instruct"


def load_pretrained(
    source: str | Path = SMOLLM2, dtype: torch.dtype = torch.float32, context: int | None = None
) -> tuple[GPT, HuggingFaceTokenizer]:
    """A pretrained model and its tokenizer.

    Args:
        source: a catalog name, or a folder in Hugging Face's layout (llama or gpt2).
        context: fewer positions than the model was trained for, to save memory.

    Raises:
        LabError: files are missing, or the architecture is neither of the two.
    """
    folder = Path(source) if Path(source).is_dir() else data.fetch(str(source))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise LabError(f"{folder} has no {name}", "a folder saved by transformers' save_pretrained")
    try:
        theirs = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (ValueError, SafetensorError) as error:
        raise LabError(f"a file in {folder} is damaged: {error}", "python -m data verify, or a fresh copy") from error
    kind = theirs.get("model_type")
    if kind == "llama":
        config, weights = llama_config(theirs, context), rename_llama(weights, theirs)
    elif kind == "gpt2":
        config, weights = gpt2_config(theirs, context), rename_gpt2(weights, theirs, context)
    else:
        raise LabError(f"{folder} holds a {kind!r} model", "a llama (SmolLM2) or gpt2 model")
    with torch.device("meta"):
        model = GPT(config)
    model = model.to(dtype).to_empty(device="cpu")
    if config.tied:
        model.head.weight = model.token_embedding.weight  # to_empty gave them memory of their own
    model.rebuild_tables()
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in weights.items()})
    return model.eval(), HuggingFaceTokenizer.from_file(folder / "tokenizer.json")


def llama_config(theirs: dict, context: int | None = None) -> ModelConfig:
    """Hugging Face's llama config in this lab's words."""
    rope = theirs.get("rope_parameters") or theirs.get("rope_scaling") or {}
    refuse(theirs, attention_bias=False, mlp_bias=False, hidden_act="silu",
           head_dim=theirs["hidden_size"] // theirs["num_attention_heads"])  # fmt: skip
    refuse(rope, rope_type="default")
    return ModelConfig(
        vocab_size=theirs["vocab_size"], context=context or theirs["max_position_embeddings"],
        layers=theirs["num_hidden_layers"], heads=theirs["num_attention_heads"], width=theirs["hidden_size"],
        kv_heads=theirs["num_key_value_heads"], hidden=theirs["intermediate_size"], position="rope", norm="rmsnorm",
        norm_eps=theirs["rms_norm_eps"], feed_forward="swiglu", bias=False, tied=theirs["tie_word_embeddings"],
        rope_base=rope.get("rope_theta", theirs.get("rope_theta", 10_000.0)),
    )  # fmt: skip


def refuse(theirs: dict, **supported: object) -> None:
    """Raise LabError where a model has a part that this one lacks: its weights would load, and give nonsense."""
    for name, value in supported.items():
        if theirs.get(name) not in (None, value):
            message = f"the model has {name} {theirs[name]!r}, this lab only {value!r}"
            raise LabError(message, f"--pretrained {SMOLLM2}")


def rename_llama(weights: dict[str, Tensor], theirs: dict) -> dict[str, Tensor]:
    """Their names to ours; q, k, v stacked, gate and up stacked."""
    out = {
        "token_embedding.weight": weights["model.embed_tokens.weight"],
        "final_norm.weight": weights["model.norm.weight"],
        "head.weight": weights.get("lm_head.weight", weights["model.embed_tokens.weight"]),
    }
    for layer in range(theirs["num_hidden_layers"]):
        old, new = f"model.layers.{layer}.", f"blocks.{layer}."
        out[new + "attention_norm.weight"] = weights[old + "input_layernorm.weight"]
        out[new + "feed_forward_norm.weight"] = weights[old + "post_attention_layernorm.weight"]
        out[new + "attention.qkv.weight"] = torch.cat([weights[f"{old}self_attn.{n}_proj.weight"] for n in "qkv"])
        out[new + "attention.out.weight"] = weights[old + "self_attn.o_proj.weight"]
        out[new + "feed_forward.up.weight"] = torch.cat([weights[f"{old}mlp.{n}_proj.weight"] for n in ("gate", "up")])
        out[new + "feed_forward.down.weight"] = weights[old + "mlp.down_proj.weight"]
    return out


def gpt2_config(theirs: dict, context: int | None = None) -> ModelConfig:
    """Hugging Face's GPT-2 config in this lab's words."""
    refuse(theirs, activation_function="gelu_new", scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    return ModelConfig(
        vocab_size=theirs["vocab_size"], context=context or theirs["n_positions"], layers=theirs["n_layer"],
        heads=theirs["n_head"], width=theirs["n_embd"], kv_heads=theirs["n_head"],
        hidden=theirs.get("n_inner") or 4 * theirs["n_embd"], norm_eps=theirs["layer_norm_epsilon"],
    )  # fmt: skip


def rename_gpt2(weights: dict[str, Tensor], theirs: dict, context: int | None = None) -> dict[str, Tensor]:
    """Their names to ours; matrices transposed back."""
    weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    out = {
        "token_embedding.weight": weights["wte.weight"],
        "head.weight": weights["wte.weight"],
        "position_embedding.weight": weights["wpe.weight"][: context or theirs["n_positions"]],
        "final_norm.weight": weights["ln_f.weight"],
        "final_norm.bias": weights["ln_f.bias"],
    }
    parts = {
        "attention_norm": "ln_1", "feed_forward_norm": "ln_2", "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj", "feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj",
    }  # fmt: skip
    for layer in range(theirs["n_layer"]):
        for ours, old in parts.items():
            weight = weights[f"h.{layer}.{old}.weight"]
            out[f"blocks.{layer}.{ours}.weight"] = weight.T.contiguous() if weight.ndim == 2 else weight
            out[f"blocks.{layer}.{ours}.bias"] = weights[f"h.{layer}.{old}.bias"]
    return out
