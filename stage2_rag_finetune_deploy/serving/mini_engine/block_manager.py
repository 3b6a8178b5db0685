"""Paging: which block of the cache belongs to whom.

The cache of keys and values is cut into blocks of `block_size` tokens. A sequence does not own a stretch of memory for
its longest possible answer; it owns a table of blocks that grows by one whenever the last one is full. So at most
`block_size - 1` places a sequence are wasted, and a block whose contents are the same can be read by many.

Prefix cache: a full block is known by the hash of its tokens chained to the hash of the block before it, so that equal
hashes mean equal text from the very beginning. A block that nobody uses any more keeps its contents until its place is
needed; the one that was free longest goes first. (Kwon et al. 2023, "Efficient memory management for large language
model serving with PagedAttention", 4.1 to 4.3; the hash chain is vLLM's.)
"""

from array import array
from hashlib import blake2b

from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence

ROOT = b""  # the hash before the first block


# exercise: serving.chain_hash
def chain_hash(before: bytes, tokens: list[int]) -> bytes:
    """Name of a full block: 16 bytes that depend on its tokens, their order, and everything before them.

    Args:
        before: the name of the block before; ROOT for the first.
        tokens: the block's ids.
    """
    return blake2b(array("q", tokens).tobytes(), digest_size=16, key=before).digest()
# end exercise


class BlockManager:
    """Hands out blocks, counts who uses them, and finds those whose contents are wanted again."""

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool = True) -> None:
        self.num_blocks, self.block_size, self.prefix_caching = num_blocks, block_size, prefix_caching
        self.ref_counts = [0] * num_blocks
        self.free: dict[int, None] = dict.fromkeys(range(num_blocks))  # in the order of reuse; O(1) to take one out
        self.name_of: dict[int, bytes] = {}
        self.block_of: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody uses."""
        return len(self.free)

    def blocks_for(self, tokens: int) -> int:
        """How many blocks so many tokens need."""
        return -(-tokens // self.block_size)

    def missing(self, sequence: Sequence, tokens: int) -> int:
        """Blocks that a sequence lacks to hold its first `tokens` tokens."""
        return max(0, self.blocks_for(tokens) - len(sequence.block_table))

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """Give a sequence the blocks it lacks; the caller has checked that there are enough."""
        for _ in range(self.missing(sequence, tokens)):
            sequence.block_table.append(self._take(next(iter(self.free))))

    # exercise: serving.match_prefix
    def match_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks in the cache that hold the sequence's first tokens, from the beginning without a gap.

        At least one token is left to compute, because its logits are wanted: a prompt that is cached to its last token
        has its last block computed again. Extends `sequence.hashes` as far as it had to look.
        """
        found: list[int] = []
        for index in range((len(sequence) - 1) // self.block_size if self.prefix_caching else 0):
            block = self.block_of.get(self._name(sequence, index))
            if block is None:
                break
            found.append(block)
        return found
    # end exercise

    def share(self, sequence: Sequence, blocks: list[int]) -> None:
        """Begin a sequence's table with blocks that `match_prefix` found."""
        for block in blocks:
            if self.ref_counts[block]:
                self.ref_counts[block] += 1
            else:
                self._take(block, keep=True)
        sequence.block_table = list(blocks)
        sequence.computed = len(blocks) * self.block_size

    def publish(self, sequence: Sequence, before: int) -> None:
        """Name the blocks that became full when the computed tokens grew from `before` to `sequence.computed`."""
        if not self.prefix_caching:
            return
        for index in range(before // self.block_size, sequence.computed // self.block_size):
            name, block = self._name(sequence, index), sequence.block_table[index]
            if name not in self.block_of:  # else two sequences computed the same: the first one's stays known
                self.block_of[name], self.name_of[block] = block, name

    def release(self, sequence: Sequence) -> None:
        """Give back all blocks of a sequence. The end goes first, so that a shared beginning survives longest."""
        for block in reversed(sequence.block_table):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] < 0:
                raise AssertionError(f"block {block} was freed twice")
            if self.ref_counts[block] == 0:
                self.free[block] = None
        sequence.block_table, sequence.computed = [], 0

    def _take(self, block: int, keep: bool = False) -> int:
        """Take a free block; what it holds is forgotten unless it is wanted for that."""
        del self.free[block]
        self.ref_counts[block] = 1
        if not keep and (name := self.name_of.pop(block, None)):
            del self.block_of[name]
        return block

    def _name(self, sequence: Sequence, index: int) -> bytes:
        """The chained hash of a sequence's block; each is computed once."""
        hashes = sequence.hashes
        while len(hashes) <= index:
            start = len(hashes) * self.block_size
            tokens = sequence.tokens(start, start + self.block_size)
            hashes.append(chain_hash(hashes[-1] if hashes else ROOT, tokens))
        return hashes[index]
