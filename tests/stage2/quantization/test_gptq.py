"""Each test names the bug that it catches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage2_rag_finetune_deploy.quantization.gptq import ORDERS, gptq, input_order
from stage2_rag_finetune_deploy.quantization.grid import Scheme, fit_grid, round_to_nearest, to_codes
from stage2_rag_finetune_deploy.quantization.hessian import output_error


def slow_gptq(weight: torch.Tensor, hessian: torch.Tensor, scheme: Scheme, damp: float) -> torch.Tensor:
    """Optimal Brain Quantisation with the inputs in order: for every input the Hessian of the rest is inverted anew."""
    left, width = weight.double().clone(), weight.shape[1]
    damped = hessian.double() + damp * hessian.diagonal().double().mean() * torch.eye(width)
    size = scheme.columns(width)
    for i in range(width):
        if i % size == 0:
            scale, zero = fit_grid(left[:, i : i + size].float(), scheme)
        value = (scale * (to_codes(left[:, i : i + 1].float(), scale, zero, scheme.levels) - zero)).double()
        inverse = torch.linalg.inv(damped[i:, i:])
        error = (left[:, i : i + 1] - value) / inverse[0, 0]
        left[:, i:] -= error * inverse[0]
        left[:, i : i + 1] = value
    return left.float()


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([Scheme(4, 16), Scheme(3, 8, False), Scheme(2, -1)]), st.integers(0, 100))
def test_equals_the_slow_algorithm(inputs, scheme, seed):
    """Catches: any slip in the factor, the corrections, the blocks or the groups.

    A weight that lies on the border of two levels may round otherwise in float32 and take others with it: a share of
    2 % of the codes may differ, and the error must not.
    """
    x, weight = inputs(300, 48), torch.randn(6, 48, generator=torch.Generator().manual_seed(seed))
    hessian = x.T @ x / 300
    slow = slow_gptq(weight, hessian, scheme, 0.01)
    fast = gptq(weight, hessian, scheme, "none", span="largest").weights()
    assert (~torch.isclose(slow, fast, rtol=1e-3, atol=1e-4)).float().mean() <= 0.02 or output_error(
        weight, fast, hessian
    ) == pytest.approx(output_error(weight, slow, hessian), rel=0.1)


def test_blocks_change_nothing(inputs):
    """Catches: corrections lost or applied twice at the end of a block (width 160 is more than one block of 128)."""
    x, weight = inputs(600, 160), torch.randn(4, 160)
    hessian, scheme = x.T @ x / 600, Scheme(3, -1)
    slow = slow_gptq(weight, hessian, scheme, 0.01)
    fast = gptq(weight, hessian, scheme, "none", span="largest").weights()
    assert (~torch.isclose(slow, fast, rtol=1e-3, atol=1e-4)).float().mean() <= 0.02


def test_inputs_that_do_not_go_together_leave_rounding():
    """Catches: corrections where there is nothing to correct with."""
    weight, scheme = torch.randn(5, 32), Scheme(3, 16)
    made = gptq(weight, torch.eye(32), scheme, "none", span="largest")
    plain = round_to_nearest(weight, scheme)
    assert torch.equal(made.codes, plain.codes) and torch.equal(made.scales, plain.scales)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [3, 4])
def test_better_than_rounding_here_and_on_other_inputs(inputs, order, bits):
    """Catches: a GPTQ that only learns the calibration text by heart, or that is worse than no method."""
    x, unseen, weight = inputs(800, 64), inputs(800, 64, seed=5), torch.randn(48, 64)
    scheme = Scheme(bits, 16)
    made, plain = gptq(weight, x.T @ x / 800, scheme, order).weights(), round_to_nearest(weight, scheme).weights()
    for text in (x, unseen):
        hessian = text.T @ text / 800
        assert output_error(weight, made, hessian) < 0.8 * output_error(weight, plain, hessian)


def test_orders_by_hand():
    """Catches: weakest first; groups taken apart by the order that promises not to."""
    diagonal = torch.tensor([1.0, 4.0, 3.0, 9.0, 0.5, 0.25])
    assert input_order(diagonal, 2, "none").tolist() == [0, 1, 2, 3, 4, 5]
    assert input_order(diagonal, 2, "act").tolist() == [3, 1, 2, 0, 4, 5]
    assert input_order(diagonal, 2, "group").tolist() == [3, 2, 1, 0, 4, 5]


@pytest.mark.parametrize("order", ORDERS)
def test_codes_scales_and_groups_belong_together(inputs, order):
    """Catches: codes left in the order of rounding, scales of another group: the values would be far off."""
    x, weight = inputs(400, 64), torch.randn(8, 64)
    made = gptq(weight, x.T @ x / 400, Scheme(8, 16), order)
    assert torch.allclose(made.weights(), weight, atol=0.12)
    assert made.ascending == (order != "act")
    assert made.group_of.bincount().tolist() == [16] * 4


def test_inputs_that_are_never_there():
    """Catches: a division by zero where a calibration text leaves an input at zero."""
    x = torch.randn(100, 16)
    x[:, 3] = 0
    made = gptq(torch.randn(4, 16), x.T @ x / 100, Scheme(4, 8))
    assert made.weights().isfinite().all() and (made.weights()[:, 3] == 0).all()


def test_stacked_layers_are_the_same_as_single_ones(inputs):
    """Catches: rows that influence one another."""
    x, first, second = inputs(300, 32), torch.randn(4, 32), torch.randn(6, 32)
    hessian, scheme = x.T @ x / 300, Scheme(4, 16)
    both = gptq(torch.cat([first, second]), hessian, scheme)
    assert (both.codes[:4] == gptq(first, hessian, scheme).codes).float().mean() > 0.98


@pytest.mark.parametrize("bits", [3, 4])
def test_a_searched_span_pays_where_few_weights_are_large(inputs, bits):
    """Catches: a search whose grid is not the one that the codes are of; the word ignored."""
    x, weight = inputs(800, 64), torch.randn(64, 64, generator=torch.Generator().manual_seed(2)) ** 3
    hessian, scheme = x.T @ x / 800, Scheme(bits, 32)
    errors = [output_error(weight, gptq(weight, hessian, scheme, span=span).weights(), hessian)
              for span in ("search", "largest")]  # fmt: skip
    assert errors[0] < 0.97 * errors[1]
