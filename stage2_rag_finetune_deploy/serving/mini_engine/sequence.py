"""A request on its way through the engine: its tokens, how many of them are computed, and where they lie."""

from dataclasses import dataclass, field

from stage2_rag_finetune_deploy.serving.mini_engine.sampling_params import SamplingParams


@dataclass(eq=False)
class Sequence:
    """The tokens of one request and its pages in the cache.

    Attributes:
        block_table: the i-th entry is the block that holds tokens [i * block_size, (i + 1) * block_size).
        computed: tokens whose keys and values are in the cache; the rest waits for a forward pass.
        hashes: of the full blocks that were hashed so far (block_manager.py).
        cached: tokens of the prompt that were found in the prefix cache when it was first admitted.
        finish_reason: "stop", "length" or "abort" once it has ended.
    """

    request_id: str
    prompt_ids: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int = 16
    output_ids: list[int] = field(default_factory=list)
    block_table: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    computed: int = 0
    cached: int | None = None
    preemptions: int = 0
    finish_reason: str | None = None

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def remaining(self) -> int:
        """Tokens that are known but not computed: the prompt at first, one while decoding."""
        return len(self) - self.computed

    def tokens(self, start: int, stop: int) -> list[int]:
        """Ids of a range of positions, of prompt and output alike."""
        split = len(self.prompt_ids)
        if start >= split:
            return self.output_ids[start - split : stop - split]
        return self.prompt_ids[start:stop] + self.output_ids[: max(0, stop - split)]
