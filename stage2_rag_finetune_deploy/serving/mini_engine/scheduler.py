"""Who computes what in the next step.

- **Continuous batching** (Orca, Yu et al. 2022): the batch is put together anew before every forward pass. A sequence
  that has ended gives its place to a waiting one at once; with static batching its place stays empty until the longest
  answer of the batch is done.
- **Chunked prefill**: a step computes at most `max_num_batched_tokens` tokens. Running sequences come first, with one
  token each; a long prompt is cut to what is left, so that it never makes the others wait long.
- **Preemption by recomputation**: when the cache is full, the sequence that came last gives all its blocks back and
  waits in front. Its tokens are kept; when it comes in again they are computed like a prompt.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from stage2_rag_finetune_deploy.serving.mini_engine.block_manager import BlockManager
from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence


class Chunk(NamedTuple):
    """Tokens [start, start + count) of a sequence, to be computed in this step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the step draws the sequence's next token: its last known token is in the chunk."""
        return self.start + self.count == len(self.sequence)


@dataclass
class Counters:
    """What happened so far."""

    steps: int = 0
    computed_tokens: int = 0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0


class Scheduler:
    """The waiting line, the running batch, and the decision of a step."""

    def __init__(
        self, blocks: BlockManager, max_num_seqs: int = 64, max_num_batched_tokens: int = 512, static: bool = False
    ) -> None:
        self.blocks, self.static = blocks, static
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.filling = True
        self.counters = Counters()

    @property
    def unfinished(self) -> int:
        """Sequences that wait or run."""
        return len(self.waiting) + len(self.running)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the line."""
        self.waiting.append(sequence)

    # exercise: serving.schedule
    def schedule(self) -> list[Chunk]:
        """The chunks of the next forward pass: first those that run, in the order they came, then new ones.

        When the cache is full the last one that runs is preempted, until the one at hand has its blocks (or is itself
        the last one). In such a step nobody new comes in. With static batching somebody new comes in only while
        `filling`: from an empty batch on, until it was full once.
        """
        chunks: list[Chunk] = []
        budget, index, preempted = self.max_num_batched_tokens, 0, False
        self.filling = not self.static or not self.running or self.filling
        while index < len(self.running) and budget:
            sequence = self.running[index]
            count = min(sequence.remaining, budget)
            while self.blocks.missing(sequence, sequence.computed + count) > self.blocks.num_free:
                preempted = True
                if self._preempt_last() is sequence:
                    break
            else:
                chunks.append(self._plan(sequence, count))
                budget, index = budget - count, index + 1
        while budget and self.waiting and not preempted and self.filling:
            if len(self.running) == self.max_num_seqs or not (chunk := self._admit(budget)):
                self.filling = not self.static  # a static batch is full once, and then only shrinks
                break
            chunks.append(chunk)
            budget -= chunk.count
        return chunks
    # end exercise

    def commit(self, chunks: list[Chunk], tokens: dict[Sequence, int]) -> None:
        """The step is done: its chunks are computed, and each sequence that sampled has one more token."""
        self.counters.steps += 1
        for chunk in chunks:
            sequence = chunk.sequence
            sequence.computed = chunk.start + chunk.count
            self.counters.computed_tokens += chunk.count
            self.blocks.publish(sequence, chunk.start)
            if sequence in tokens:
                sequence.output_ids.append(tokens[sequence])

    def finish(self, sequence: Sequence, reason: str) -> None:
        """Take a sequence out, wherever it is, and give its blocks back. Twice is as good as once."""
        if sequence.finish_reason:
            return
        sequence.finish_reason = reason
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        self.blocks.release(sequence)

    def _plan(self, sequence: Sequence, count: int) -> Chunk:
        self.blocks.grow(sequence, sequence.computed + count)
        return Chunk(sequence, sequence.computed, count)

    def _admit(self, budget: int) -> Chunk | None:
        """The first of the line, if all its tokens find room; what the prefix cache has is not computed again."""
        sequence = self.waiting[0]
        shared = self.blocks.match_prefix(sequence)
        revived = sum(self.blocks.ref_counts[block] == 0 for block in shared)
        if self.blocks.blocks_for(len(sequence)) - len(shared) > self.blocks.num_free - revived:
            return None
        self.blocks.share(sequence, shared)
        if sequence.cached is None:
            sequence.cached = sequence.computed
            self.counters.prefix_queries += len(sequence)
            self.counters.prefix_hits += sequence.cached
        self.running.append(self.waiting.popleft())
        return self._plan(sequence, min(sequence.remaining, budget))

    def _preempt_last(self) -> Sequence:
        sequence = self.running.pop()
        self.blocks.release(sequence)
        sequence.preemptions += 1
        self.counters.preemptions += 1
        self.waiting.appendleft(sequence)
        return sequence
