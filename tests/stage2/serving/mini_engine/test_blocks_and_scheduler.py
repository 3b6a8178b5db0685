"""Blocks and scheduler, without a model: properties over drawn workloads. Each test names the bug that it catches."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage2_rag_finetune_deploy.serving.mini_engine.block_manager import ROOT, BlockManager, chain_hash
from stage2_rag_finetune_deploy.serving.mini_engine.scheduler import Scheduler
from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence
from stage2_rag_finetune_deploy.serving.mini_engine.simulation import Lengths, play, ragged_lengths, simulate

BLOCK = 4
BLOCKS = 12  # holds the longest request that is drawn, and about three of the usual ones: preemption is common
PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=30)  # few tokens, so that prefixes are shared
REQUESTS = st.lists(st.tuples(PROMPTS, st.integers(1, 15)), min_size=1, max_size=12)


def sequences_of(requests):
    """Sequences with the drawn prompts and answers' lengths."""
    return [Sequence(str(i), list(prompt), max_tokens=answer) for i, (prompt, answer) in enumerate(requests)]


def check(blocks: BlockManager, running: list[Sequence]) -> None:
    """What has to hold after every step: counts are true, free and used are apart, names point both ways."""
    uses = Counter(block for sequence in running for block in sequence.block_table)
    assert blocks.ref_counts == [uses[block] for block in range(blocks.num_blocks)]
    assert set(blocks.free) == {block for block in range(blocks.num_blocks) if not uses[block]}
    assert {name: block for block, name in blocks.name_of.items()} == blocks.block_of
    for sequence in running:
        assert len(set(sequence.block_table)) == len(sequence.block_table)
        assert sequence.computed <= len(sequence.block_table) * blocks.block_size


@settings(max_examples=150, deadline=None)
@given(REQUESTS, st.integers(1, 6), st.integers(1, 40), st.booleans(), st.booleans())
def test_no_leak_no_double_free_and_everybody_ends(requests, max_num_seqs, budget, static, prefix_caching):
    """Catches: a block lost or counted twice, a limit passed, a sequence that starves, is lost or answered twice."""
    scheduler = Scheduler(BlockManager(BLOCKS, BLOCK, prefix_caching), max_num_seqs, budget, static)
    sequences = sequences_of(requests)
    for chunks in play(scheduler, sequences):
        check(scheduler.blocks, scheduler.running)
        assert sum(chunk.count for chunk in chunks) <= budget and all(chunk.count > 0 for chunk in chunks)
        assert len({id(chunk.sequence) for chunk in chunks}) == len(chunks) <= len(scheduler.running) <= max_num_seqs
        assert {id(each) for each in (*scheduler.running, *scheduler.waiting)} == {
            id(each) for each in sequences if not each.finish_reason}  # fmt: skip
        for sequence, start, count in chunks:
            assert len(sequence.block_table) * BLOCK >= start + count and start == sequence.computed
    assert [len(each.output_ids) for each in sequences] == [each.max_tokens for each in sequences]
    check(scheduler.blocks, [])
    assert scheduler.blocks.num_free == BLOCKS


@settings(max_examples=100, deadline=None)
@given(REQUESTS, st.data())
def test_aborting_anybody_at_any_time_frees_at_once(requests, data):
    """Catches: a client that left and whose blocks stay taken; a sequence that is freed twice."""
    scheduler = Scheduler(BlockManager(BLOCKS, BLOCK), 4, 16)
    sequences = sequences_of(requests)
    for _ in play(scheduler, sequences):
        if data.draw(st.booleans()):
            victim = data.draw(st.sampled_from(sequences))
            others = [each for each in scheduler.running if each is not victim]
            scheduler.finish(victim, "abort")
            assert not victim.block_table
            check(scheduler.blocks, others)
            scheduler.finish(victim, "abort")
            break
    assert scheduler.blocks.num_free == BLOCKS or scheduler.unfinished


