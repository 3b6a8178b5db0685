"""LoRA by hand: beside each frozen weight W a detour through few dimensions, B A, that alone is trained.

    y = W x + (alpha / rank) B A x        W: (out, in) frozen    A: (rank, in) random    B: (out, rank) zero

- inject: replace linear layers by ones with a detour; at first nothing changes, because B is zero
- merge: add (alpha / rank) B A to W, and inference costs nothing extra; unmerge restores W bit for bit
- disabled: the base without its adapter, for as long as a block lasts; DPO and GRPO call that the reference model
- save_adapter, load_adapter: PEFT's two files, so that PEFT, TRL and vLLM read what is written here

Equal to PEFT on the same weights: tests/stage2/finetune/test_lora.py.
Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from labkit.errors import LabError
from labkit.files import atomic_path, write_json
from stage2_rag_finetune_deploy.finetune.full_disk import full_disk_named

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."  # PEFT wraps a model twice, and its names say so


class LoRALinear(nn.Module):
    """A linear layer, frozen, with a detour of low rank.

    Args:
        base: the layer; shared, not copied.
        rank: width of the detour.
        alpha: the detour counts alpha / rank times.
        dropout: of the detour's input while training.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base, self.rank, self.alpha = base, rank, alpha
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as PEFT does
        self.dropout = nn.Dropout(dropout)
        self.enabled = True
        self.kept: Tensor | None = None  # W while the layer is merged

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    # exercise: finetune.lora_forward
    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in x's dtype: the base, and the scaled detour unless it is merged or disabled."""
        y = self.base(x)
        if self.kept is not None or not self.enabled:
            return y
        thin = linear(self.dropout(x), self.lora_A.to(x.dtype)) * self.scale  # (..., rank): scaling is cheapest here
        return y + linear(thin, self.lora_B.to(x.dtype))

    # end exercise

    # exercise: finetune.lora_delta
    def delta(self) -> Tensor:
        """What merging adds to W: (out, in), float32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())

    # end exercise

    @torch.no_grad()
    def merge(self) -> None:
        """Add the detour to W. The old W is kept: in floating point (W + D) - D is not W.

        Raises:
            LabError: W is packed in four bits.
        """
        weight = self.base.weight
        if not weight.is_floating_point():
            raise LabError("an adapter cannot be merged into four-bit weights", "merge into the model in 16 bits")
        if self.kept is None:
            self.kept = weight.detach().clone()
            weight.copy_(weight.float() + self.delta())

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the old W back."""
        if self.kept is not None:
            self.base.weight.copy_(self.kept)
            self.kept = None


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Name -> layer."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def find_linear(model: nn.Module, names: Iterable[str]) -> list[tuple[nn.Module, str, nn.Linear]]:
    """(parent, own name, layer) of every `nn.Linear` with one of the names: what is needed to replace it.

    Raises:
        LabError: no layer has one of the names.
    """
    names = tuple(names)
    found = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent.named_children()
        if name in names and isinstance(child, nn.Linear)
    ]
    if not found:
        raise LabError(f"no linear layer is called {' or '.join(names)}", "the names that print(model) shows")
    return found


# exercise: finetune.inject
def inject(
    model: nn.Module, rank: int = 8, alpha: float = 16, targets: Iterable[str] = ALL_LINEAR, dropout: float = 0.0
) -> nn.Module:
    """Replace every `nn.Linear` whose own name is in `targets` by a `LoRALinear`, in place; freeze all else.

    Returns:
        The same model.

    Raises:
        LabError: the model has an adapter already, or no layer has one of the names, or the rank is not positive.
    """
    if rank < 1:
        raise LabError(f"a rank of {rank} is not possible", "--rank 8")
    if lora_layers(model):
        raise LabError("the model has an adapter already", "merge it first, or load the base again")
    found = find_linear(model, targets)
    model.requires_grad_(False)
    for parent, name, child in found:
        setattr(parent, name, LoRALinear(child, rank, alpha, dropout))
    return model
