"""The language model as a judge that writes nothing: how likely is this question, had I read this passage?

Query likelihood (Ponte and Croft 1998; with a language model, UPR, Sachan et al. 2022). The score of a passage is the
mean log-probability of the question's tokens after "Please write a question based on this passage". It needs no
training and one pass a passage; a model of 135 M parameters that cannot say whether a passage is relevant can still
be surprised by a question.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labkit.device import choose_dtype
from labkit.runs import digest
from stage2_rag_finetune_deploy.rag.pair_reranker import Pair, PairReranker, revision_of

DEPTH = 10
WEIGHT = 0.5
LONGEST = 256  # tokens of the passage
BATCH = 10
INSTRUCTION = "Please write a question based on this passage."


# exercise: rag.mean_log_likelihood
def mean_log_likelihood(logits: Any, targets: Any, mask: Any) -> Any:
    """How likely each row's targets are on average: the mean of log softmax(logits)[target] over the masked places.

    Args:
        logits: (B, T, V), `logits[b, t]` predicts `targets[b, t]`; any float type, computed in float32.
        targets: (B, T) token numbers.
        mask: (B, T) bool; each row has at least one place.

    Returns:
        float32 (B,), at most 0.
    """
    chosen = logits.float().log_softmax(dim=-1).gather(-1, targets[..., None])[..., 0]  # (B, T)
    return (chosen * mask).sum(dim=1) / mask.sum(dim=1)


# end exercise


class QueryLikelihood(PairReranker):
    """A causal language model with a chat template.

    Args:
        folder: of the model.
        depth, weight: see `Reranker`.
    """

    name = "query-likelihood"

    def __init__(self, folder: Path, depth: int = DEPTH, weight: float = WEIGHT) -> None:
        self.folder, self.depth, self.weight = Path(folder), depth, weight
        self.revision = revision_of(digest(self.folder)[0], INSTRUCTION, LONGEST)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def model(self) -> Any:
        """The weights, in bfloat16 where the processor computes in it."""
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        return AutoModelForCausalLM.from_pretrained(self.folder, dtype=choose_dtype("auto", "cpu")).eval()

    def _prompt(self, passage: str) -> list[int]:
        """The passage and the instruction as the user's message, up to where the answer begins."""
        ids = self.tokenizer(passage, add_special_tokens=False, truncation=True, max_length=LONGEST)["input_ids"]
        message = {"role": "user", "content": f"Passage: {self.tokenizer.decode(ids)}\n{INSTRUCTION}"}
        text = self.tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The mean log-likelihood of each question, (N,). Pairs of similar length share a batch."""
        rows = [(self._prompt(text), self.tokenizer(query, add_special_tokens=False)["input_ids"] or [0])
                for query, text in pairs]  # fmt: skip
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row][0]))
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            scores[part] = self._score_batch([rows[row] for row in part])
        return scores

    def _score_batch(self, rows: Sequence[tuple[list[int], list[int]]]) -> np.ndarray:
        """The vocabulary of 49,152 is the dearest part, so logits are made only where the question stands."""
        import torch

        longest, most = max(len(head) + len(tail) for head, tail in rows), max(len(tail) for _, tail in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        attention, mask = torch.zeros_like(ids), torch.zeros(len(rows), most, dtype=torch.bool)
        places, targets = torch.zeros_like(mask, dtype=torch.long), torch.zeros_like(mask, dtype=torch.long)
        for row, (head, tail) in enumerate(rows):
            ids[row, : len(head) + len(tail)] = torch.tensor(head + tail)
            attention[row, : len(head) + len(tail)] = 1
            mask[row, : len(tail)], targets[row, : len(tail)] = True, torch.tensor(tail)
            places[row, : len(tail)] = torch.arange(len(head) - 1, len(head) + len(tail) - 1)  # each predicts the next
        with torch.inference_mode():
            states = self.model.model(input_ids=ids, attention_mask=attention).last_hidden_state  # (B, T, D)
            asked = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))  # (B, Q, D)
            return mean_log_likelihood(self.model.lm_head(asked), targets, mask).numpy()
