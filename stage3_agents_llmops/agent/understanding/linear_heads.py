"""Logistic regression that is asked and no longer trained: scikit-learn's fitted heads in NumPy.

A service that reads one message at a time needs a product and a softmax of it. Importing scikit-learn for that, with
SciPy's statistics and pandas behind it, was a quarter of the service's start (agent/NOTES.md). Tests compare every
probability with scikit-learn's own.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LENGTHS = range(1, 5)  # characters of an n-gram


@dataclass(frozen=True)
class VectorHead:
    """Multinomial logistic regression on vectors.

    Attributes:
        classes: K labels.
        coef: (K, D). intercept: (K,).
    """

    classes: list[str]
    coef: np.ndarray
    intercept: np.ndarray

    @classmethod
    def of(cls, fitted: Any) -> "VectorHead":
        """From scikit-learn's LogisticRegression, fitted on three classes or more."""
        return cls([str(label) for label in fitted.classes_], fitted.coef_, fitted.intercept_)

    def predict_proba(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (N, D) to probabilities (N, K)."""
        return softmax(vectors @ self.coef.T + self.intercept)


class TextHead:
    """The same on weighted counts of a text's n-grams.

    Args:
        ngrams: n-gram -> its column.
        idf: (G,) weights of the n-grams.
        head: on G columns.
    """

    def __init__(self, ngrams: Mapping[str, int], idf: np.ndarray, head: VectorHead) -> None:
        self.ngrams, self.idf, self.head = ngrams, idf, head
        self._rows = np.ascontiguousarray(head.coef.T)  # (G, K): a text needs a few hundred rows

    @classmethod
    def of(cls, fitted: Any) -> "TextHead":
        """From a fitted pipeline of `classifier.ngram_counter` and LogisticRegression."""
        counter, head = fitted.steps[0][1], fitted.steps[-1][1]
        return cls({ngram: int(column) for ngram, column in counter.vocabulary_.items()}, counter.idf_,
                   VectorHead.of(head))  # fmt: skip

    @property
    def classes(self) -> list[str]:
        """K labels."""
        return self.head.classes

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Texts in lower case to probabilities (N, K)."""
        return softmax(np.stack([self._scores(text) for text in texts]))

    def _scores(self, text: str) -> np.ndarray:
        """(K,) before the softmax. A count c weighs (1 + log c) * idf, and all weights have length 1 together."""
        counts = Counter(self.ngrams[ngram] for ngram in ngrams_of(text) if ngram in self.ngrams)
        if not counts:
            return self.head.intercept
        columns = np.fromiter(counts, np.int64, len(counts))
        weights = (1 + np.log(np.fromiter(counts.values(), np.float64, len(counts)))) * self.idf[columns]
        return weights / np.linalg.norm(weights) @ self._rows[columns] + self.head.intercept


def ngrams_of(text: str) -> Iterator[str]:
    """Characters that stand together within a word, with a blank on either side of it: scikit-learn's `char_wb`.

    A word shorter than a length counts once, as a whole.
    """
    for word in text.split():
        padded = f" {word} "
        for length in LENGTHS:
            yield padded[:length]
            if length >= len(padded):
                break
            for start in range(1, len(padded) - length + 1):
                yield padded[start : start + length]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Rows to probabilities."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
