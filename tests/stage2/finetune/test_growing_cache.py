"""Keys and values that grow in blocks. Each test names the bug that it catches."""

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from stage2_rag_finetune_deploy.finetune.growing_cache import ROOM, GrowingLayer, give_room


def filled(rows: int = 4, length: int = 5, layers: int = 2) -> DynamicCache:
    """A cache after a prompt."""
    torch.manual_seed(1)
    cache = DynamicCache()
    for layer in range(layers):
        cache.update(torch.randn(rows, 3, length, 8), torch.randn(rows, 3, length, 8), layer)
    return cache


def test_it_holds_what_a_dynamic_cache_holds():
    """Catches: a position that is overwritten or skipped, rows of before a selection, keys for values."""
    plain, growing = filled(), filled()
    give_room(growing)
    assert all(type(layer) is GrowingLayer for layer in growing.layers)
    for step in range(2 * ROOM + 7):  # past the end of a block, twice
        if step == 3:  # a row in the middle ends
            for cache in (plain, growing):
                cache.batch_select_indices(torch.tensor([0, 2, 3]))
        if step == ROOM:  # the last one ends: the first rows stay where they are
            for cache in (plain, growing):
                cache.batch_select_indices(torch.tensor([0, 1]))
        if step == ROOM + 1:  # as many rows, in another order
            for cache in (plain, growing):
                cache.batch_select_indices(torch.tensor([1, 0]))
        if step == ROOM + 2:
            for cache in (plain, growing):
                cache.batch_repeat_interleave(2)
        rows = plain.layers[0].keys.shape[0]
        width = 2 if step == 5 else 1
        for layer in range(2):
            new = torch.randn(rows, 3, width, 8), torch.randn(rows, 3, width, 8)
            wanted, found = plain.update(*new, layer), growing.update(*new, layer)
            assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True)), step
        assert growing.get_seq_length() == plain.get_seq_length()


def test_what_is_kept_is_not_copied():
    """Catches: a copy at every token, which is what this is there to avoid."""
    cache, places = filled(layers=1), set()
    give_room(cache)
    for _ in range(ROOM + 1):
        keys, values = cache.update(torch.randn(4, 3, 1, 8), torch.randn(4, 3, 1, 8), 0)
        places.add((keys.data_ptr(), values.data_ptr()))
    assert len(places) == 1  # the first one copies, and makes room for 32 more


def test_the_prompts_own_keys_stay_as_they_were():
    """Catches: new tokens written into tensors that somebody else still holds."""
    cache = filled(layers=1)
    kept = cache.layers[0].keys
    before = kept.clone()
    give_room(cache)
    cache.update(torch.randn(4, 3, 1, 8), torch.randn(4, 3, 1, 8), 0)
    assert torch.equal(kept, before) and cache.layers[0].keys.data_ptr() != kept.data_ptr()


def test_layers_with_a_window_stay_what_they_are():
    """Catches: a sliding window that grows without end."""
    cache = DynamicCache()
    cache.layers = [DynamicSlidingWindowLayer(sliding_window=4), DynamicLayer()]
    for layer in range(2):
        cache.update(torch.randn(1, 3, 6, 8), torch.randn(1, 3, 6, 8), layer)
    give_room(cache)
    assert [type(layer) for layer in cache.layers] == [DynamicSlidingWindowLayer, GrowingLayer]
