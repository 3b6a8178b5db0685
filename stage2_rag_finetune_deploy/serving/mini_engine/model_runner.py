"""One forward pass for one step: chunks in, the next token of every sequence that is complete out."""

import importlib.util
from pathlib import Path

import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.mini_engine.attention import Attention, make_batch
from stage2_rag_finetune_deploy.serving.mini_engine.checkpoint import read_config, read_weights
from stage2_rag_finetune_deploy.serving.mini_engine.llama import Llama
from stage2_rag_finetune_deploy.serving.mini_engine.sampler import sample
from stage2_rag_finetune_deploy.serving.mini_engine.scheduler import Chunk
from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence

ATTENTION = ("auto", "kernel", "gather")


class ModelRunner:
    """The model, its cache, and what happens with a batch."""

    def __init__(self, folder: Path, adapter: Path | None, dtype: torch.dtype, device: torch.device) -> None:
        self.config = read_config(folder)
        self.model = Llama(self.config, read_weights(folder, adapter), dtype, device)
        self.dtype, self.device = dtype, device
        self.attention: Attention | None = None

    @property
    def bytes_a_token(self) -> int:
        """Memory of one token's keys and values in all layers."""
        c = self.config
        return 2 * c.layers * c.kv_heads * c.head_dim * self.dtype.itemsize

    def allocate(self, num_blocks: int, block_size: int, max_model_len: int, attention: str = "auto") -> None:
        """Make the cache.

        Args:
            attention: "kernel" for the compiled form (a processor, float32 or bfloat16, heads and blocks of a multiple
                of 16), "gather" for the readable one, "auto" for the first where it is possible.
        """
        possible = (
            self.device.type == "cpu" and self.dtype != torch.float16 and block_size % 16 == 0
            and self.config.head_dim % 16 == 0 and importlib.util.find_spec("numba") is not None
        )  # fmt: skip
        if attention == "kernel" and not possible:
            raise LabError("the attention kernel wants a processor, fp32 or bf16, heads and blocks of 16, 32, ...",
                           'attention="gather"')  # fmt: skip
        kind = Attention
        if possible and attention != "gather":
            from stage2_rag_finetune_deploy.serving.mini_engine.kernel_attention import KernelAttention as kind
        self.block_size = block_size
        self.attention = kind(self.config, num_blocks, block_size, max_model_len, self.dtype, self.device)

    @torch.inference_mode()
    def run(self, chunks: list[Chunk], seeds: dict[str, int]) -> dict[Sequence, int]:
        """Compute the chunks; the token that each complete sequence samples."""
        batch = make_batch(chunks, self.block_size)
        self.attention.prepare(batch)
        ids, wanted = (torch.tensor(each, dtype=torch.long, device=self.device) for each in (batch.ids, batch.wanted))
        logits = self.model.forward(ids, wanted, self.attention)
        sequences = [chunk.sequence for chunk in chunks if chunk.samples]
        if not sequences:
            return {}
        tokens = sample(logits, sequences, [seeds[sequence.request_id] for sequence in sequences])
        return dict(zip(sequences, tokens, strict=True))
