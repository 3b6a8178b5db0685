"""Each test names the bug that it catches."""

import math

import pytest
import torch

from stage1_foundations.gpt.position_encoding import (
    alibi_bias,
    alibi_slopes,
    apply_rope,
    rope_table,
    sinusoidal_table,
)


def test_dot_product_depends_on_distance_only():
    """Catches: angles added to only one of q and k; positions counted from 1 on one side."""
    q, k = torch.randn(2, 1, 1, 1, 64)
    cos, sin = rope_table(length=128, head_dim=64)

    def score(m: int, n: int) -> float:
        return (apply_rope(q, cos[m], sin[m]) * apply_rope(k, cos[n], sin[n])).sum().item()

    assert abs(score(5, 2) - score(105, 102)) < 1e-4  # float32 angles near 100 rad cost about 1e-5
    assert abs(score(5, 2) - score(2, 5)) > 1e-2


def test_length_of_vectors_is_kept():
    """Catches: a sign error in the rotation."""
    x = torch.randn(2, 3, 7, 32)
    assert torch.allclose(apply_rope(x, *rope_table(7, 32)).norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_position_zero_is_identity():
    """Catches: an off-by-one in positions."""
    x = torch.randn(1, 1, 1, 16)
    assert torch.equal(apply_rope(x, *rope_table(1, 16)), x)


def test_rope_turns_halves_by_the_papers_angles():
    """Catches: neighbours paired instead of halves (not Llama's layout), a base in the wrong place."""
    cos, sin = rope_table(50, 8, base=500.0)
    x = torch.zeros(1, 1, 50, 8)
    x[..., 2] = 1.0  # feature 2 is paired with feature 6; its frequency is 500^(-2 * 2 / 8)
    turned = apply_rope(x, cos, sin)
    angle = 31 * 500.0 ** (-4 / 8)
    expected = torch.zeros(8)
    expected[2], expected[6] = math.cos(angle), math.sin(angle)
    assert torch.allclose(turned[0, 0, 31], expected, atol=1e-6)


def test_rope_keeps_bfloat16():
    """Catches: float32 tables that turn the queries of a bfloat16 model into float32."""
    x = torch.randn(1, 2, 5, 8, dtype=torch.bfloat16)
    turned = apply_rope(x, *rope_table(5, 8))
    assert turned.dtype == torch.bfloat16
    exact = apply_rope(x.float(), *rope_table(5, 8))
    assert torch.equal(turned, exact.bfloat16())  # rounded once, at the end


def test_odd_head_size_is_refused():
    """Catches: a silent drop of the last feature."""
    with pytest.raises(ValueError, match="even"):
        rope_table(4, 7)


@pytest.mark.parametrize(
    ("position", "feature"), [(0, 0), (1, 0), (7, 4), (99, 30), (512, 63), (3, 1), (40, 33)]
)
def test_sinusoidal_is_the_papers_formula(position, feature):
    """Catches: exponents that count i and not 2i, sines and cosines in halves, a wrong base."""
    table = sinusoidal_table(513, 64)
    angle = position / 10_000 ** (2 * (feature // 2) / 64)
    expected = math.cos(angle) if feature % 2 else math.sin(angle)
    assert (
        abs(table[position, feature].item() - expected) < 1e-4
    )  # float32 angles up to 512 rad cost about 3e-5


def test_sinusoidal_odd_width():
    """Catches: a crash when the last sine has no cosine."""
    assert sinusoidal_table(9, 7).shape == (9, 7)
    assert abs(sinusoidal_table(9, 7)[5, 6].item() - math.sin(5 / 10_000 ** (6 / 7))) < 1e-6


def test_alibi_slopes_of_eight_heads_are_the_papers():
    """Catches: slopes that start at 1, or the wrong ratio for other numbers of heads."""
    assert torch.equal(alibi_slopes(8), torch.tensor([2.0**-n for n in range(1, 9)]))
    assert torch.allclose(alibi_slopes(16)[1::2], alibi_slopes(8))
    assert alibi_slopes(4)[-1] == 2.0**-8


def test_alibi_bias_is_slope_times_distance():
    """Catches: a reward for distance (sign), a future that is not masked, a wrong origin."""
    bias = alibi_bias(5, 5, alibi_slopes(8))
    assert bias.shape == (8, 5, 5)
    assert bias[0, 4].tolist() == [-2.0, -1.5, -1.0, -0.5, 0.0]
    assert bias[7, 3].tolist()[:4] == [-3 / 256, -2 / 256, -1 / 256, 0.0]
    assert (bias[:, torch.ones(5, 5).triu(1).bool()] == -math.inf).all()


@pytest.mark.parametrize("new", [1, 2, 5])
def test_alibi_bias_with_a_cache_is_the_end_of_the_whole(new):
    """Catches: queries of a cached step placed at position 0 instead of at the end."""
    slopes = alibi_slopes(3)
    assert torch.equal(alibi_bias(new, 9, slopes), alibi_bias(9, 9, slopes)[:, -new:])
