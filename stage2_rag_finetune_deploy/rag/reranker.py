"""The interface of the second stage: hits in, the same hits in a better order out.

A reranker looks at the query and a passage together, which is too dear for a whole corpus and cheap for twenty hits.
Its score and the first stage's are added, both standardised over these hits: each catches what the other misses.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.hybrid import standardise
from stage2_rag_finetune_deploy.rag.retriever import Hit, Retriever
from stage2_rag_finetune_deploy.vector_db.filters import Filter


def blend(before: np.ndarray, after: np.ndarray, weight: float) -> np.ndarray:
    """`weight` of the new scores and the rest of the old ones, each standardised over the same hits.

    Args:
        before: (N,) scores of the first stage.
        after: (N,) scores of the reranker, on any scale.
        weight: 1 is the reranker alone, 0 changes nothing in the order.
    """
    return weight * standardise(after) + (1 - weight) * standardise(before)


class Reranker(ABC):
    """Orders hits anew.

    Attributes:
        name: for tables; its scores appear under it in `Hit.scores`.
        depth: how many hits it looks at; those below keep their order, behind them.
        weight: of its own score against the first stage's.
    """

    name: str
    depth: int
    weight: float

    @abstractmethod
    def score(self, query: str, hits: Sequence[Hit]) -> np.ndarray:
        """(N,) how well each hit fits the query, larger is better, on a scale of its own."""

    def rerank(self, query: str, hits: Sequence[Hit], k: int) -> list[Hit]:
        """The best `k`, best first. No hits give none.

        Raises:
            LabError: k is below 1.
        """
        if k < 1:
            raise LabError(f"k is {k}", "k of 1 or more")
        top, rest = list(hits[: self.depth]), list(hits[self.depth :])
        if not top:
            return []
        scores = np.asarray(self.score(query, top), np.float64)
        blended = blend(np.array([hit.score for hit in top]), scores, self.weight)
        order = np.argsort(-blended, kind="stable")
        best = [top[row].scored(self.name, float(scores[row])) for row in order]
        values = np.concatenate([blended[order], below(float(blended.min()), len(rest))])
        return [hit.scored("final", float(value)) for hit, value in zip([*best, *rest], values, strict=True)][:k]


def below(lowest: float, count: int) -> np.ndarray:
    """Falling scores under `lowest`, for the hits that were not looked at."""
    return lowest - 1.0 - np.arange(count)


class RerankedRetriever:
    """A retriever and rerankers after it, one after the other: itself a retriever.

    Args:
        retriever: the first stage.
        rerankers: cheap and deep ones first.
    """

    def __init__(self, retriever: Retriever, *rerankers: Reranker) -> None:
        self.retriever, self.rerankers = retriever, rerankers
        self.name = " + ".join([retriever.name, *(reranker.name for reranker in rerankers)])

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`."""
        depth = max([k, *(reranker.depth for reranker in self.rerankers)])
        hits = self.retriever.retrieve(query, depth, filter)
        for reranker in self.rerankers:
            hits = reranker.rerank(query, hits, depth)
        return hits[:k]
