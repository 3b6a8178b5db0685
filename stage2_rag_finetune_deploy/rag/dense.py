"""Dense retrieval: the passage with the vector nearest to the query's, and why one vector a passage is too few.

A question asks about one sentence; the mean over a passage of eight sentences drowns it. So a passage gets a vector
for every stretch of `window` tokens, and counts as its best one. The stretches are averages of token vectors that
have read the whole passage, so they cost no further pass through the encoder (late chunking, Günther et al. 2024).
"""

import numpy as np

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Hit
from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder, TokenVectors
from stage2_rag_finetune_deploy.vector_db.filters import Filter

WINDOW = 16  # tokens, about half a sentence


# exercise: rag.window_vectors
def window_vectors(passage: TokenVectors, window: int) -> np.ndarray:
    """Mean vectors of overlapping stretches of a passage, each of length 1.

    A stretch of `window` tokens begins every half window; the last one holds the last token, and may be shorter.
    A window of 0, or one as long as the passage, gives the mean of the whole passage.

    Args:
        passage: T tokens.
        window: in tokens, even.

    Returns:
        float32 (W, D).
    """
    vectors = passage.vectors  # (T, D)
    step = max(1, window // 2)
    starts = range(0, max(1, len(vectors) - window + step), step) if window else [0]
    means = np.stack([vectors[start : start + window if window else None].mean(axis=0) for start in starts])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


# end exercise


class DenseRetriever:
    """Exact search over vectors in memory, by cosine.

    Args:
        corpus: the passages.
        encoder: reads passages and queries.
        window: tokens of a stretch; 0 is one vector for the whole passage.

    Attributes:
        vectors: (V, D), of all passages one after the other. starts: (N,) where each passage begins.
    """

    def __init__(self, corpus: Corpus, encoder: TokenEncoder, window: int = WINDOW) -> None:
        if window < 0 or window % 2:
            raise LabError(f"a window of {window} tokens", "an even number, or 0 for whole passages")
        self.corpus, self.encoder = corpus, encoder
        self.name = f"dense-{window}" if window else "dense"
        parts = [window_vectors(passage, window) for passage in encoder.passages(corpus.texts)]
        self.vectors = np.concatenate(parts)
        self.starts = np.cumsum([0, *(len(part) for part in parts[:-1])])

    def scores(self, query: str) -> np.ndarray:
        """(N,) the cosine of the best stretch of each passage."""
        return np.maximum.reduceat(self.vectors @ self.encoder.query(query).mean, self.starts)

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`."""
        return self.corpus.best(self.name, self.scores(query), k, filter)
