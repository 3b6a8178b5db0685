"""Averaged GloVe: a text is the mean of its words' vectors. No order, no context, no training; and hard to shame.

Pennington, Socher and Manning 2014, "GloVe: Global Vectors for Word Representation".
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from stage1_foundations.embeddings.encoders import Encoder

WORD = re.compile(r"[^\W_]+|[^\w\s]")  # runs of letters and digits, or one mark: close to how GloVe's text was cut


class WordVectorEncoder(Encoder):
    """The mean of the vectors of a text's known words; the mean of all words where none is known.

    Args:
        words: the vocabulary, lower case.
        vectors: float32 (V, D), one row a word.
    """

    name = "glove"
    cached = False

    def __init__(self, words: Sequence[str], vectors: np.ndarray) -> None:
        self.vectors = vectors
        self.dimensions = vectors.shape[1]
        self.revision = hashlib.sha256(np.ascontiguousarray(vectors[:1000]).tobytes()).hexdigest()[:16]
        self._row_of = {word: row for row, word in enumerate(words)}
        self._unknown = vectors.mean(axis=0)

    def rows(self, text: str) -> list[int]:
        """Rows of the words of a text that are known."""
        return [row for word in WORD.findall(text.lower()) if (row := self._row_of.get(word)) is not None]

    def embed(self, texts: list[str], prompt: str = "") -> np.ndarray:
        """See `Encoder.embed`."""
        rows = [self.rows(prompt + text) for text in texts]
        means = [self.vectors[found].mean(axis=0) if found else self._unknown for found in rows]
        return np.stack(means).astype(np.float32)
