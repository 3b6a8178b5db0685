"""Each test names the bug that it catches."""

import numpy as np
import pytest

from stage1_foundations.embeddings.word_vectors import WordVectorEncoder

VECTORS = np.array([[1, 0], [0, 1], [4, 4]], np.float32)


@pytest.fixture
def encoder() -> WordVectorEncoder:
    """Three words in two dimensions."""
    return WordVectorEncoder(["sea", "ship", "."], VECTORS)


def test_a_text_is_the_mean_of_its_words(encoder):
    """Catches: a sum, case that matters, marks that are lost, unknown words that count as zero."""
    np.testing.assert_allclose(encoder.embed(["Sea sea ship unheard"]), [[2 / 3, 1 / 3]], atol=1e-6)
    np.testing.assert_allclose(encoder.embed(["sea."]), [[2.5, 2]])


def test_nothing_known_is_the_middle(encoder):
    """Catches: NaN for an empty text, or a text in another language."""
    np.testing.assert_allclose(encoder.embed(["", "船"]), [VECTORS.mean(axis=0)] * 2)
