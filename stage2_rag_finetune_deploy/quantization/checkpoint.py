"""A quantised checkpoint: a Hugging Face folder that vLLM and transformers load, and that runtime.py loads.

- RTN, GPTQ, AWQ: the format of AutoGPTQ and GPTQModel ("quant_method": "gptq"), tensors as in packing.py
- NF4: the format of bitsandbytes, bit for bit
- what is not quantised (embedding, norms, biases) stays in the dtype of the model it came from
- config, generation config and tokenizer are copied; the folder appears whole or not at all
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.errors import LabError
from labkit.files import write_json
from stage2_rag_finetune_deploy.finetune.nf4 import ABSMAX_BLOCK, BLOCK, NF4, EightBit, eight_bit_levels, nf4_levels
from stage2_rag_finetune_deploy.quantization.grid import Quantised
from stage2_rag_finetune_deploy.quantization.methods import Layers, Settings
from stage2_rag_finetune_deploy.quantization.packing import to_tensors

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.gguf", "*.pt")


def write_checkpoint(
    folder: Path, source: Path, model: Any, layers: Layers, method: str, settings: Settings
) -> Path:
    """Write the quantised layers and the rest of the model.

    Args:
        folder: to make; an older checkpoint in its place is replaced.
        source: the model's folder, for config and tokenizer.
        model: what `quantise_model` changed: AWQ's norms are not those of the source.
        layers: what it returned.

    Raises:
        LabError: `folder` exists and is no checkpoint.
    """
    from huggingface_hub import save_torch_state_dict

    if folder.exists() and not (folder / "config.json").is_file():
        raise LabError(f"{folder} exists and is no checkpoint", "another --out")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(*WEIGHTS, "asset.json", ".*"))
        tensors = plain_tensors(model, layers, stored_dtype(config)) | packed_tensors(layers)
        save_torch_state_dict(tensors, temporary, max_shard_size="5GB")
        write_json(temporary / "config.json", config | {"quantization_config": quantization_config(method, settings)})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def stored_dtype(config: dict[str, Any]) -> torch.dtype:
    """The dtype a model's folder names, bfloat16 where it names none."""
    return getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"))


def plain_tensors(model: Any, layers: Layers, dtype: torch.dtype) -> dict[str, Tensor]:
    """What is not quantised. A head that is the embedding is left out."""
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    left_out = tied | {f"{name}.weight" for name in layers}
    return {
        name: value.detach().to("cpu", dtype).contiguous()
        for name, value in model.state_dict().items()
        if name not in left_out
    }


def packed_tensors(layers: Layers) -> dict[str, Tensor]:
    """All quantised layers' tensors by their full names."""
    return {
        f"{name}.{key}": value.cpu()
        for name, layer in layers.items()
        for key, value in (to_tensors(layer) if isinstance(layer, Quantised) else nf4_tensors(layer)).items()
    }


def nf4_tensors(layer: NF4) -> dict[str, Tensor]:
    """A layer as bitsandbytes' Linear4bit keeps it in a checkpoint."""
    facts = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": str(layer.dtype).removeprefix("torch."),
             "shape": list(layer.shape)}  # fmt: skip
    tensors = {"weight": layer.packed[:, None], "weight.quant_map": nf4_levels().clone()}
    if isinstance(layer.absmax, EightBit):
        tensors |= {
            "weight.absmax": layer.absmax.codes,
            "weight.nested_absmax": layer.absmax.absmax,
            "weight.nested_quant_map": eight_bit_levels().clone(),
        }
        facts |= {"nested_blocksize": ABSMAX_BLOCK, "nested_dtype": "float32",
                  "nested_offset": float(layer.absmax.offset)}  # fmt: skip
    else:
        tensors["weight.absmax"] = layer.absmax
    words = json.dumps(facts).encode()
    return tensors | {"weight.quant_state.bitsandbytes__nf4": torch.tensor(list(words), dtype=torch.uint8)}


def quantization_config(method: str, settings: Settings) -> dict[str, Any]:
    """The entry of config.json that tells a loader what it finds."""
    if method == "nf4":
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
        }
    scheme = settings.scheme
    return {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": scheme.bits,
        "group_size": scheme.group,
        "sym": scheme.symmetric,
        "desc_act": method == "gptq" and settings.order == "act",
        "lm_head": False,
        "meta": {"quantizer": ["llm-course-lab"], "method": method},
    }


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        LabError: there is none, or one that the index names is missing.
    """
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    missing = sorted(named - {file.name for file in files}) or ([] if files else ["model.safetensors"])
    if missing:
        raise LabError(f"no whole model in {folder}: {missing[0]} is missing", "a folder that save_pretrained wrote")
    return files


def check_whole(folder: Path) -> None:
    """Look at the files of a checkpoint without reading their tensors.

    Raises:
        LabError: one is missing or cut off.
    """
    from safetensors import SafetensorError, safe_open

    for file in weight_files(folder):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise LabError(f"{file} is cut off or no safetensors file ({error})", "that model's folder again") from None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint.

    Raises:
        LabError: no checkpoint, or a file of it was cut off or is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise LabError(f"{file} is cut off or no safetensors file ({error})", "quantise the model again") from None
    return tensors


def bytes_on_disk(folder: Path) -> int:
    """Bytes of a checkpoint's weights."""
    return sum(file.stat().st_size for file in weight_files(folder))
