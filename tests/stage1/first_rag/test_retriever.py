"""Each test names the bug that it catches."""

import bm25s
import numpy as np
import pytest

from stage1_foundations.first_rag.rag import Rag, RagConfig
from stage1_foundations.first_rag.retriever import FusionRetriever, fuse
from stage1_foundations.first_rag.words import split_words

QUERIES = ["What does the kettle hold?", "the highest speed", "Zephyr", "Which clock stops at noon?", "nothing of it"]


@pytest.mark.parametrize("query", QUERIES)
def test_dense_ranking_equals_llamaindexs(index, embedding, query):
    """Catches: another order or another cosine than VectorIndexRetriever's on the same index.

    The tolerance is float32's: 384 products added in another order.
    """
    ours = FusionRetriever(index, embedding, top_k=6, weight=1.0).retrieve(query)
    theirs = index.as_retriever(similarity_top_k=6).retrieve(query)
    assert [item.node.node_id for item in ours] == [item.node.node_id for item in theirs]
    assert [item.score for item in ours] == pytest.approx([item.score for item in theirs], abs=1e-6)


@pytest.mark.parametrize("query", QUERIES[:4])
def test_lexical_ranking_equals_bm25s(index, embedding, query):
    """Catches: BM25 scores that belong to other nodes, or a weight that is applied the wrong way round."""
    ours = FusionRetriever(index, embedding, top_k=6, weight=0.0).retrieve(query)
    nodes = list(index.docstore.docs.values())
    judge = bm25s.BM25()
    judge.index([split_words(node.get_content()) for node in nodes], show_progress=False)
    positions, scores = judge.retrieve([split_words(query)], k=6, show_progress=False)
    matching = int((scores[0] > 0).sum())
    assert matching > 0
    best = [nodes[position].node_id for position in positions[0][:matching]]
    assert [item.node.node_id for item in ours][:matching] == best


def test_fuse_by_hand():
    """Catches: scores added as they are, so that BM25 drowns the cosine; a weight for the wrong side."""
    dense, lexical = np.array([1.0, 3.0]), np.array([200.0, 100.0])
    assert fuse(dense, lexical, 1.0) == pytest.approx([-1, 1])
    assert fuse(dense, lexical, 0.0) == pytest.approx([1, -1])
    assert fuse(dense, lexical, 0.75) == pytest.approx([-0.5, 0.5])


def test_fuse_of_equal_scores_says_nothing():
    """Catches: a division by zero when no node has a word of the question."""
    assert fuse(np.array([1.0, 3.0]), np.zeros(2), 0.5) == pytest.approx([-0.5, 0.5])


def test_a_question_of_unknown_words_is_ranked_by_vectors(index, embedding):
    """Catches: BM25 that fails on a word outside its vocabulary."""
    both = FusionRetriever(index, embedding, top_k=6).retrieve("qwertz 没有")
    dense = FusionRetriever(index, embedding, top_k=6, weight=1.0).retrieve("qwertz 没有")
    assert [item.node.node_id for item in both] == [item.node.node_id for item in dense]


@pytest.mark.parametrize("retriever", ["vector", "fusion"])
def test_k_larger_than_the_corpus(index, embedding, retriever):
    """Catches: an index out of range, or nodes that come twice to fill up k."""
    rag = Rag(index, embedding, RagConfig(retriever=retriever, top_k=1000, threshold=0.0))
    found = [item.node.node_id for item in rag.retrieve(QUERIES[0])]
    assert sorted(found) == sorted(index.docstore.docs)
    assert not rag.ask(QUERIES[0]).refused


def test_a_retriever_that_was_made_before_works_in_llamaindexs_engine(index, embedding):
    """Catches: a `_retrieve` that does not fit BaseRetriever, so that only our own code can call it."""
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine

    engine = RetrieverQueryEngine.from_args(FusionRetriever(index, embedding, top_k=2), llm=MockLLM())
    response = engine.query("What does the kettle hold?")
    assert response.source_nodes[0].node.metadata["source"] == "kettle"
