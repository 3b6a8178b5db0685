"""The grid: which values the weights of a group may take, and the number of the nearest one.

A group is a run of inputs of one output (64 weights, say). It has 2^bits levels at equal distances:

    weight = scale * (code - zero)          code = 0 ... 2^bits - 1

- symmetric: zero is the middle code; one number (scale) is kept for a group. What fast kernels read.
- asymmetric: the levels run from the group's smallest to its largest weight; scale and zero are kept.

Scales are rounded to float16, as a checkpoint keeps them, before any code is chosen: what is simulated here is what is
packed later, to the last bit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

from labkit.errors import LabError

SMALLEST = 2.0**-24  # the smallest float16 above zero: the scale of a group of zeros
BITS = (2, 3, 4, 8)
USUAL_GROUPS = (128, 64, 32, 16)
SPANS = tuple(1 - step / 40 for step in range(9))  # of a group's span, from all of it down to four fifths


@dataclass(frozen=True)
class Scheme:
    """How the weights of a linear layer are kept.

    Attributes:
        bits: 2, 3, 4 or 8.
        group: inputs that share a scale; -1 is the whole row.
        symmetric: zero is the middle code.
    """

    bits: int = 4
    group: int = 64
    symmetric: bool = True

    @property
    def levels(self) -> int:
        """How many values a weight may take."""
        return 2**self.bits

    def columns(self, width: int) -> int:
        """The group size for a layer with `width` inputs.

        Raises:
            LabError: the groups do not divide them.
        """
        check_groups(self, [width])
        return width if self.group == -1 else self.group

    def bits_a_weight(self, width: int) -> float:
        """With the float16 scale and the zero of each group."""
        return self.bits + (16 + self.bits) / self.columns(width)


def check_groups(scheme: Scheme, widths: Iterable[int]) -> None:
    """Refuse a number of bits that does not pack, or a group size that does not divide the inputs of every layer.

    Raises:
        LabError: with a size that does, where there is one.
    """
    if scheme.bits not in BITS:
        raise LabError(f"{scheme.bits} bits do not pack", "--bits " + ", ".join(map(str, BITS)))
    widths = sorted(set(widths))
    bad = [width for width in widths if scheme.group != -1 and (scheme.group < 1 or width % scheme.group)]
    if bad:
        fits = next((size for size in USUAL_GROUPS if gcd(*widths) % size == 0), -1)
        raise LabError(f"group size {scheme.group} does not divide {bad[0]}, the inputs of a layer", f"--group {fits}")


# exercise: quantization.fit_grid
def fit_grid(weights: Tensor, scheme: Scheme, shrink: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Scale and zero of each group, from the largest weights in it.

    Symmetric: the levels span [-m, m] with m the largest absolute value; zero is 2^bits / 2. Asymmetric: they span
    [min(w, 0), max(w, 0)], so that 0 is a level.

    Args:
        weights: the last dimension is a group. (..., G).
        shrink: the span is multiplied by it; what lies outside is clipped to the nearest end. A number or (..., 1).

    Returns:
        scale (..., 1), float32 but a float16 number; zero (..., 1), float32 but whole.
    """
    if scheme.symmetric:
        high = weights.abs().amax(-1, keepdim=True) * shrink
        low = -high
    else:
        high = weights.amax(-1, keepdim=True).clamp(min=0) * shrink
        low = weights.amin(-1, keepdim=True).clamp(max=0) * shrink
    scale = ((high - low) / (scheme.levels - 1)).half().float().clamp(min=SMALLEST)
    if scheme.symmetric:
        return scale, torch.full_like(scale, scheme.levels // 2)
    return scale, (-low / scale).round().clamp(0, scheme.levels - 1)


# end exercise


def search_grid(weights: Tensor, scheme: Scheme, spans: Sequence[float] = SPANS) -> tuple[Tensor, Tensor]:
    """The grid that rounds each group with the least squared error, of those that span a part of its weights.

    A narrower span has finer levels and clips what lies outside: a good bargain where few weights are large.

    Args:
        weights: the last dimension is a group. (..., G).
        spans: shares of the full span; the first one wins where it is no worse.

    Returns:
        as `fit_grid`.
    """
    best = torch.ones_like(weights[..., :1])
    least = torch.full_like(best, torch.inf)
    for share in spans:
        scale, zero = fit_grid(weights, scheme, share)
        values = scale * (to_codes(weights, scale, zero, scheme.levels) - zero)
        error = (values - weights).square().sum(-1, keepdim=True)
        better = error < least
        best, least = torch.where(better, share, best), torch.where(better, error, least)
    return fit_grid(weights, scheme, best)


def to_codes(weights: Tensor, scale: Tensor, zero: Tensor, levels: int) -> Tensor:
    """The number of the nearest level, as a float. Shapes as they broadcast."""
    return ((weights / scale).round() + zero).clamp(0, levels - 1)


@dataclass(frozen=True)
class Quantised:
    """A weight matrix (out, in) on a grid.

    Attributes:
        codes: (out, in), uint8.
        scales: (out, groups), float32 but float16 numbers.
        zeros: (out, groups), uint8.
        group_of: which group an input belongs to. (in,), int32. In ascending order unless GPTQ sorted the inputs.
        bits: of a code.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    group_of: Tensor
    bits: int

    def weights(self) -> Tensor:
        """The values the codes stand for. (out, in), float32."""
        scales, zeros, codes = self.scales, self.zeros.float(), self.codes.float()
        if self.ascending:
            codes = codes.view(len(codes), scales.shape[1], -1)  # (out, groups, inputs of a group)
            return (scales[..., None] * (codes - zeros[..., None])).flatten(1)
        groups = self.group_of.long()
        return scales[:, groups] * (codes - zeros[:, groups])

    @property
    def ascending(self) -> bool:
        """Whether neighbouring inputs form a group, as kernels like it."""
        return bool((self.group_of.diff() >= 0).all())


def rounded(weight: Tensor, scheme: Scheme, shrink: Tensor | float = 1.0) -> Tensor:
    """The values that `round_to_nearest` would keep, without the codes. (out, in), float32."""
    groups = weight.detach().float().view(len(weight), -1, scheme.columns(weight.shape[1]))
    scale, zero = fit_grid(groups, scheme, shrink)
    return (scale * (to_codes(groups, scale, zero, scheme.levels) - zero)).view_as(weight)


def round_to_nearest(weight: Tensor, scheme: Scheme, shrink: Tensor | float = 1.0) -> Quantised:
    """RTN: every weight to the nearest level of its group's grid. No data needed; the baseline.

    Args:
        weight: (out, in).
        shrink: of each group's span. A number or (out, groups, 1).
    """
    rows, width = weight.shape
    size = scheme.columns(width)
    groups = weight.detach().float().view(rows, width // size, size)
    scale, zero = fit_grid(groups, scheme, shrink)
    codes = to_codes(groups, scale, zero, scheme.levels).to(torch.uint8).view(rows, width)
    group_of = torch.arange(width, dtype=torch.int32, device=weight.device) // size
    return Quantised(codes, scale[..., 0], zero[..., 0].to(torch.uint8), group_of, scheme.bits)
