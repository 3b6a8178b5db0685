"""A quantised checkpoint back in a model: multiplied out (`dense`), or packed with the kernels of packed_linear.py.

`load_dense` is for measuring quality, and for engines that know no quantisation: the values are those of the
checkpoint, whichever kernel will multiply by them. `load_packed` is for memory and speed.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labkit.device import choose_dtype
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.base_model import load_placed
from stage2_rag_finetune_deploy.finetune.nf4 import NF4, EightBit, dequantise_nf4
from stage2_rag_finetune_deploy.quantization.checkpoint import check_whole, nf4_tensors, read_tensors, stored_dtype
from stage2_rag_finetune_deploy.quantization.grid import Quantised
from stage2_rag_finetune_deploy.quantization.packed_linear import PackedLinear
from stage2_rag_finetune_deploy.quantization.packing import TENSORS, from_tensors

STATE = "weight.quant_state.bitsandbytes__nf4"
NF4_KERNEL = "bitsandbytes gemv_4bit"  # on processors with AVX512-BF16 alone
NF4_UNPACK = "bitsandbytes unpack + linear"


def load_dense(folder: str | Path, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """A checkpoint, quantised or not, as a plain model of transformers, and its tokenizer.

    Raises:
        LabError: no whole checkpoint, or one quantised in a way that this lab does not read.
    """
    folder = Path(folder)
    if method_of(folder) is None:
        check_whole(folder)
        model, tokenizer = load_placed(folder, device, dtype)
        return model.requires_grad_(False), tokenizer
    model, tokenizer = skeleton(folder, choose_dtype(dtype, "cpu"))
    layers, plain = take_layers(folder)
    for name, layer in layers.items():
        plain[f"{name}.weight"] = dequantise_nf4(layer) if isinstance(layer, NF4) else layer.weights()
    fill(model, plain, folder)
    return model.to(device if device != "auto" else "cpu"), tokenizer


def load_packed(folder: str | Path, dtype: str = "auto") -> tuple[Any, Any]:
    """A checkpoint with its linear layers kept in few bits, and its tokenizer; a plain one as it is. On the CPU.

    Raises:
        LabError: as `load_dense`.
    """
    folder, kind = Path(folder), choose_dtype(dtype, "cpu")
    if method_of(folder) is None:
        return load_dense(folder, "cpu", dtype)
    model, tokenizer = skeleton(folder, kind)
    layers, plain = take_layers(folder)
    for name, layer in layers.items():
        parent = model.get_submodule(name.rpartition(".")[0])
        bias = plain.pop(f"{name}.bias", None)
        made = bitsandbytes_linear(layer, bias, kind) if isinstance(layer, NF4) else PackedLinear(layer, bias, kind)
        setattr(parent, name.rpartition(".")[2], made)
    fill(model, plain, folder, packed=True)
    return model, tokenizer


def method_of(folder: Path) -> str | None:
    """`gptq` or `bitsandbytes`, None for a checkpoint that is not quantised.

    Raises:
        LabError: no config.json, or another way of quantising.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError:
        raise LabError(f"no model in {folder}: config.json is missing", "a folder that save_pretrained wrote") from None
    except ValueError:
        raise LabError(f"{folder / 'config.json'} is no JSON", "a folder that save_pretrained wrote") from None
    settings = config.get("quantization_config")
    if settings is None:
        return None
    method = settings.get("quant_method")
    supported = method == "gptq" and settings.get("checkpoint_format", "gptq") == "gptq"
    if not supported and not (method == "bitsandbytes" and settings.get("bnb_4bit_quant_type") == "nf4"):
        raise LabError(f"{folder} is quantised as {method}: not read here", "a checkpoint in GPTQ or NF4 format")
    return method


def skeleton(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model of a folder without its weights (memory that nobody touched), and its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.initialization import no_init_weights

    try:
        config = AutoConfig.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:120]
        raise LabError(f"no whole model in {folder}: {reason}", "quantise the model again") from None
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    attention = "eager" if dtype == torch.bfloat16 else "sdpa"  # on a CPU the fused one is slow in bfloat16
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval().requires_grad_(False), tokenizer


