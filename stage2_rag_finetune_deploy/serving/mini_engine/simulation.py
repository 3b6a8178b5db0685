"""The scheduler without a model: what a workload does to batches and blocks, to the step, in milliseconds.

Steps do not depend on the words, only on lengths: any token stands for any other. Counts from here are those of a real
run with the same lengths, limits and `ignore_eos`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from stage2_rag_finetune_deploy.serving.mini_engine.block_manager import BlockManager
from stage2_rag_finetune_deploy.serving.mini_engine.scheduler import Chunk, Scheduler
from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence


class Lengths(NamedTuple):
    """Tokens of a request's prompt and of its answer."""

    prompt: int
    answer: int


def ragged_lengths(requests: int = 32, seed: int = 1) -> list[Lengths]:
    """Prompts of 16 to 128 tokens, answers of 16 to 192: the workload of `bench`."""
    draw = np.random.default_rng(seed)
    prompts, answers = draw.integers(16, 129, requests), draw.integers(16, 193, requests)
    return [Lengths(int(prompt), int(answer)) for prompt, answer in zip(prompts, answers, strict=True)]


@dataclass
class Trace:
    """What was seen after each step.

    Attributes:
        batch: sequences in the step.
        tokens: tokens computed in it.
        used: blocks in use.
        owner: (steps, blocks) the number of the sequence that uses a block; -1 is nobody, -2 several.
    """

    batch: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    owner: list[np.ndarray] = field(default_factory=list)


def play(scheduler: Scheduler, sequences: list[Sequence]) -> Iterator[list[Chunk]]:
    """Run sequences to their end; gives each step's chunks when they are decided, before they count as computed.

    The token that is drawn is a number nobody else has, so that only prompts can share blocks.
    """
    for sequence in sequences:
        scheduler.add(sequence)
    number = 1_000_000
    while scheduler.unfinished:
        chunks = scheduler.schedule()
        if not chunks:
            raise RuntimeError("sequences wait, and none can be computed")
        yield chunks
        tokens = {}
        for chunk in chunks:
            if chunk.samples:
                tokens[chunk.sequence], number = number, number + 1
        scheduler.commit(chunks, tokens)
        for sequence in tokens:
            if len(sequence.output_ids) == sequence.max_tokens:
                scheduler.finish(sequence, "length")


def simulate(
    lengths: list[Lengths], num_blocks: int = 4096, block_size: int = 16, shared_prefix: int = 0, **limits: int
) -> tuple[Trace, Scheduler]:
    """Trace a workload.

    Args:
        shared_prefix: so many tokens at the beginning of every prompt are the same.
        limits: of the Scheduler.
    """
    scheduler = Scheduler(BlockManager(num_blocks, block_size), **limits)
    sequences = [
        Sequence(str(i), [j if j < shared_prefix else 1000 * (i + 1) + j for j in range(prompt)], max_tokens=answer)
        for i, (prompt, answer) in enumerate(lengths)
    ]
    trace = Trace()
    for chunks in play(scheduler, sequences):
        trace.batch.append(len(chunks))
        trace.tokens.append(sum(chunk.count for chunk in chunks))
        trace.used.append(num_blocks - scheduler.blocks.num_free)
        trace.owner.append(owners(num_blocks, {int(each.request_id): each.block_table for each in scheduler.running}))
    return trace, scheduler


def owners(num_blocks: int, tables: Mapping[int, list[int]]) -> np.ndarray:
    """(num_blocks,) who uses each block: -1 nobody, -2 several."""
    owner = np.full(num_blocks, -1)
    for number, table in tables.items():
        owner[table] = np.where(owner[table] == -1, number, -2)
    return owner
