"""Late interaction: every word piece of the query looks for its best partner in the passage (ColBERT's MaxSim).

The embedding of a passage answers "what is this about?", and is made without knowing the question. Keeping all token
vectors puts the decision off until the question is there: "1932" can look for a year, "who" for a name. The passage's
vectors are made in advance, so a query costs one short pass and a product of small matrices.

Khattab and Zaharia 2020, equation 3, with three differences. The encoder was never trained for it. Each word piece of
the query counts by its rarity in the corpus, as in BM25, because an untrained encoder thinks much of "the". And half
of the score is for partners that stand near each other: in a passage of ten sentences every word of the question has
some partner somewhere, but the answer is one sentence.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import maximum_filter1d

from stage2_rag_finetune_deploy.rag.reranker import Reranker
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Hit
from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder, TokenVectors

DEPTH = 30
WEIGHT = 0.7
NEAR = 16  # tokens, about half a sentence


# exercise: rag.max_sim
def max_sim(query: np.ndarray, passage: np.ndarray, weights: np.ndarray, near: int) -> float:
    """How well a passage answers, token by token: the mean of two sums over the query's tokens.

    The first sum takes for each token of the query its largest cosine with any token of the passage. The second one
    does the same within a stretch of `near` neighbouring tokens, the best stretch of the passage.

    Args:
        query: (Q, D) token vectors of length 1.
        passage: (T, D) token vectors of length 1.
        weights: (Q,) of the query's tokens, not negative; their sum is not 0.
        near: length of a stretch in tokens; one as long as the passage makes both sums equal.

    Returns:
        -1 to 1.
    """
    similarities = query @ passage.T  # (Q, T)
    anywhere = weights @ similarities.max(axis=1)
    together = (weights @ maximum_filter1d(similarities, near, axis=1)).max()  # (T,) stretches, the best of them
    return float((anywhere + together) / (2 * weights.sum()))
# end exercise


def token_rarity(passages: Sequence[TokenVectors], vocabulary: int) -> np.ndarray:
    """(V,) inverse document frequency of every word piece: log(1 + (N - n + 0.5) / (n + 0.5)), BM25's.

    What every passage has, special tokens among them, is worth next to nothing.
    """
    counts = np.zeros(vocabulary)
    for passage in passages:
        counts[np.unique(passage.ids)] += 1
    return np.log1p((len(passages) - counts + 0.5) / (counts + 0.5))


class LateInteraction(Reranker):
    """MaxSim over the hits of a first stage.

    Args:
        corpus: the passages that hits may come from; their token vectors stay in memory, one byte a number.
        encoder: the one that reads the queries.
        depth, weight: see `Reranker`.
    """

    name = "late-interaction"

    def __init__(
        self, corpus: Corpus, encoder: TokenEncoder, depth: int = DEPTH, weight: float = WEIGHT
    ) -> None:
        self.encoder, self.depth, self.weight = encoder, depth, weight
        self._passages = dict(zip(corpus.ids, encoder.passages(corpus.texts), strict=True))
        self._rarity = token_rarity(list(self._passages.values()), encoder.vocabulary)

    def score(self, query: str, hits: Sequence[Hit]) -> np.ndarray:
        """See `Reranker.score`."""
        asked = self.encoder.query(query)
        similar = asked.vectors / np.maximum(asked.lengths, 1e-9)[:, None]  # (Q, D)
        weights = np.maximum(self._rarity[asked.ids], 1e-6)
        return np.array([max_sim(similar, self._unit(hit.id), weights, NEAR) for hit in hits])

    def _unit(self, name: str) -> np.ndarray:
        """(T, D) the token vectors of a passage, each of length 1. Their scales cancel out."""
        passage = self._passages[name]
        return passage.codes * (passage.scales / np.maximum(passage.lengths, 1e-9))[:, None]
