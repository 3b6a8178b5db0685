"""What the cross-encoder and the language model share: a model that reads a query and a passage together."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labkit.embedding_cache import EmbeddingCache
from stage2_rag_finetune_deploy.rag.reranker import Reranker
from stage2_rag_finetune_deploy.rag.retriever import Hit

Pair = tuple[str, str]  # query, passage
SEPARATOR = "\x1e"  # ASCII's record separator: in no text that anyone reads


class PairReranker(Reranker):
    """Scores pairs one by one; nothing can be computed before the question is there.

    Attributes:
        revision: changes when the scores of a pair would.
    """

    revision: str

    @abstractmethod
    def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
        """(N,) larger is better."""

    def score(self, query: str, hits: Sequence[Hit]) -> np.ndarray:
        """See `Reranker.score`."""
        return self.score_pairs([(query, hit.text) for hit in hits])


class RememberedScores(PairReranker):
    """A pair reranker that keeps every score on disk, so that a long evaluation can be done in pieces.

    Args:
        inner: what scores the pairs that are not there yet.
        root: where the file lies; by default the course's cache.
    """

    def __init__(self, inner: PairReranker, root: Path | None = None) -> None:
        self.inner, self.name, self.depth, self.weight = inner, inner.name, inner.depth, inner.weight
        self.revision = inner.revision
        self._cache = EmbeddingCache(f"scores-{inner.name}", inner.revision, 1, root)

    def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See `PairReranker.score_pairs`."""

        def score(texts: list[str]) -> np.ndarray:
            return self.inner.score_pairs([tuple(text.split(SEPARATOR)) for text in texts])[:, None]

        texts = [f"{query.replace(SEPARATOR, ' ')}{SEPARATOR}{text.replace(SEPARATOR, ' ')}" for query, text in pairs]
        return self._cache.encode(texts, score)[:, 0]


def revision_of(*parts: object) -> str:
    """A revision from whatever decides the scores."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
