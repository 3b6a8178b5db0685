"""The loss that makes an encoder: find your own passage among those of the whole batch.

For a batch of N pairs (query, passage) every passage of another pair serves as a negative, free of charge. With the
cosines s(q, p) and a temperature t the loss of query i is a cross-entropy over the batch,

    L_i = -log( exp(s(q_i, p_i) / t) / sum_j exp(s(q_i, p_j) / t) )

InfoNCE: van den Oord, Li and Vinyals 2018, equation 4; with in-batch negatives for text: Henderson et al. 2017,
section 4.3. sentence-transformers has it as MultipleNegativesRankingLoss with `scale` = 1 / t: the oracle of the tests.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


# exercise: embeddings.in_batch_loss
def in_batch_loss(queries: Tensor, passages: Tensor, temperature: float = 0.05) -> Tensor:
    """Mean InfoNCE loss of a batch, a scalar.

    Args:
        queries: (N, D), any length.
        passages: (N, D); row i belongs to query i, every other row is a negative.
        temperature: how sharply the softmax looks: 0.05 here and in sentence-transformers, 0.01 in E5.
    """
    queries, passages = F.normalize(queries, dim=-1), F.normalize(passages, dim=-1)
    logits = queries @ passages.T / temperature  # (N, N); the right answer of row i is column i
    return F.cross_entropy(logits, torch.arange(len(queries), device=queries.device))
# end exercise


class InBatchLoss(nn.Module):
    """The loss in the shape that sentence-transformers' trainer calls.

    Args:
        model: a SentenceTransformer; the trainer may exchange it for its wrapped self.
        temperature: see `in_batch_loss`.
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of tokenized (queries, passages)."""
        queries, passages = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return in_batch_loss(queries, passages, self.temperature)


def chance_loss(batch: int) -> float:
    """The loss of a model that cannot tell the passages of a batch apart: log N. A start near it is no bug."""
    return float(torch.tensor(float(batch)).log())
