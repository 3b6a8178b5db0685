"""Matrix products, plain and packed.

oneDNN multiplies blocks of a matrix, and a weight that lies in memory row by row has to be read in jumps, or be
rearranged, at every call. Arranged once, when the model is loaded, it is read straight through: SmolLM2's products for
one token take half the time, for 32 tokens four fifths (NOTES.md). What follows a product (SiLU, a factor, the
residual) is done while its result is still in the core's own cache.
"""

import torch.nn.functional as F
from torch import Tensor

from labkit.packed_product import can_pack, pack, product, product_with


class PlainLinear:
    """x W^T + b on any device and in any dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        """(T, in) -> (T, out)"""
        return F.linear(x, self.weight, self.bias)

    def silu(self, x: Tensor) -> Tensor:
        """silu(x W^T)"""
        return F.silu(self(x))

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """(x W^T) * factor"""
        return self(x) * factor

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """x W^T + residual"""
        return self(x) + residual


class PackedLinear(PlainLinear):
    """The same in oneDNN's own arrangement, on a processor."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(pack(weight), bias)

    def __call__(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)

    def silu(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias, "swish")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return product_with(x, factor, self.weight, self.bias, "mul")

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        return product_with(x, residual, self.weight, self.bias, "add")


def make_linear(weight: Tensor, bias: Tensor | None = None) -> PlainLinear:
    """The faster of the two where it exists."""
    return PackedLinear(weight, bias) if can_pack(weight) else PlainLinear(weight, bias)