@settings(max_examples=100, deadline=None)
@given(REQUESTS)
def test_a_shared_block_holds_the_same_text_from_the_beginning(requests):
    """Catches: a prefix hit on other tokens, or on the same tokens after another beginning, or not yet computed."""
    scheduler = Scheduler(BlockManager(BLOCKS, BLOCK), 4, 16)
    written: dict[int, list[int]] = {}  # what was computed into each block: all tokens up to its end
    for chunks in play(scheduler, sequences_of(requests)):
        for sequence, start, _ in chunks:
            for index in range(start // BLOCK):  # what it relies on
                assert written[sequence.block_table[index]] == sequence.tokens(0, (index + 1) * BLOCK)
        for sequence, start, count in chunks:
            for end in range(start + 1, start + count + 1):
                written[sequence.block_table[(end - 1) // BLOCK]] = sequence.tokens(0, end)


@pytest.mark.parametrize(("length", "hit"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (31, 28), (32, 28)])
def test_full_prefix_hit_leaves_one_token_to_compute(length, hit):
    """Catches: nothing left to compute for a prompt that is cached to its end, so no logits (nano-vllm's #144)."""
    scheduler = Scheduler(BlockManager(BLOCKS, BLOCK))
    prompt = list(range(length))
    first, second = (Sequence(name, list(prompt), max_tokens=1) for name in "ab")
    list(play(scheduler, [first]))
    chunks = next(play(scheduler, [second]))
    assert (chunks[0].start, chunks[0].count) == (hit, length - hit) and second.cached == hit
    assert chunks[0].samples


def test_a_hit_survives_until_its_place_is_needed():
    """Catches: contents forgotten at once, or believed in after another sequence has overwritten them."""
    scheduler = Scheduler(BlockManager(BLOCKS, BLOCK))
    old = list(range(16))
    list(play(scheduler, [Sequence("old", old, max_tokens=1)]))
    list(play(scheduler, [Sequence("small", [77] * 9, max_tokens=1)]))
    assert len(scheduler.blocks.match_prefix(Sequence("again", old + [5]))) == 4
    list(play(scheduler, [Sequence("large", [88] * (BLOCKS * BLOCK - 1), max_tokens=1)]))
    assert scheduler.blocks.match_prefix(Sequence("again", old + [5])) == []


def test_chain_hash_knows_everything_before():
    """Catches: a hash of the block's own tokens only, or one that their order does not change."""
    one = chain_hash(ROOT, [1, 2, 3, 4])
    assert len(one) == 16 and one == chain_hash(ROOT, [1, 2, 3, 4])
    others = [chain_hash(ROOT, [1, 2, 4, 3]), chain_hash(one, [1, 2, 3, 4]), chain_hash(ROOT, [1, 2, 3])]
    assert len({one, *others}) == 4


def test_the_last_one_is_preempted_and_comes_back_first():
    """Catches: the oldest thrown out (nobody would ever end), tokens lost, the place in the line lost."""
    scheduler = Scheduler(BlockManager(4, BLOCK), max_num_seqs=8)
    old, young, late = (Sequence(name, [ord(name)] * 7, max_tokens=8) for name in "abc")
    steps = play(scheduler, [old, young, late])
    for _ in steps:
        if young.preemptions:
            break
    assert not old.preemptions and old in scheduler.running
    assert list(scheduler.waiting) == [young, late] and young.computed == 0 and young.output_ids
    list(steps)
    assert [len(each.output_ids) for each in (old, young, late)] == [8, 8, 8]


def test_long_prompts_are_cut():
    """Catches: a running sequence that gets no token while a long prompt is computed."""
    scheduler = Scheduler(BlockManager(100, BLOCK), max_num_batched_tokens=10)
    short, long = Sequence("s", [1] * 3, max_tokens=8), Sequence("l", [2] * 40, max_tokens=1)
    counts = [[(each.sequence.request_id, each.count) for each in chunks] for chunks in play(scheduler, [short, long])]
    assert counts[:3] == [[("s", 3), ("l", 7)], [("s", 1), ("l", 9)], [("s", 1), ("l", 9)]]


def test_continuous_batching_needs_fewer_steps_than_static():
    """Catches: places of a batch that stay empty. Steps are counted, no clock: always the same."""
    lengths = ragged_lengths()
    steps = {static: len(simulate(lengths, max_num_seqs=8, static=static)[0].batch) for static in (True, False)}
    assert steps == {True: 751, False: 481}
    work = sum(answer for _, answer in lengths)
    assert steps[False] >= work / 8
    same = [Lengths(16, 32)] * 16  # the control: with equal lengths there is nothing to win
    assert len({len(simulate(same, max_num_seqs=8, static=static)[0].batch) for static in (True, False)}) == 1


def test_a_shared_beginning_is_computed_once():
    """Catches: a prefix cache that nobody looks into."""
    lengths = [Lengths(100, 4)] * 6
    alone = simulate(lengths, max_num_seqs=1)[1].counters
    shared = simulate(lengths, max_num_seqs=1, shared_prefix=96)[1].counters
    assert alone.prefix_hits == 0 and shared.prefix_hits == 5 * 96
    assert alone.computed_tokens - shared.computed_tokens == 5 * 96
