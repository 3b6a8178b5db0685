"""Each test names the bug that it catches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_foundations.gpt.batches import BlockSampler


def sampler(length: int = 100, context: int = 8, batch: int = 6, seed: int = 1) -> BlockSampler:
    """Tokens that are their own positions, so that a row says where it was cut."""
    return BlockSampler(torch.arange(length), context, batch, seed)


def test_targets_are_the_next_tokens():
    """Catches: targets equal to the inputs (loss falls to zero by copying), or two tokens ahead."""
    ids, targets = sampler().rows(3)
    assert ids.shape == targets.shape == (6, 8)
    assert torch.equal(targets, ids + 1)
    assert torch.equal(ids, ids[:, :1] + torch.arange(8))


def test_an_epoch_covers_its_blocks_once():
    """Catches: rows drawn with repetition, so that some text is never read."""
    batches = sampler(length=8 * 13 + 5, batch=3)  # 12 rows an epoch, 4 steps
    assert batches.rows_per_epoch == 12
    for epoch in range(3):
        seen = torch.cat([batches.rows(4 * epoch + step)[0] for step in range(4)]).flatten().sort().values
        assert torch.equal(seen, torch.arange(12 * 8) + seen[0])


def test_epochs_differ_in_order_and_offset():
    """Catches: the same blocks in the same order for ever: the model learns where blocks begin."""
    batches = sampler(length=8 * 40, batch=39)
    first = [batches.rows(epoch)[0][:, 0] for epoch in range(6)]
    assert len({tuple(starts.tolist()) for starts in first}) == 6
    assert len({int(starts.min()) % 8 for starts in first}) > 1


def test_same_seed_and_step_give_the_same_batch():
    """Catches: hidden state, so that a resumed run would see other text."""
    one, other = sampler(), sampler()
    for step in (7, 0, 3, 7):  # backwards as well, over the border of an epoch
        assert torch.equal(one.rows(step)[0], sampler().rows(step)[0])
    other.rows(50)
    assert torch.equal(one.rows(4)[0], other.rows(4)[0])
    assert not torch.equal(one.rows(4)[0], sampler(seed=2).rows(4)[0])


def test_batches_do_not_touch_the_global_generator():
    """Catches: dropout that depends on how many epochs were drawn before."""
    before = torch.get_rng_state()
    sampler().rows(99)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_slices_make_the_whole_batch(parts):
    """Catches: two processes that train on the same rows, or rows that none of them sees."""
    batches = sampler()
    for step in (0, 1, 5):
        count = 6 // parts
        slices = [batches.rows(step, first=rank * count, count=count) for rank in range(parts)]
        for index, whole in enumerate(batches.rows(step)):
            assert torch.equal(torch.cat([part[index] for part in slices]), whole)


@settings(max_examples=150, deadline=None)
@given(
    context=st.integers(1, 12), extra=st.integers(1, 60), batch=st.integers(1, 7), step=st.integers(0, 40),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_never_reads_past_the_end(context, extra, batch, step, seed):
    """Catches: an offset that pushes the last target out of the text; a text of one context and one token."""
    length = context + extra
    ids, targets = BlockSampler(torch.arange(length), context, batch, seed).rows(step)
    assert ids.min() >= 0 and targets.max() < length
    assert torch.equal(targets, ids + 1)
