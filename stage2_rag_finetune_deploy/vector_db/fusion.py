"""Reciprocal rank fusion: two rankings whose scores cannot be compared become one (Cormack et al. 2009).

A cosine lies between -1 and 1, a BM25 score has no upper end. Ranks can be added.
"""

from collections.abc import Sequence

RANK_CONSTANT = 60  # Cormack's; Milvus' RRFRanker and Weaviate's ranked fusion have the same default


# exercise: vector_db.rrf_fuse
def rrf_fuse(
    rankings: Sequence[Sequence[str]], weights: Sequence[float], constant: int = RANK_CONSTANT
) -> list[tuple[str, float]]:
    """The ids of all rankings, best first, with their scores.

    Args:
        rankings: ids, best first; an id counts once in each.
        weights: of each ranking; (alpha, 1 - alpha) for dense and lexical. A ranking of weight 0 adds nothing.
        constant: how much the first ranks are flattened.

    Returns:
        (id, score), score = sum of weight / (constant + rank) with ranks from 1. Ties in order of first appearance.
    """
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, name in enumerate(dict.fromkeys(ranking), start=1):
            if weight > 0:
                scores[name] = scores.get(name, 0.0) + weight / (constant + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
# end exercise
