"""Two lists become one: by ranks, or by scores.

Words find names, numbers and rare terms; vectors find what is said in other words. Their mistakes differ, so their
sum beats both, if it is taken well. Ranks can always be added, but throw away how clear a win was. Scores keep it,
but must be brought to one scale first.
"""

from collections.abc import Sequence

import numpy as np

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.retriever import Hit, Retriever
from stage2_rag_finetune_deploy.vector_db.filters import Filter
from stage2_rag_finetune_deploy.vector_db.fusion import rrf_fuse

DEPTH = 100
METHODS = ("score", "rrf")


def standardise(scores: np.ndarray) -> np.ndarray:
    """Centred and divided by their deviation; zeros where all are equal, for then they say nothing."""
    scores = np.asarray(scores, np.float64)
    if not len(scores):
        return scores
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 1e-9 else np.zeros_like(scores)


# exercise: rag.fuse_scores
def fuse_scores(lists: Sequence[dict[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """Weighted sum of standardised scores (Bruch et al. 2023, section 3), over the passages of all lists.

    Each list is standardised by its own mean and deviation. A passage that is missing from a list, because the list
    was cut, gets the lowest score that the list has. An empty list adds nothing to anyone.

    Args:
        lists: passage id -> score, larger is better, on any scale.
        weights: one a list.

    Returns:
        passage id -> fused score, in no particular order.
    """
    fused = dict.fromkeys((name for scores in lists for name in scores), 0.0)
    for scores, weight in zip(lists, weights, strict=True):
        if not scores:
            continue
        standard = dict(zip(scores, standardise(list(scores.values())), strict=True))
        lowest = min(standard.values())
        for name in fused:
            fused[name] += weight * float(standard.get(name, lowest))
    return fused


# end exercise


class HybridRetriever:
    """Several retrievers, fused. They may be of any kind: what is fused are their lists.

    Args:
        retrievers: two or more; their names must differ.
        method: `score` (standardised scores) or `rrf` (reciprocal ranks).
        weights: by default all equal. They were not tuned on anything.
        depth: how many passages each retriever is asked for.

    Raises:
        LabError: an unknown method, fewer than two retrievers, or not one weight a retriever.
    """

    def __init__(
        self, retrievers: Sequence[Retriever], method: str = "score", weights: Sequence[float] | None = None,
        depth: int = DEPTH,
    ) -> None:  # fmt: skip
        if method not in METHODS:
            raise LabError(f"no fusion is called {method!r}", f"one of: {', '.join(METHODS)}")
        if len({retriever.name for retriever in retrievers}) < 2:
            raise LabError("fusion needs two retrievers of different names", "dense and bm25")
        self.weights = list(weights or [1 / len(retrievers)] * len(retrievers))
        if len(self.weights) != len(retrievers) or min(self.weights) < 0:
            raise LabError(f"{len(self.weights)} weights for {len(retrievers)} retrievers", "one for each, 0 or more")
        self.retrievers, self.method, self.depth = list(retrievers), method, depth
        self.name = f"hybrid-{method}"

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`."""
        if k < 1:
            raise LabError(f"k is {k}", "k of 1 or more")
        return self.fuse([part.retrieve(query, max(k, self.depth), filter) for part in self.retrievers], k)

    def fuse(self, lists: Sequence[list[Hit]], k: int) -> list[Hit]:
        """The best `k` of lists of hits, one a retriever; a hit keeps what each part said."""
        if self.method == "rrf":
            fused = dict(rrf_fuse([[hit.id for hit in hits] for hits in lists], self.weights))
        else:
            fused = fuse_scores([{hit.id: hit.score for hit in hits} for hits in lists], self.weights)
        merged: dict[str, Hit] = {}
        for hit in (hit for hits in lists for hit in hits):
            known = merged.get(hit.id)
            merged[hit.id] = hit if known is None else Hit(
                hit.id, hit.score, hit.text, hit.metadata, {**known.scores, **hit.scores}
            )  # fmt: skip
        best = sorted(merged, key=lambda name: -fused[name])[:k]
        return [merged[name].scored(self.name, fused[name]) for name in best]
