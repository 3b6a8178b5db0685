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
        return [self._bits(text) / len(text) for text in texts if text]

    @torch.inference_mode()
    def _bits(self, text: str) -> float:
        ids = [self._tokenizer.bos_token_id, *self._tokenizer(text, add_special_tokens=False).input_ids]
        logits = self._model(input_ids=torch.tensor([ids[:-1]])).logits[0]  # (T, V)
        return F.cross_entropy(logits.float(), torch.tensor(ids[1:]), reduction="sum").item() / math.log(2)


def on_scale(bits: float, real: float, shuffled: float) -> float:
    """Place a figure: 0 is real text, 1 is shuffled text, beyond 1 is worse than shuffled."""
    return (bits - real) / (shuffled - real)
