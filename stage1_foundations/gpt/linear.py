"""The linear layer, and its form for one row.

A product with many rows is bound by arithmetic, and a BLAS does it best. With a single row (decoding at batch 1)
every weight is read once and used once: memory sets the speed, and calls cost as much as products. Written as a
reduction, the compiler puts it into one loop with the norm before it and the activation after it
(compiled_decoder.py; figures in NOTES.md).
"""

import torch
from torch import Tensor, nn


# exercise: gpt.row_product
def row_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for one row, as a sum over products, accumulated in float32.

    Args:
        x: (..., in_features), all leading sizes 1.
        weight: (out_features, in_features).
        bias: (out_features,) or None.

    Returns:
        (..., out_features), the dtype of x.
    """
    y = (weight.float() * x.reshape(-1).float()).sum(dim=-1)
    if bias is not None:
        y = y + bias.float()
    return y.to(x.dtype).view(*x.shape[:-1], -1)
# end exercise


class Linear(nn.Linear):
    """nn.Linear, which becomes `row_product` inside a compiled decoding step on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        one_row = x.numel() == self.in_features and x.device.type == "cpu"
        if one_row and torch.compiler.is_compiling() and not self.training:
            return row_product(x, self.weight, self.bias)
        return super().forward(x)
