"""How likely a text is to a language model that had no part in it: SmolLM2-135M-Instruct.

Word lists do not notice "the the of and"; a language model does. Its bits per character depend on the period
and the subject, so a figure alone says little: real text (0) and the same text shuffled (1) set the scale.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

import data
from labkit.device import choose_dtype

NAME = "smollm2-135m-instruct"
BATCH = 5


class IndependentModel:
    """SmolLM2 as a reader. Loading takes a few seconds; bfloat16 where the processor has it."""

    def __init__(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        folder = data.fetch(NAME)
        logging.disable_progress_bar()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=choose_dtype("auto", "cpu")).eval()

    def bits_per_character(self, texts: Sequence[str]) -> list[float]:
        """Surprise at each text divided by its length; empty texts are left out."""
        texts = [text for text in texts if text]
        batches = (texts[first : first + BATCH] for first in range(0, len(texts), BATCH))
        return [bits for batch in batches for bits in self._batch(batch)]

    @torch.inference_mode()
    def _batch(self, texts: Sequence[str]) -> list[float]:
        start = self._tokenizer.bos_token_id
        rows = [[start, *self._tokenizer(text, add_special_tokens=False).input_ids] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [start] * (longest - len(row)) for row in rows])  # (B, T)
        counted = torch.tensor([[1.0] * (len(row) - 1) + [0.0] * (longest - len(row)) for row in rows])
        logits = self._model(input_ids=ids[:, :-1]).logits.float()  # padding comes last, unseen
        nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * counted  # (B, T - 1)
        return [n / math.log(2) / len(text) for n, text in zip(nats.sum(1).tolist(), texts, strict=True)]


def on_scale(bits: float, real: float, shuffled: float) -> float:
    """Place a figure: 0 is real text, 1 is shuffled text, beyond 1 is worse than shuffled."""
    return (bits - real) / (shuffled - real)
