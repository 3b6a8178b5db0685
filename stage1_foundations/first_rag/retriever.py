"""A retriever by hand: dense and lexical scores of all nodes, fused.

`BaseRetriever` asks for one method, `_retrieve(query_bundle)`. Everything else (spans, events, callbacks, recursive
nodes) is done by the public `retrieve` around it.

LlamaIndex's own `VectorIndexRetriever` with the default `SimpleVectorStore` turns all vectors from lists into an array
and walks them in a Python loop, for every query. Here the matrix is made once and searched by one product.
"""

import bm25s
import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from stage1_foundations.first_rag.words import split_words


# exercise: first_rag.fuse
def fuse(dense: np.ndarray, lexical: np.ndarray, weight: float) -> np.ndarray:
    """Convex combination of standardised scores (Bruch et al. 2023, section 3; standardised by mean and deviation).

    A cosine lies between -1 and 1, a BM25 score has no upper end: only after each is centred and divided by its
    deviation over the corpus can they be added. Scores that are all equal say nothing and count 0.

    Args:
        dense: scores of all nodes (N,), higher is better.
        lexical: the same for the other retriever (N,).
        weight: of the dense scores, 0 to 1.

    Returns:
        Fused scores (N,).
    """

    def standardise(scores: np.ndarray) -> np.ndarray:
        deviation = scores.std()
        return (scores - scores.mean()) / deviation if deviation > 1e-9 else np.zeros_like(scores)

    return weight * standardise(dense) + (1 - weight) * standardise(lexical)


# end exercise


class FusionRetriever(BaseRetriever):
    """Dense and BM25 retrieval over one index.

    Nodes come in the order of the fused score; their `score` is the cosine, because a fused score means nothing
    outside its own query, and the evidence gate compares scores of different queries.

    Args:
        index: an index over a SimpleVectorStore.
        embedding: the model that made its vectors.
        top_k: how many nodes; fewer where the corpus has fewer.
        weight: of the dense scores; 1 is dense alone, 0 is BM25 alone.
    """

    def __init__(self, index: VectorStoreIndex, embedding: BaseEmbedding, top_k: int = 3, weight: float = 0.6) -> None:
        super().__init__()
        vectors = index.vector_store.data.embedding_dict
        self._nodes = index.docstore.get_nodes(list(vectors))
        matrix = np.array([vectors[node.node_id] for node in self._nodes], dtype=np.float32)  # (N, D)
        self._matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
        self._lexical = bm25s.BM25()
        words = [split_words(node.get_content()) or [""] for node in self._nodes]
        self._lexical.index(words, show_progress=False)
        self._embedding, self.top_k, self.weight = embedding, top_k, weight

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if query_bundle.embedding is None:
            query_bundle.embedding = self._embedding.get_query_embedding(query_bundle.query_str)
        query = np.asarray(query_bundle.embedding, dtype=np.float32)  # (D,)
        dense = self._matrix @ (query / max(float(np.linalg.norm(query)), 1e-12))  # (N,)
        lexical = self._lexical_scores(query_bundle.query_str)  # (N,)
        order = np.argsort(-fuse(dense, lexical, self.weight), kind="stable")[: self.top_k]
        return [NodeWithScore(node=self._nodes[i], score=float(dense[i])) for i in order]

    def _lexical_scores(self, question: str) -> np.ndarray:
        """BM25 of all nodes; zeros when the corpus has no word of the question."""
        words = [word for word in split_words(question) if word in self._lexical.vocab_dict]
        return self._lexical.get_scores(words) if words else np.zeros(len(self._nodes), np.float32)
