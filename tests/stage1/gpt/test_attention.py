"""Each test names the bug that it catches."""

import math

import pytest
import torch

from stage1_foundations.gpt.attention import SelfAttention, explicit_attention, fused_attention
from stage1_foundations.gpt.model_config import SHAPES
from stage1_foundations.gpt.position_encoding import KINDS as POSITIONS
from stage1_foundations.gpt.position_encoding import alibi_bias, alibi_slopes

LENGTHS = [
    (7, 7),
    (1, 7),
    (3, 7),
    (1, 1),
]  # (queries, keys): training, one token from a cache, a chunk, the start


def qkv(query_length: int, key_length: int, heads: int = 4, head_dim: int = 8) -> list[torch.Tensor]:
    """Random queries, keys and values that ask for gradients."""
    lengths = (query_length, key_length, key_length)
    return [torch.randn(2, heads, length, head_dim, requires_grad=True) for length in lengths]


@pytest.mark.parametrize("with_alibi", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_fused_equals_explicit_in_values_and_gradients(lengths, with_alibi):
    """Catches: a mask aligned to the start of the keys, a missing 1/sqrt(d), a bias that is dropped."""
    inputs = qkv(*lengths)
    bias = alibi_bias(*lengths, alibi_slopes(4)) if with_alibi else None
    upstream = torch.randn(2, 4, lengths[0], 8)
    explicit, _ = explicit_attention(*inputs, bias)
    fused = fused_attention(*inputs, bias)
    # float32 sums of 8 products in another order: a few units in the last place of numbers near 1
    assert torch.allclose(explicit, fused, atol=2e-6)
    for ours, theirs in zip(
        torch.autograd.grad(explicit, inputs, upstream),
        torch.autograd.grad(fused, inputs, upstream),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=5e-6)


def test_explicit_attention_equals_a_sum_by_hand():
    """Catches: an error that both forms share, such as a softmax over the queries or an unscaled score."""
    q, k, v = (t.detach() for t in qkv(3, 5, heads=1, head_dim=4))
    mixed, weights = explicit_attention(q, k, v)
    for query in range(3):
        seen = 5 - 3 + query + 1
        scores = [math.exp(float(q[0, 0, query] @ k[0, 0, key]) / 2.0) for key in range(seen)]
        by_hand = sum(score / sum(scores) * v[0, 0, key] for key, score in enumerate(scores))
        assert torch.allclose(mixed[0, 0, query], by_hand, atol=1e-6)
        assert torch.allclose(weights[0, 0, query, :seen], torch.tensor(scores) / sum(scores), atol=1e-6)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_weights_are_a_mean_over_the_past(lengths):
    """Catches: rows that do not sum to one; weight on the future; a mask that also hides the token itself."""
    _, weights = explicit_attention(*qkv(*lengths))
    query, key = torch.arange(lengths[0])[:, None] + lengths[1] - lengths[0], torch.arange(lengths[1])
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-6)
    assert (weights[..., key > query] == 0).all()
    assert (weights[..., key <= query] > 0).all()


@pytest.mark.parametrize("explicit", [False, True])
def test_grouped_heads_share_keys_and_values(explicit):
    """Catches: heads tiled (0 1 0 1) instead of repeated (0 0 1 1): another group's keys are read."""
    grouped = SelfAttention(48, 6, 2, bias=False, qk_norm=False, explicit=explicit)
    classic = SelfAttention(48, 6, 6, bias=False, qk_norm=False, explicit=explicit)
    q, k, v = grouped.qkv.weight.split(grouped.sizes)
    spread = [part.view(2, 8, 48)[[0, 0, 0, 1, 1, 1]].reshape(48, 48) for part in (k, v)]
    with torch.no_grad():
        classic.qkv.weight.copy_(torch.cat((q, *spread)))
        classic.out.weight.copy_(grouped.out.weight)
    x = torch.randn(2, 9, 48)
    assert torch.allclose(grouped(x), classic(x), atol=1e-6)


def test_qk_norm_bounds_the_scores():
    """Catches: a norm that is missing for q or k: large inputs then saturate the softmax."""
    attention = SelfAttention(16, 2, 2, bias=False, qk_norm=True, explicit=True)
    attention.keep_weights = True
    x = torch.randn(1, 5, 16)
    attention(x)
    small = attention.weights
    attention(1000 * x)
    assert torch.allclose(
        small, attention.weights, atol=1e-4
    )  # eps of the norm weighs a little more on small x


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_future_does_not_change_the_past(build, shape, position, explicit):
    """Catches: a leak through the mask, the bigram table or a norm over time."""
    model = build(shape, position=position)
    for block in model.blocks:
        block.attention.explicit = explicit
    ids = torch.randint(19, (2, 24))
    changed = ids.clone()
    changed[:, 13:] = (ids[:, 13:] + 1) % 19
    before, after = model(ids), model(changed)
    assert torch.allclose(before[:, :13], after[:, :13], atol=1e-5)
    assert (before[:, 13:] - after[:, 13:]).abs().amax(-1).min() > 1e-3  # and the change itself is seen


@pytest.mark.parametrize("shape", SHAPES)
def test_every_past_token_is_seen(build, shape):
    """Catches: a window or an off-by-one in the mask that forgets the first token or the one just before."""
    model = build(shape)
    ids = torch.randint(19, (1, 24))
    for position in range(24):
        other = ids.clone()
        other[0, position] = (ids[0, position] + 7) % 19
        assert (model(ids)[0, -1] - model(other)[0, -1]).abs().max() > 1e-4