def take_layers(folder: Path) -> tuple[dict[str, Quantised | NF4], dict[str, Tensor]]:
    """A checkpoint's tensors: the quantised layers, and the rest.

    Raises:
        LabError: a layer's tensors are not all there.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = read_tensors(folder)
    key = "qweight" if method_of(folder) == "gptq" else STATE
    names = [name.removesuffix(f".{key}") for name in tensors if name.endswith(f".{key}")]
    if not names:
        raise LabError(f"{folder} holds no quantised layer", "quantise the model again")
    layers: dict[str, Quantised | NF4] = {}
    for name in names:
        if key == STATE:
            layers[name] = read_nf4(name, tensors, stored_dtype(config))
        else:
            parts = {part: tensors.pop(f"{name}.{part}") for part in TENSORS if f"{name}.{part}" in tensors}
            layers[name] = from_tensors(parts, config["quantization_config"]["bits"], name)
    return layers, tensors


def read_nf4(name: str, tensors: dict[str, Tensor], dtype: torch.dtype) -> NF4:
    """A layer in bitsandbytes' format; its tensors are taken out of `tensors`."""
    parts = {key: tensors.pop(key) for key in [key for key in tensors if key.startswith(f"{name}.weight")]}
    try:
        facts = json.loads(bytes(parts[f"{name}.{STATE}"].tolist()))
        absmax = parts[f"{name}.weight.absmax"]
        if "nested_offset" in facts:
            absmax = EightBit(absmax, parts[f"{name}.weight.nested_absmax"], torch.tensor(facts["nested_offset"]))
        return NF4(parts[f"{name}.weight"].flatten(), absmax, torch.Size(facts["shape"]), dtype)
    except (KeyError, ValueError) as error:
        raise LabError(f"the tensors of {name} do not belong together ({error})", "quantise the model again") from None


def bitsandbytes_linear(layer: NF4, bias: Tensor | None, dtype: torch.dtype) -> nn.Module:
    """bitsandbytes' layer with these weights: the codes are the same, only the kernel is theirs."""
    import bitsandbytes

    rows, width = layer.shape
    made = bitsandbytes.nn.Linear4bit(width, rows, bias is not None, dtype, quant_type="nf4")
    parts = {name.removeprefix("weight."): value for name, value in nf4_tensors(layer).items()}
    made.weight = bitsandbytes.nn.Params4bit.from_prequantized(parts.pop("weight"), parts, device="cpu")
    made.eval()  # the packed kernel is for inference only
    if bias is not None:
        made.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return made


def fill(model: Any, tensors: dict[str, Tensor], folder: Path, packed: bool = False) -> None:
    """Give a skeleton its weights.

    Raises:
        LabError: some are missing, or there are some that the model does not have.
    """
    # copies: a tensor that lies in the mapped file would keep all of the file in memory
    tensors = {name: value.to(model.dtype, copy=True) for name, value in tensors.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    linear_keys = {
        f"{name}.{key}" for name, module in model.named_modules() if packed and is_packed(module)
        for key in module.state_dict()
    }  # fmt: skip
    missing = [name for name in missing if name not in tied | linear_keys]
    if missing or unexpected:
        what = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is not of this model"
        raise LabError(f"no whole model in {folder}: {what}", "quantise the model again")


def is_packed(module: nn.Module) -> bool:
    """Whether a module is a linear layer in few bits."""
    return isinstance(module, PackedLinear) or type(module).__name__ == "Linear4bit"


def kernel_name(model: Any) -> str:
    """Which kernel multiplies by the model's linear layers."""
    for module in model.model.layers.modules():
        if isinstance(module, PackedLinear):
            return module.kernel
        if type(module).__name__ == "Linear4bit":
            return NF4_KERNEL if module.support_avx512bf16_for_cpu else NF4_UNPACK
    library = "BLAS" if model.dtype == torch.float32 else "oneDNN"
    return f"{library} {str(model.dtype).removeprefix('torch.')} linear"


def resident_bytes(model: Any) -> int:
    """Bytes of all weights as they are kept, tied ones once; scales and zeros of packed layers with them."""
    kept = {tensor.data_ptr(): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)  # bitsandbytes
        for tensor in (state.absmax, state.state2.absmax if state.nested else None) if state is not None else ():
            kept |= {} if tensor is None else {tensor.data_ptr(): tensor.nbytes}
    return sum(kept.values())
