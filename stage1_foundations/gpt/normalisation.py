"""Normalisation: keep the residual stream's scale in a range where gradients are useful.

LayerNorm subtracts the mean and divides by the standard deviation (Ba et al. 2016).
RMSNorm only divides by the root mean square (Zhang and Sennrich 2019, eq. 4): one pass less, no worse in practice.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("layernorm", "rmsnorm", "none")


# exercise: gpt.rms_norm
def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps), computed in float32, over the last dimension.

    Args:
        x: (..., C), any floating dtype.
        weight: (C,) gain, or None.

    Returns:
        (..., C), the dtype of x.
    """
    wide = x.float()
    normed = (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype)
    return normed if weight is None else normed * weight
# end exercise


class RMSNorm(nn.Module):
    """`rms_norm` with an optional trained gain (Llama has one, the modern shape has none)."""

    def __init__(self, width: int, gain: bool, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if gain else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Layer normalisation with a gain and an optional bias (GPT-2 has both)."""

    def __init__(self, width: int, bias: bool, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def build_norm(kind: str, width: int, *, gain: bool, bias: bool, eps: float) -> nn.Module:
    """The module for a name of `KINDS`; "none" passes x through, for the ablation that shows why norms exist."""
    if kind == "layernorm":
        return LayerNorm(width, bias, eps)
    return RMSNorm(width, gain, eps) if kind == "rmsnorm" else nn.Identity()
