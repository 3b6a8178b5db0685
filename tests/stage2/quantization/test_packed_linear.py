"""Each test names the bug that it catches."""

import pytest
import torch

from stage2_rag_finetune_deploy.quantization.gptq import gptq
from stage2_rag_finetune_deploy.quantization.grid import Scheme, round_to_nearest
from stage2_rag_finetune_deploy.quantization.packed_linear import (
    INT4,
    INT8,
    MANY,
    UNPACK,
    PackedLinear,
    int4_height,
    unpack_int4,
)

needs_int4 = pytest.mark.skipif(int4_height() is None, reason="no int4 kernel whose layout is known on this processor")


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    return ((first.float() - second.float()).norm() / second.float().norm()).item()


@needs_int4
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("tokens", [1, 7, MANY[INT4] + 1])
def test_int4_is_the_matrix(tokens, symmetric):
    """Catches: a wrong sign of the kernel's offset, groups along the outputs, another layout in the unpacked way.

    The kernel's scales are bfloat16, 2^-9 apart: 0.5 % is their noise.
    """
    layer = round_to_nearest(torch.randn(128, 64), Scheme(4, 32, symmetric))
    made, x = PackedLinear(layer, torch.randn(128)), torch.randn(1, tokens, 64).bfloat16()
    assert made.kernel == INT4
    assert relative(made(x) - made.bias, x.float() @ layer.weights().T) < 0.01


@needs_int4
def test_int4_codes_come_back():
    """Catches: the two halves of a byte exchanged."""
    codes = torch.randint(0, 16, (128, 96), dtype=torch.int32)
    assert torch.equal(unpack_int4(torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)).int(), codes)


@pytest.mark.parametrize("tokens", [1, MANY[INT8] + 1])
def test_int8_is_the_matrix(tokens):
    """Catches: codes from 0 to 255 given to a kernel that reads -128 to 127."""
    layer = round_to_nearest(torch.randn(64, 96), Scheme(8, -1))
    made, x = PackedLinear(layer), torch.randn(tokens, 96).bfloat16()
    assert made.kernel == INT8
    assert relative(made(x), x.float() @ layer.weights().T) < 0.01


@pytest.mark.parametrize("scheme", [Scheme(3, 32), Scheme(2, -1), Scheme(8, 32), Scheme(4, 16)])
def test_what_no_kernel_reads_is_unpacked(scheme):
    """Catches: a kernel called with a group or a number of bits that it does not know."""
    layer = round_to_nearest(torch.randn(64, 96), scheme)
    made, x = PackedLinear(layer), torch.randn(3, 96).bfloat16()
    assert made.kernel == UNPACK
    assert torch.equal(made.weights(), layer.weights().bfloat16())
    assert relative(made(x), x.float() @ layer.weights().T) < 0.01


def test_inputs_out_of_order_are_unpacked(inputs):
    """Catches: act-order's groups read as neighbours."""
    x = inputs(200, 64)
    layer = gptq(torch.randn(64, 64), x.T @ x / 200, Scheme(4, 32), "act")
    assert PackedLinear(layer).kernel == UNPACK
    assert torch.equal(PackedLinear(layer).weights(), layer.weights().bfloat16())


@pytest.mark.parametrize("tokens", [1, MANY[INT4] + 1])
@pytest.mark.parametrize(("scheme", "kernel"), [(Scheme(4, 32), INT4), (Scheme(8, -1), INT8)])
@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
def test_a_model_in_float32_has_the_kernels_too(monkeypatch, capability, scheme, kernel, tokens):
    """Catches: float32 given to a kernel that is fast on bfloat16 alone; outputs that stay in bfloat16; a processor
    without bfloat16 left with unpacking for every token; one without AVX given what was not measured there.
    """
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    if kernel == INT4 and int4_height() is None:
        pytest.skip("no int4 kernel whose layout is known on this processor")
    layer = round_to_nearest(torch.randn(128, 64), scheme)
    made, x = PackedLinear(layer, torch.randn(128), torch.float32), torch.randn(1, tokens, 64)
    assert made.kernel == (kernel if capability == "AVX2" else UNPACK)
    assert made(x).dtype == made.weights().dtype == torch.float32
    assert relative(made(x) - made.bias, x @ layer.weights().T) < 0.01
    assert PackedLinear(layer, dtype=torch.float32)(x).dtype == torch.float32  # a bias would widen it
