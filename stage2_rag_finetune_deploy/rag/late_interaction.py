"""Late interaction: every word piece of the query looks for its best partner in the passage (ColBERT's MaxSim).

The embedding of a passage answers "what is this about?", and is made without knowing the question. Keeping all token
vectors puts the decision off until the question is there: "1932" can look for a year, "who" for a name. The passage's
vectors are made in advance, so a query costs one short pass and a product of small matrices.

Khattab and Zaharia 2020, equation 3, with two differences: the encoder was never trained for it, and each word piece
of the query counts by its rarity in the corpus, as in BM25, because an untrained encoder thinks much of "the".
"""

from collections.abc import Sequence

import numpy as np

from stage2_rag_finetune_deploy.rag.reranker import Reranker
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Hit
from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder, TokenVectors

DEPTH = 30
WEIGHT = 0.5


# exercise: rag.max_sim
def max_sim(query: np.ndarray, passages: np.ndarray, starts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean, over the query's tokens, of the largest cosine with a token of the passage.

    Args:
        query: (Q, D) token vectors of length 1.
        passages: (T, D) token vectors of length 1, of all passages one after the other.
        starts: (N,) where each passage begins; none is empty.
        weights: (Q,) of the query's tokens, not negative, not all zero.

    Returns:
        (N,) one score a passage, -1 to 1.
    """
    similarities = query @ passages.T  # (Q, T)
    best = np.maximum.reduceat(similarities, starts, axis=1)  # (Q, N)
    return weights @ best / weights.sum()
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
        self._rarity = token_rarity(list(self._passages.values()), len(encoder.tokenizer))

    def score(self, query: str, hits: Sequence[Hit]) -> np.ndarray:
        """See `Reranker.score`."""
        asked = self.encoder.query(query)
        found = [self._passages[hit.id] for hit in hits]
        starts = np.cumsum([0, *(len(passage.ids) for passage in found[:-1])])
        codes = np.concatenate([passage.codes for passage in found]).astype(np.float32)  # (T, D)
        lengths = np.concatenate([passage.lengths / passage.scales for passage in found])
        similar = asked.vectors / np.maximum(asked.lengths, 1e-9)[:, None]
        weights = self._rarity[asked.ids]
        return max_sim(similar, codes / np.maximum(lengths, 1e-9)[:, None], starts, np.maximum(weights, 1e-6))
