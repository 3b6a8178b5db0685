"""Matrix products whose weight was arranged in memory once: oneDNN's form, for inference on a processor.

A weight that lies in memory row by row is rearranged, or read in jumps, at every product. For few rows that is most of
the time: SmolLM2's head (49,152 x 576) by one row takes 11 ms as it lies and 5 arranged, by 16 rows 35 and 12 (float32,
two cores with AVX2). For hundreds of rows there is no difference.

    packed = pack(weight)          # once
    y = product(x, packed)         # x W^T, no gradients
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from labkit.device import cpu_has_avx, cpu_has_bf16

ROWS = 32  # the arrangement is best for about so many rows


def can_pack(weight: Tensor) -> bool:
    """Whether there is such a product for this weight: on an x86 processor, in a dtype that it computes in itself."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return cpu_has_bf16()
    return weight.dtype == torch.float32 and cpu_has_avx()


def pack(weight: Tensor) -> Tensor:
    """A copy of (out, in) in oneDNN's form, which only `product` reads."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS)


def product(x: Tensor, packed: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """(..., in) -> (..., out); then SiLU, if `then` is "swish", while the result is still in the core's own cache."""
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, then, [], "")


def product_with(x: Tensor, other: Tensor, packed: Tensor, bias: Tensor | None, how: str) -> Tensor:
    """The product, then times ("mul") or plus ("add") another tensor of its shape (..., out)."""
    return torch.ops.mkldnn._linear_pointwise.binary(x, other, packed, bias, how)


@contextmanager
def packed_linear_layers(model: nn.Module) -> Iterator[None]:
    """All `nn.Linear` of a model compute with packed copies of their weights inside the block, where that is possible.

    For decoding: few rows, many times. The weights must not change inside, nothing learns, and the copies take as much
    memory as the weights. A block inside another one changes nothing.
    """
    layers: list[Any] = [
        layer for layer in model.modules()
        if type(layer) is nn.Linear and "forward" not in vars(layer) and can_pack(layer.weight)
    ]  # fmt: skip
    try:
        for layer in layers:
            layer.forward = partial(product, packed=pack(layer.weight), bias=layer.bias)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
