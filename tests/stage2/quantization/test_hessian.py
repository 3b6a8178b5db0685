"""Each test names the bug that it catches."""

import pytest
import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.hessian import InputStatistics, inverse_factor, output_error


def test_statistics_are_means(inputs):
    """Catches: sums in place of means; batches of another size counted alike; bfloat16 sums."""
    x = inputs(30, 8)
    statistics = InputStatistics(8)
    statistics.add(x[:7]), statistics.add(x[7:])
    assert torch.allclose(statistics.hessian, x.T @ x / 30, rtol=1e-5, atol=1e-5)
    assert torch.allclose(statistics.mean_absolute, x.abs().mean(0), rtol=1e-5)
    short = InputStatistics(8)
    short.add(x.bfloat16())
    assert short.hessian.dtype == torch.float32


def test_error_is_that_of_the_outputs(inputs):
    """Catches: a trace with the factors the wrong way round."""
    x, weight, other = inputs(50, 8), torch.randn(3, 8), torch.randn(3, 8)
    direct = ((x @ (other - weight).T) ** 2).sum() / ((x @ weight.T) ** 2).sum()
    assert output_error(weight, other, x.T @ x / 50) == pytest.approx(direct.item(), rel=1e-4)


def test_factor_of_the_inverse(inputs):
    """Catches: the lower factor, or that of H; damping that is not a share of the mean of the diagonal."""
    x = inputs(200, 8).double()
    hessian = x.T @ x / 200
    factor = inverse_factor(hessian, damp=0.05)
    damped = hessian + 0.05 * hessian.diagonal().mean() * torch.eye(8)
    assert torch.allclose(factor, factor.triu())
    assert torch.allclose(factor.T @ factor @ damped, torch.eye(8).double(), atol=1e-8)


def test_fewer_tokens_than_inputs(inputs):
    """Catches: no damping at all: H of 5 tokens and 16 inputs has no inverse."""
    x = inputs(5, 16)
    assert inverse_factor(x.T @ x / 5).isfinite().all()


def test_nan_is_one_clear_line():
    """Catches: NaN codes from broken inputs."""
    with pytest.raises(LabError, match="no inverse"):
        inverse_factor(torch.full((4, 4), float("nan")))