# end exercise


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """All that is trained: A and B of every layer."""
    return [matrix for layer in lora_layers(model).values() for matrix in (layer.lora_A, layer.lora_B)]


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base without its adapter inside the block."""
    before = {layer: layer.enabled for layer in lora_layers(model).values()}
    try:
        for layer in before:
            layer.enabled = False
        yield model
    finally:
        for layer, enabled in before.items():
            layer.enabled = enabled


def merge(model: nn.Module) -> nn.Module:
    """Add every detour to its weight, in place."""
    for layer in lora_layers(model).values():
        layer.merge()
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Restore every weight, bit for bit."""
    for layer in lora_layers(model).values():
        layer.unmerge()
    return model


def unload(model: nn.Module) -> nn.Module:
    """Merge and take the detours out: a plain model again, in place."""
    return strip(merge(model))


def strip(model: nn.Module) -> nn.Module:
    """Take the detours out, in place: the weights stay what they are, merged or not."""
    for name, layer in lora_layers(model).items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.base)
    return model


def fingerprint(model: nn.Module) -> str:
    """A hash of the first row of every linear weight without its adapter, in bfloat16: equal for fp32 and bf16.

    Empty for a model in four bits, whose rows are gone.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        layer = module.base if isinstance(module, LoRALinear) else module
        if name.rpartition(".")[2] not in ALL_LINEAR or not hasattr(layer, "weight"):
            continue
        weight = module.kept if isinstance(module, LoRALinear) and module.kept is not None else layer.weight
        if not weight.is_floating_point():
            return ""
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach()[0].to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A and B under PEFT's names, on the CPU."""
    return {
        f"{PREFIX}{name}.{part}.weight": getattr(layer, part).detach().cpu().contiguous()
        for name, layer in lora_layers(model).items()
        for part in ("lora_A", "lora_B")
    }


@torch.no_grad()
def fill(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Copy A and B from a state with PEFT's names; False, and nothing is copied, where it has other layers or sizes."""
    wanted = {name: tensor.shape for name, tensor in adapter_state(model).items()}
    if wanted != {name: tensor.shape for name, tensor in state.items()}:
        return False
    for name, layer in lora_layers(model).items():
        layer.unmerge()
        layer.lora_A.copy_(state[f"{PREFIX}{name}.lora_A.weight"])
        layer.lora_B.copy_(state[f"{PREFIX}{name}.lora_B.weight"])
    return True


def save_adapter(model: nn.Module, folder: str | Path) -> Path:
    """Write adapter_model.safetensors and adapter_config.json, each whole or not at all.

    Raises:
        LabError: the model has no adapter.
    """
    from safetensors.torch import save_file

    layers = lora_layers(model)
    if not layers:
        raise LabError("the model has no adapter to save", "inject(model) first")
    first, folder = next(iter(layers.values())), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as temporary, full_disk_named(temporary):
        save_file(adapter_state(model), temporary, {"format": "pt", "base": fingerprint(model)})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": first.rank,
        "lora_alpha": first.alpha, "lora_dropout": first.dropout.p, "bias": "none", "fan_in_fan_out": False,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "base_model_name_or_path": getattr(model.config, "_name_or_path", ""), "use_rslora": False, "use_dora": False,
        "modules_to_save": None,
    }  # fmt: skip
    write_json(folder / CONFIG, config)
    return folder


def adapter_size(folder: Path) -> tuple[int, int]:
    """(numbers, bytes) of an adapter's file."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, "pt") as file:
        count = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    return count, (folder / WEIGHTS).stat().st_size


def load_adapter(model: nn.Module, folder: str | Path) -> nn.Module:
    """Inject what the folder's config says (or fill the adapter that is there) and read A and B, in place.

    Raises:
        LabError: no adapter in the folder, or one that was made for another base.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    advice = "the base that it was trained on, or an adapter of this base"
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, "pt") as file:
            made_for = (file.metadata() or {}).get("base")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise LabError(f"no adapter in {folder}: {str(error)[:120]}", "a folder that save_adapter wrote") from None
    if made_for and made_for != (fingerprint(model) or made_for):
        raise LabError(f"the adapter in {folder} was trained on another base", advice)
    if not lora_layers(model):
        inject(model, config["r"], config["lora_alpha"], config["target_modules"], config.get("lora_dropout", 0.0))
    if not fill(model, state):
        raise LabError(f"the adapter in {folder} does not fit this model: other layers or sizes", advice)
    return model
