"""Each test names the bug that it catches. bitsandbytes is the reference, bit for bit."""

import logging

import pytest
import torch

from stage2_rag_finetune_deploy.finetune import nf4

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # wants a kernel from the hub
reference = pytest.importorskip("bitsandbytes.functional")

SHAPES = [(576, 576), (192, 576), (1536, 576), (256, 64), (65,), (127, 3), (3, 5, 7)]


def weights(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Normal weights like a linear layer's, with one block of zeros where there is more than one block."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05
    if weight.numel() > 128:
        weight.view(-1)[64:128] = 0
    return weight.to(dtype)


def test_levels_are_bitsandbytes():
    """Catches: quantiles in the wrong number on a side, of other probabilities, scaled by another value."""
    levels = nf4.nf4_levels()
    assert torch.equal(levels, reference.get_4bit_type("nf4", device="cpu"))
    assert levels[7] == 0 and levels[0] == -1 and levels[15] == 1


def test_eight_bit_levels_are_bitsandbytes():
    """Catches: decades in reverse, edges instead of middles, a missing 0 or 1."""
    assert torch.equal(nf4.eight_bit_levels(), reference.create_dynamic_map())


def test_nearest_levels_by_hand():
    """Catches: rounding down instead of to the nearest; a border that goes up."""
    levels = torch.tensor([-1.0, 0.0, 1.0])
    values = torch.tensor([[-1.0, -0.6, -0.5], [0.4, 0.5, 0.6]])
    assert nf4.nearest_levels(values, levels).tolist() == [[0, 0, 0], [1, 1, 2]]


def test_pack_by_hand():
    """Catches: the first code in the low half; an odd code lost."""
    packed = nf4.pack(torch.tensor([1, 2, 15, 0, 9]))
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [0x12, 0xF0, 0x97]
    assert nf4.unpack(packed, 5).tolist() == [1, 2, 15, 0, 9]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_and_absmax_are_bitsandbytes(shape, dtype):
    """Catches: blocks along rows, absmax signed, division instead of the reciprocal, a block of zeros as NaN."""
    weight = weights(shape, dtype)
    packed, state = reference.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    ours = nf4.quantise_nf4(weight, double=False)
    assert torch.equal(ours.packed, packed.flatten())
    assert torch.equal(ours.absmax, state.absmax)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", SHAPES)
def test_nested_absmax_is_bitsandbytes(shape, seed):
    """Catches: no mean taken off, blocks of 64 for the statistics too, the nearest level found exactly."""
    weight = weights(shape, seed=seed)
    _, state = reference.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    ours = nf4.quantise_nf4(weight).absmax
    assert torch.equal(ours.codes, state.absmax)
    assert torch.equal(ours.absmax, state.state2.absmax)
    assert torch.equal(ours.offset, state.offset)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", SHAPES[1:4] + SHAPES[5:])
def test_dequantised_weights_are_bitsandbytes(shape, double, dtype):
    """Catches: nibbles swapped, offset forgotten, product rounded twice."""
    weight = weights(shape, dtype)
    packed, state = reference.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=double)
    ours = nf4.dequantise_nf4(nf4.quantise_nf4(weight, double))
    assert ours.dtype == dtype and ours.shape == weight.shape
    assert torch.equal(ours, reference.dequantize_4bit(packed, state))


def test_grid_moves_few_codes_and_only_to_a_neighbour():
    """Catches: a grid so coarse that it costs quality; a search without it that is not exact."""
    absmax = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    exact, grid = nf4.quantise_absmax(absmax, grid=None), nf4.quantise_absmax(absmax)
    scaled = nf4.blocks_of(absmax - absmax.mean(), 256) / exact.absmax[:, None]
    nearest = (scaled.flatten()[:40_000, None] - nf4.eight_bit_levels()).abs().amin(dim=1)
    found = (scaled.flatten()[:40_000] - nf4.eight_bit_levels()[exact.codes.long()]).abs()
    assert (found - nearest).max() < 1e-7  # a float32 step at 1
    steps = (exact.codes.int() - grid.codes.int()).abs()
    assert steps.max() == 1 and 0 < (steps > 0).float().mean() < 0.005


@pytest.mark.parametrize("double,bits", [(False, 4 + 32 / 64), (True, 4 + 8 / 64 + 32 / (64 * 256))])
def test_bits_a_weight(double, bits):
    """Catches: codes kept one a byte; statistics kept in float32 after double quantisation."""
    stored = nf4.quantise_nf4(weights((1024, 1024)), double)
    offset = 32 / 1024**2 if double else 0
    assert stored.bits == pytest.approx(bits + offset, abs=1e-9)
    held = [stored.packed, *(vars(stored.absmax).values() if double else [stored.absmax])]
    assert stored.nbytes == sum(tensor.nbytes for tensor in held)


def test_normal_levels_beat_even_ones_on_normal_weights_only():
    """Catches: levels that are no better than evenly spaced ones; a comparison that NF4 always wins."""
    generator = torch.Generator().manual_seed(0)

    def error(weight: torch.Tensor, levels: torch.Tensor) -> float:
        blocks = nf4.blocks_of(weight, 64)
        absmax = blocks.abs().amax(dim=1, keepdim=True)
        return (levels[nf4.nearest_levels(blocks / absmax, levels)] * absmax - blocks).square().mean().item()

    even = torch.linspace(-1, 1, 15)  # symmetric four bits: -7 to 7
    normal = torch.randn(640_000, generator=generator)
    uniform = torch.rand(640_000, generator=generator) * 2 - 1
    assert error(normal, nf4.nf4_levels()) < 0.85 * error(normal, even)
    assert error(uniform, nf4.nf4_levels()) > error(uniform, even)
