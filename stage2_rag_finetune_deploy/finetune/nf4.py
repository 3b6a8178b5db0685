"""NF4: weights in four bits, with sixteen levels where a normal distribution has its mass (QLoRA, section 3).

- the sixteen levels, derived from the quantiles of the normal distribution
- blocks of 64 weights, each scaled by its largest absolute value (`absmax`)
- two codes a byte, the first in the high half
- double quantisation: the absmax values, one float32 for 64 weights, in eight bits

Bit for bit what bitsandbytes 0.50 stores: tests/stage2/finetune/test_nf4.py compares codes, absmax and nested absmax.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs"; for the eight-bit levels, Dettmers 2016, "8-Bit
Approximations for Parallelism in Deep Learning".
"""

from dataclasses import dataclass
from functools import cache

import torch
from scipy.special import ndtri
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 64  # weights that share an absmax
ABSMAX_BLOCK = 256  # absmax values that share an absmax of their own
GRID = 65_536  # bitsandbytes on a CPU finds the nearest of 256 levels in a table of so many entries
TINY = 1e-38  # instead of zero, where one divides by the absmax of a block of zeros


@cache
def nf4_levels() -> Tensor:
    """The sixteen levels, ascending, from -1 to 1, with an exact zero. (16,), float32.

    Between two neighbours lies about a sixteenth of a normal distribution: seven quantiles below zero, eight above, and
    zero itself. The outermost quantile would be infinite; QLoRA takes the one at 0.9677083, the mean of 1 - 1/30 and
    1 - 1/32, and divides by the largest. In float32 throughout, as the published levels were computed.
    """
    above = ndtri(torch.linspace(0.5, 0.9677083, 9)[1:].numpy())  # (8,) quantiles of these probabilities
    below = -ndtri(torch.linspace(0.5, 0.9677083, 8)[1:].numpy())  # (7,)
    levels = torch.cat([torch.from_numpy(below), torch.zeros(1), torch.from_numpy(above)]).sort().values
    return levels / levels.max()


@cache
def eight_bit_levels() -> Tensor:
    """The 256 levels of the eight-bit dynamic type, ascending. (256,), float32.

    An exponent and a fraction whose lengths vary: decade `e` (0 to 6, the values below 10^(e-6)) has 2^e levels on each
    side of zero, at the middles of 2^e equal parts of [0.1, 1] times 10^(e-6). Together with 0 and 1 they are 256.
    """
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        middles = (edges[:-1] + edges[1:]) / 2.0
        decade = 10 ** (exponent - 6) * middles
        levels += decade.tolist() + (-decade).tolist()
    return torch.tensor(sorted(levels))


@dataclass(frozen=True)
class EightBit:
    """float32 values in eight bits: `levels[codes] * absmax`, a block of 256 at a time, plus `offset`."""

    codes: Tensor  # (values,) uint8
    absmax: Tensor  # (blocks,) float32
    offset: Tensor  # () float32, the mean that was taken off before

    def values(self) -> Tensor:
        """The values again. (values,) float32."""
        levels = eight_bit_levels().to(self.codes.device)[self.codes.long()]
        scaled = blocks_of(levels, ABSMAX_BLOCK) * self.absmax[:, None]
        return scaled.flatten()[: self.codes.numel()] + self.offset

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""
        return self.codes.numel() + 4 * self.absmax.numel() + 4

    def to(self, device: torch.device) -> "EightBit":
        """The same on another device."""
        return EightBit(self.codes.to(device), self.absmax.to(device), self.offset.to(device))


