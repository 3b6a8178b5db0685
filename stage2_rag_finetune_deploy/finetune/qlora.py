"""QLoRA by hand: a frozen linear layer in NF4, and LoRA's two thin matrices beside it.

- forward: the weights are unpacked for one product and dropped again
- backward: unpacked a second time for the gradient of the input; the four-bit weights have none
- only A and B have gradients and optimiser states

Equal to bitsandbytes' Linear4bit under PEFT on the same weights: tests/stage2/finetune/test_qlora.py.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", equation 5.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from stage2_rag_finetune_deploy.finetune.lora import ALL_LINEAR, find_linear
from stage2_rag_finetune_deploy.finetune.nf4 import ABSMAX_BLOCK, BLOCK, NF4, dequantise_nf4, quantise_nf4


class NF4Product(torch.autograd.Function):
    """x W^T with W in four bits. PyTorch cannot derive this: the weights are no tensor it knows how to use."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: NF4) -> Tensor:
        """(..., in) times (out, in) -> (..., out), in x's dtype. Keeps the four-bit weights, not the unpacked ones."""
        ctx.stored = stored
        return linear(x, dequantise_nf4(stored, x.dtype))

    @staticmethod
    # exercise: finetune.nf4_gradient
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        """The gradient of x, W^T applied to the gradient of the product; and None for the frozen weights.

        Args:
            gradient: of the product. (..., out).
        """
        if not ctx.needs_input_grad[0]:
            return None, None
        return gradient @ dequantise_nf4(ctx.stored, gradient.dtype), None  # (..., out) (out, in) -> (..., in)

    # end exercise


class NF4Linear(nn.Module):
    """A frozen linear layer whose weights are kept in four bits.

    Args:
        source: the layer to take weights and bias from; it is not changed.
        double: quantise the absmax values as well.
    """

    def __init__(self, source: nn.Linear, double: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = source.in_features, source.out_features
        self.stored = quantise_nf4(source.weight, double)  # no buffer: model.to(bfloat16) must not touch absmax
        self.bias = None if source.bias is None else nn.Parameter(source.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        product = NF4Product.apply(x, self.stored)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> "NF4Linear":
        """Follow `model.to(device)`."""
        super()._apply(fn, recurse)
        self.stored = self.stored.to(fn(torch.empty(0, device=self.stored.packed.device)).device)
        return self


class QLoRALinear(nn.Module):
    """W x + (alpha / rank) B A x, with W frozen in NF4.

    Args:
        base: the frozen layer.
        rank: width of the detour.
        alpha: the detour counts alpha / rank times.
        generator: for A; B starts at zero, so that the layer starts as its base.
    """

    def __init__(self, base: NF4Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        bound = 1 / math.sqrt(base.in_features)  # what PEFT's kaiming_uniform_ with a = sqrt(5) comes to
        start = torch.rand(rank, base.in_features, generator=generator) * 2 * bound - bound
        self.lora_A = nn.Parameter(start.to(base.stored.packed.device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=base.stored.packed.device))

    # exercise: finetune.qlora_forward
    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in x's dtype; the detour is computed in the adapter's."""
        detour = linear(linear(x.to(self.lora_A.dtype), self.lora_A), self.lora_B)
        return self.base(x) + (self.scale * detour).to(x.dtype)

    # end exercise


def make_qlora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16,
    targets: Iterable[str] = ALL_LINEAR,
    double: bool = True,
    seed: int = 0,
) -> list[nn.Parameter]:
    """Turn a model's linear layers with the names `targets` into QLoRA layers, in place; freeze all else.

    Returns:
        The parameters to train: A and B of every layer.

    Raises:
        LabError: no layer has one of the names.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    trained = []
    for parent, name, child in find_linear(model, targets):
        layer = QLoRALinear(NF4Linear(child, double), rank, alpha, generator)
        setattr(parent, name, layer)
        trained += [layer.lora_A, layer.lora_B]
    return trained


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights as they are kept: parameters once each (tied ones are one), NF4, and buffers."""
    kept = {parameter.data_ptr(): parameter.nbytes for parameter in model.parameters()}
    packed = sum(module.stored.nbytes for module in model.modules() if isinstance(module, NF4Linear))
    return sum(kept.values()) + packed + sum(buffer.nbytes for buffer in model.buffers())


def expected_bytes(linear_weights: int, other_weights: int, scheme: str) -> float:
    """Bytes by formula, for `linear_weights` in the scheme and all others in bfloat16 (float32 in `fp32`).

    scheme: `fp32`, `bf16`, `nf4` or `nf4-double`.
    """
    bits = {
        "fp32": 32,
        "bf16": 16,
        "nf4": 4 + 32 / BLOCK,
        "nf4-double": 4 + 8 / BLOCK + 32 / (BLOCK * ABSMAX_BLOCK),
    }[scheme]
    return linear_weights * bits / 8 + other_weights * (4 if scheme == "fp32" else 2)
