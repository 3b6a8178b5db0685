"""Each test names the bug that it catches."""

import pytest
import torch

from stage1_foundations.gpt.kv_cache import KVCache
from stage1_foundations.gpt.model_config import SHAPES
from stage1_foundations.gpt.position_encoding import KINDS as POSITIONS

PLANS = {
    "one by one": [1] * 24,
    "prompt, then one by one": [9] + [1] * 15,
    "chunks": [7, 5, 1, 8, 3],
    "all at once": [24],
}


def cached_logits(model, ids: torch.Tensor, plan: list[int]) -> torch.Tensor:
    """Logits of all positions, computed in the pieces of a plan."""
    cache = model.new_cache(batch=ids.shape[0])
    return torch.cat([model(piece, cache) for piece in ids.split(plan, dim=1)], dim=1)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_cached_logits_equal_uncached(build, shape, position, plan):
    """Catches: positions that start again at 0, a mask aligned to the start, cached keys turned twice."""
    model = build(shape, position=position)
    ids = torch.randint(19, (2, 24))
    # the products have other shapes, so float32 sums have another order; logits are of size 1 to 10
    assert torch.allclose(cached_logits(model, ids, plan), model(ids), atol=3e-5)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@torch.no_grad()
def test_cached_logits_equal_uncached_with_bigrams(build, plan):
    """Catches: bigrams that look at the whole text, not at the piece."""
    model = build("modern", bigram_rows=19 * 19)
    ids = torch.randint(19, (2, 24))
    assert torch.allclose(cached_logits(model, ids, plan), model(ids), atol=3e-5)


@torch.no_grad()
def test_explicit_attention_uses_the_cache(build):
    """Catches: a mask in the explicit form that forgets the cached keys."""
    model = build("llama")
    for block in model.blocks:
        block.attention.explicit = True
    ids = torch.randint(19, (2, 24))
    assert torch.allclose(cached_logits(model, ids, [5, 1, 18]), model(ids), atol=3e-5)


@torch.no_grad()
def test_bigram_table_sees_across_the_boundary(build):
    """Catches: the first token of every piece taken for the first of the text."""
    model = build("modern", bigram_rows=19 * 19)
    ids = torch.tensor([[3, 8, 5]])
    cache = model.new_cache()
    model(ids[:, :2], cache)
    assert model.bigram_rows(ids[:, 2:], cache).item() == 8 * 19 + 5
    assert model.bigram_rows(ids, None).tolist() == [[3, 3 * 19 + 8, 8 * 19 + 5]]


def test_full_cache_is_an_error():
    """Catches: new keys written over old ones, or a view that is silently shorter."""
    cache = KVCache(layers=1, batch=1, kv_heads=1, length=4, head_dim=2)
    new = torch.randn(1, 1, 3, 2)
    cache.append(0, new, new)
    cache.advance(torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="holds 4 positions, 6 are needed"):
        cache.append(0, new, new)


def test_append_returns_the_past_in_order():
    """Catches: a cache that moves on with the first layer, so that the second one writes beside it."""
    cache = KVCache(layers=2, batch=1, kv_heads=1, length=8, head_dim=2)
    first, second = torch.randn(2, 1, 1, 3, 2), torch.randn(2, 1, 1, 2, 2)
    for layer in range(2):
        cache.append(layer, first[layer], -first[layer])
    cache.advance(torch.zeros(1, 3, dtype=torch.long))
    for layer in range(2):
        keys, values = cache.append(layer, second[layer], -second[layer])
        assert torch.equal(keys, torch.cat((first[layer], second[layer]), dim=2))
        assert torch.equal(values, -keys)


def test_cache_holds_no_more_than_is_asked(build):
    """Catches: memory for the whole context (8,192 positions in SmolLM2) for an answer of 20 tokens."""
    model = build("llama")
    assert model.new_cache(length=5).capacity == 5
    assert model.new_cache(length=500).capacity == 24
    assert model.new_cache(batch=3).keys.shape == (2, 3, 2, 24, 8)  # 2 key/value heads, not 6


@torch.no_grad()
def test_like_starts_empty_in_the_same_memory(build):
    """Catches: an old length or last token that survives, or memory that is allocated a second time."""
    model = build("modern")
    used = model.new_cache(batch=1)
    model(torch.randint(19, (1, 24)), used)
    fresh = KVCache.like(used)
    assert fresh.keys.data_ptr() == used.keys.data_ptr()
    assert (fresh.length, fresh.last_token, fresh.capacity) == (0, None, 24)
    ids = torch.randint(19, (1, 10))
    assert torch.allclose(model(ids, fresh), model(ids), atol=3e-5)