@dataclass(frozen=True)
class NF4:
    """A tensor in four bits."""

    packed: Tensor  # ((weights + 1) // 2,) uint8
    absmax: Tensor | EightBit  # (blocks,)
    shape: torch.Size
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: 4.5 bits a weight, 4.127 with double quantisation."""
        statistics = self.absmax.nbytes if isinstance(self.absmax, EightBit) else 4 * self.absmax.numel()
        return self.packed.numel() + statistics

    @property
    def bits(self) -> float:
        """Bits a weight."""
        return 8 * self.nbytes / self.shape.numel()

    def to(self, device: torch.device) -> "NF4":
        """The same on another device."""
        return NF4(self.packed.to(device), self.absmax.to(device), self.shape, self.dtype)


def blocks_of(values: Tensor, size: int) -> Tensor:
    """Values in rows of `size`, the last one filled up with zeros. (rows, size)."""
    flat = values.reshape(-1)
    return pad(flat, (0, -flat.numel() % size)).view(-1, size)


def nearest_levels(scaled: Tensor, levels: Tensor) -> Tensor:
    """For each value the number of the level next to it. int64, the shape of `scaled`.

    The border between two levels is their mean, in float32; a value on the border goes to the lower one.

    Args:
        scaled: values from -1 to 1.
        levels: ascending. (L,).
    """
    borders = (levels[:-1] + levels[1:]) / 2
    return torch.bucketize(scaled, borders.to(scaled.device))


# exercise: finetune.quantise_nf4
def quantise_nf4(weight: Tensor, double: bool = True) -> NF4:
    """Weights in four bits.

    Each block of 64 (row by row; a block may run over the end of a row) is multiplied by 1 / absmax, and each weight
    becomes the number of its nearest level.

    Args:
        weight: any shape; float32, bfloat16 or float16.
        double: quantise the absmax values as well.
    """
    blocks = blocks_of(weight.detach().float(), BLOCK)  # (blocks, 64)
    absmax = blocks.abs().amax(dim=1)
    scaled = (blocks * (1.0 / absmax.clamp(min=TINY))[:, None]).clamp(-1, 1)
    codes = nearest_levels(scaled, nf4_levels()).flatten()[: weight.numel()]
    return NF4(pack(codes), quantise_absmax(absmax) if double else absmax, weight.shape, weight.dtype)


# end exercise


# exercise: finetune.quantise_absmax
def quantise_absmax(absmax: Tensor, grid: int | None = GRID) -> EightBit:
    """Double quantisation: absmax values in eight bits, after their mean is taken off (they are all positive).

    Args:
        absmax: one value a block of weights. (blocks,), float32.
        grid: round the scaled values to so many steps from -1 to 1 before the nearest level is looked up, as
            bitsandbytes does on a CPU; None searches exactly, as it does on a GPU. About 0.15 % of the codes differ.
    """
    offset = absmax.mean()
    blocks = blocks_of(absmax - offset, ABSMAX_BLOCK)
    largest = blocks.abs().amax(dim=1)
    scaled = blocks / largest.clamp(min=TINY)[:, None]
    if grid is not None:
        steps = torch.floor((scaled + 1) * ((grid - 1) / 2) + 0.5)
        scaled = steps / ((grid - 1) / 2) - 1
    codes = nearest_levels(scaled, eight_bit_levels())
    codes[largest == 0] = 0  # times an absmax of zero: any code would do, this one is bitsandbytes'
    return EightBit(codes.flatten()[: absmax.numel()].to(torch.uint8), largest, offset)


# end exercise


def dequantise_nf4(stored: NF4, dtype: torch.dtype | None = None) -> Tensor:
    """The weights again, as near as four bits come: level times absmax, computed in float32.

    Args:
        stored: what `quantise_nf4` returned.
        dtype: of the result; by default that of the weights before.
    """
    absmax = stored.absmax.values() if isinstance(stored.absmax, EightBit) else stored.absmax
    count = stored.shape.numel()
    levels = blocks_of(nf4_levels().to(stored.packed.device)[unpack(stored.packed, count)], BLOCK)
    return (levels * absmax[:, None]).flatten()[:count].view(stored.shape).to(dtype or stored.dtype)


def pack(codes: Tensor) -> Tensor:
    """Two codes from 0 to 15 in a byte, the first in the high half; an odd one out is followed by the code of zero.

    Args:
        codes: (n,), integers.

    Returns:
        ((n + 1) // 2,), uint8.
    """
    zero = 7  # nf4_levels()[7] == 0
    pairs = pad(codes, (0, codes.numel() % 2), value=zero).view(-1, 2)
    return (pairs[:, 0] * 16 + pairs[:, 1]).to(torch.uint8)


def unpack(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes of `pack`. (count,), int64."""
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:count].long()
