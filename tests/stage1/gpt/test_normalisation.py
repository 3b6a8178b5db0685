"""Each test names the bug that it catches. The oracle is torch's own implementation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stage1_foundations.gpt.normalisation import LayerNorm, RMSNorm, build_norm, rms_norm


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("with_gain", [False, True])
def test_rms_norm_equals_torch(with_gain, eps):
    """Catches: a mean that is subtracted, eps outside the root, a sum for a mean."""
    x, gain = torch.randn(3, 5, 16), torch.randn(16) if with_gain else None
    # one multiplication in another order: a unit in the last place of numbers up to 4
    assert torch.allclose(rms_norm(x, gain, eps), F.rms_norm(x, (16,), gain, eps), atol=1e-6)


def test_rms_norm_gradient_equals_torch():
    """Catches: a detached denominator, as if the norm were a constant."""
    x = torch.randn(2, 3, 16, dtype=torch.float32, requires_grad=True)
    upstream = torch.randn(2, 3, 16)
    (ours,) = torch.autograd.grad(rms_norm(x), x, upstream)
    (theirs,) = torch.autograd.grad(F.rms_norm(x, (16,), eps=1e-6), x, upstream)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_rms_norm_of_bfloat16_is_computed_in_float32():
    """Catches: squares and roots rounded to 8 bits, several times over."""
    x = torch.randn(4, 256).bfloat16()
    normed = rms_norm(x)
    assert normed.dtype == torch.bfloat16
    assert torch.equal(normed, rms_norm(x.float()).bfloat16())  # rounded once, at the end


def test_rms_norm_of_zeros_is_zero():
    """Catches: a missing eps, so that a zero vector becomes NaN."""
    assert torch.equal(rms_norm(torch.zeros(2, 8)), torch.zeros(2, 8))


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_equals_torch(bias):
    """Catches: the unbiased variance, a bias that is left out."""
    ours, theirs = LayerNorm(16, bias, eps=1e-5), nn.LayerNorm(16, eps=1e-5, bias=bias)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_()
            ours.get_parameter(name).copy_(parameter)
    x = 3 * torch.randn(2, 5, 16) + 1
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_names_build_the_right_module():
    """Catches: a shape that gets another norm, or a gain where none is wanted."""
    x = torch.randn(2, 8)
    assert isinstance(build_norm("layernorm", 8, gain=True, bias=False, eps=1e-5), LayerNorm)
    bare = build_norm("rmsnorm", 8, gain=False, bias=False, eps=0.5)
    assert isinstance(bare, RMSNorm) and not list(bare.parameters())
    assert torch.allclose(bare(x), F.rms_norm(x, (8,), eps=0.5), atol=1e-6)
    assert torch.equal(build_norm("none", 8, gain=True, bias=True, eps=1e-5)(x), x)
