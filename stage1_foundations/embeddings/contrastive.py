"""The loss that makes an encoder: find your own passage among those of the whole batch.

For a batch of N pairs (query, passage) every passage of another pair serves as a negative, free of charge. With the
cosines s(q, p) and a temperature t the loss of query i is a cross-entropy over the batch,

    L_i = -log( exp(s(q_i, p_i) / t) / sum_j exp(s(q_i, p_j) / t) )

InfoNCE: van den Oord, Li and Vinyals 2018, equation 4; with in-batch negatives for text: Henderson et al. 2017,
section 4.3. sentence-transformers calls it MultipleNegativesRankingLoss, and its `scale` is 1 / t.
"""

import torch
from torch import Tensor
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


def chance_loss(batch: int) -> float:
    """The loss of a model that cannot tell the passages of a batch apart: log N. A start near it is no bug."""
    return float(torch.tensor(float(batch)).log())
