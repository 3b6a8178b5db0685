"""Oracle: sentence-transformers' MultipleNegativesRankingLoss. Each test names the bug that it catches."""

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn

from stage1_foundations.embeddings.contrastive import InBatchLoss, chance_loss, in_batch_loss


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """(8, 12) twice, of any length."""
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(8, 12, generator=generator, requires_grad=True)
    passages = torch.randn(8, 12, generator=generator) + queries.detach()
    return queries, passages.requires_grad_()


@pytest.mark.parametrize("temperature", [0.02, 0.05, 1.0])
def test_loss_and_gradients_equal_the_librarys(pairs, temperature):
    """Catches: the temperature multiplied, vectors not normalised, the softmax over the wrong side."""
    queries, passages = pairs
    loss = in_batch_loss(queries, passages, temperature)
    gradients = torch.autograd.grad(loss, pairs)
    library = MultipleNegativesRankingLoss(nn.Identity(), scale=1 / temperature)
    theirs = library.compute_loss_from_embeddings([queries, passages], torch.empty(0))
    torch.testing.assert_close(loss, theirs, atol=1e-5, rtol=1e-5)
    for ours, other in zip(gradients, torch.autograd.grad(theirs, pairs), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-4)


def test_two_pairs_by_hand():
    """Catches: the oracle and ours being wrong together: cosines 1 and 0, temperature 0.5."""
    rows = torch.eye(2)
    assert in_batch_loss(3 * rows, 0.1 * rows, 0.5).item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 1)))


def test_a_model_that_knows_nothing_has_the_loss_of_chance():
    """Catches: a chance line in the plot that is not the loss of equal vectors."""
    same = torch.ones(16, 4)
    assert in_batch_loss(same, same).item() == pytest.approx(chance_loss(16), abs=1e-6)


def test_module_gives_the_columns_in_their_order(pairs):
    """Catches: passages as queries: the loss is not symmetric."""
    queries, passages = pairs

    class Ready(nn.Module):
        def forward(self, features):
            return {"sentence_embedding": features["vectors"]}

    loss = InBatchLoss(Ready(), 0.05)([{"vectors": queries}, {"vectors": passages}])
    torch.testing.assert_close(loss, in_batch_loss(queries, passages, 0.05))
    assert abs(loss - in_batch_loss(passages, queries, 0.05)) > 1e-4
