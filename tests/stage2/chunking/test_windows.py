"""Windows, sentences, parents: against LlamaIndex where it has the same. Each test names the bug that it catches."""

from llama_index.core import Document
from llama_index.core.node_parser import SentenceSplitter, get_leaf_nodes, get_root_nodes
from llama_index.core.postprocessor import MetadataReplacementPostProcessor
from llama_index.core.retrievers import AutoMergingRetriever, BaseRetriever
from llama_index.core.schema import NodeWithScore
from llama_index.core.storage import StorageContext

from stage2_rag_finetune_deploy.chunking.sentences import sentence_offsets
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter

PROSE = " ".join(f"Sentence number {n} says what it has to say." for n in range(30))


class Words(TokenCounter):
    """A word is a token: the whole has as many as its parts, which is what SentenceSplitter takes for granted."""

    def sizes(self, texts):
        """See `TokenCounter.sizes`."""
        return [len(text.split()) for text in texts]


def test_sentences_are_packed_as_llamaindex_packs_them(chunker):
    """Catches: another greedy rule than SentenceSplitter's, on text where both find the same sentences."""
    parser = chunker("sentence", 60, 20, counter=Words())
    theirs = SentenceSplitter(
        chunk_size=60, chunk_overlap=20, tokenizer=str.split,
        chunking_tokenizer_fn=lambda text: [text[start:end] for start, end in sentence_offsets(text)],
    )  # fmt: skip
    ours = [node.text for node in parser.get_nodes_from_documents([Document(text=PROSE)])]
    assert ours == theirs.split_text(PROSE)


def test_window_by_hand(chunker):
    """Catches: a window that is not centred, misses an end, or is over the cap."""
    text = "One is here. Two is here. Three is here. Four is here. Five is here."
    parser = chunker("sentence-window", 40, neighbours=1)
    pieces = sentence_offsets(text)
    assert [text[slice(*parser.window(text, pieces, n))].strip() for n in (0, 2, 4)] == [
        "One is here. Two is here.", "Two is here. Three is here. Four is here.", "Four is here. Five is here.",
    ]  # fmt: skip
    narrow = chunker("sentence-window", 16, neighbours=3)
    assert all(narrow.counter.size(text[slice(*narrow.window(text, pieces, n))]) <= 16 for n in range(5))


def test_a_window_replaces_its_sentence_in_llamaindex(chunker):
    """Catches: metadata under keys that MetadataReplacementPostProcessor does not know."""
    nodes = chunker("sentence-window", 60, neighbours=2).get_nodes_from_documents([Document(text=PROSE)])
    hit = NodeWithScore(node=nodes[10], score=1.0)
    assert hit.node.text == "Sentence number 10 says what it has to say."
    replaced = MetadataReplacementPostProcessor("window").postprocess_nodes([hit])[0].node.get_content()
    assert replaced.startswith("Sentence number 8 ") and replaced.endswith("12 says what it has to say.")


class FirstNodes(BaseRetriever):
    """Finds the first nodes, whatever is asked."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=node, score=0.5) for node in self.nodes]


def test_children_lie_in_their_parent_and_merge_in_llamaindex(chunker):
    """Catches: children over the border of their parent; links that AutoMergingRetriever cannot follow."""
    nodes = chunker("parent-child", 60, 20, child_cap=20).get_nodes_from_documents([Document(id_="d", text=PROSE)])
    leaves, roots = get_leaf_nodes(nodes), get_root_nodes(nodes)
    parents = {root.node_id: root for root in roots}
    assert len(roots) > 3 and len(leaves) > 2 * len(roots) and len(leaves) + len(roots) == len(nodes)
    for leaf in leaves:
        parent = parents[leaf.parent_node.node_id]
        assert parent.start_char_idx <= leaf.start_char_idx and leaf.end_char_idx <= parent.end_char_idx
    storage = StorageContext.from_defaults()
    storage.docstore.add_documents(nodes)
    children = [leaf for leaf in leaves if leaf.parent_node.node_id == roots[0].node_id]
    found = AutoMergingRetriever(FirstNodes(children), storage).retrieve("anything")
    assert [hit.node.node_id for hit in found] == [roots[0].node_id]
