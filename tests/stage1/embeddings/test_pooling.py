"""Oracle: sentence-transformers' Pooling layer. Each test names the bug that it catches."""

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from stage1_foundations.embeddings.encoders import unit_length
from stage1_foundations.embeddings.pooling import POOLINGS, mean_pool, pool, pooled


@pytest.fixture
def states() -> torch.Tensor:
    """(4, 7, 16)"""
    return torch.randn(4, 7, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> torch.Tensor:
    """(4, 7), texts of 7, 3, 1 and 5 tokens."""
    return (torch.arange(7) < torch.tensor([7, 3, 1, 5])[:, None]).long()


@pytest.mark.parametrize("kind", ["mean", "cls", "max"])
def test_equals_the_librarys_layer(states, mask, kind):
    """Catches: padding averaged in, the last token for the first, a maximum over padding. The same sums: 1e-6."""
    layer = Pooling(16, pooling_mode=kind)
    theirs = layer({"token_embeddings": states.clone(), "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(pool(states, mask, kind), theirs, atol=1e-6, rtol=0)


def test_mean_does_not_see_padding(states, mask):
    """Catches: a vector that depends on the longest text of the batch."""
    garbage = torch.where(mask[..., None] == 1, states, torch.full_like(states, 1e6))
    torch.testing.assert_close(mean_pool(garbage, mask), mean_pool(states, mask))
    assert not torch.allclose(pool(garbage, mask, "mean with padding"), mean_pool(states, mask))


def test_no_text_is_no_nan(states):
    """Catches: a division by zero tokens."""
    assert mean_pool(states, torch.zeros(4, 7)).eq(0).all()


def test_unknown_pooling(states, mask):
    """Catches: a silent fallback."""
    with pytest.raises(ValueError, match="pooling is one of"):
        pool(states, mask, "median")


def test_pooled_mean_is_what_the_model_encodes(tiny):
    """Catches: a pass of our own that forgets the prompt or the order of the texts."""
    tiny.prompts = {"query": "query: ", "passage": "", "symmetric": ""}
    texts = ["ask1 ask2 ask3", "ask4", "ask5 ask6"] * 15  # more than a batch, of different lengths
    found = pooled(tiny, texts, "query")
    assert set(found) == set(POOLINGS)
    np.testing.assert_allclose(unit_length(found["mean"]), tiny.encode_now(texts, "query"), atol=1e-5)
    assert np.abs(found["mean"] - found["mean with padding"]).max() > 1e-3
