"""Each test names the bug that it catches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.grid import (
    SPANS,
    Quantised,
    Scheme,
    check_groups,
    fit_grid,
    round_to_nearest,
    rounded,
    search_grid,
    to_codes,
)

SCHEMES = st.builds(Scheme, st.sampled_from([2, 3, 4, 8]), st.sampled_from([16, 32, -1]), st.booleans())


def weights(seed: int, rows: int = 5, width: int = 64) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(SCHEMES, st.integers(0, 1000), st.floats(0.1, 100))
def test_no_weight_moves_further_than_half_a_level(scheme, seed, size):
    """Catches: codes off by one, a zero on the wrong side, a group that reads its neighbour's scale."""
    weight = weights(seed) * size
    made = round_to_nearest(weight, scheme)
    scale = made.scales[:, made.group_of.long()]
    slack = 0.51 + 2.0**scheme.bits * 2**-11  # float16 rounds the scale: the outermost level moves by so much
    if not scheme.symmetric:
        slack += 0.5  # zero is rounded to a whole code as well
    assert ((made.weights() - weight).abs() <= scale * slack).all()
    assert int(made.codes.max()) < scheme.levels


def test_levels_by_hand():
    """Catches: a symmetric span that is not 2 max / (levels - 1); a middle code that is not levels / 2."""
    group = torch.tensor([[-1.5, 0.75, 0.1, 0.3]])
    scale, zero = fit_grid(group, Scheme(2, 4))
    assert scale.item() == 1.0 and zero.item() == 2
    assert to_codes(group, scale, zero, 4).tolist() == [[0, 3, 2, 2]]  # -1.5 rounds to the even -2
    scale, zero = fit_grid(torch.tensor([[-1.0, 2.0]]), Scheme(2, 2, symmetric=False))
    assert scale.item() == 1.0 and zero.item() == 1


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_are_float16_numbers_and_zero_stays_zero(symmetric):
    """Catches: simulated values that change when the checkpoint is written; pruned weights that come back."""
    weight = weights(1)
    weight[:, ::3] = 0
    weight[2] = 0
    made = round_to_nearest(weight, Scheme(4, 16, symmetric))
    assert torch.equal(made.scales.half().float(), made.scales)
    assert (made.weights()[weight == 0] == 0).all()


@pytest.mark.parametrize("scheme", [Scheme(3, 16), Scheme(4, -1, False)])
def test_values_without_codes_are_the_same(scheme):
    """Catches: a search that optimises another grid than the one that is kept."""
    weight, shrink = weights(2), 0.8
    assert torch.equal(rounded(weight, scheme, shrink), round_to_nearest(weight, scheme, shrink).weights())


def squared_error(groups: torch.Tensor, scheme: Scheme, grid: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    scale, zero = grid
    return (scale * (to_codes(groups, scale, zero, scheme.levels) - zero) - groups).square().sum(-1)


@settings(max_examples=30, deadline=None)
@given(SCHEMES, st.integers(0, 1000))
def test_a_searched_grid_is_never_worse(scheme, seed):
    """Catches: the last span kept in place of the best; one row's choice made for all."""
    groups = weights(seed, width=32) ** 3
    found = squared_error(groups, scheme, search_grid(groups, scheme))
    tried = [squared_error(groups, scheme, fit_grid(groups, scheme, share)) for share in SPANS]
    assert torch.equal(found, torch.stack(tried).amin(0))
    plain = fit_grid(groups, scheme)
    assert all(map(torch.equal, search_grid(groups, scheme, (1.0,)), plain))


def test_groups_out_of_order():
    """Catches: the fast way for neighbours taken where the inputs of a group lie apart."""
    codes = torch.tensor([[0, 1, 2, 3]], dtype=torch.uint8)
    made = Quantised(codes, torch.tensor([[1.0, 10.0]]), torch.zeros(1, 2, dtype=torch.uint8),
                     torch.tensor([1, 0, 0, 1], dtype=torch.int32), 4)  # fmt: skip
    assert not made.ascending
    assert made.weights().tolist() == [[0, 1, 2, 30]]


def test_groups_that_do_not_divide():
    """Catches: a traceback, or advice that does not divide either (576 is SmolLM2's width)."""
    with pytest.raises(LabError, match="128 does not divide 576") as caught:
        check_groups(Scheme(4, 128), [1536, 576])
    assert caught.value.try_next == "--group 64"
    with pytest.raises(LabError):
        round_to_nearest(torch.zeros(2, 48), Scheme(4, 32))
    check_groups(Scheme(4, -1), [576, 10])


def test_bits_a_weight():
    """Catches: the share of scale and zero forgotten: 4.3125 bits at groups of 64."""
    assert Scheme(4, 64).bits_a_weight(576) == 4.3125
    assert Scheme(3, -1).bits_a_weight(19) == 4
