"""Small chunks to search, large ones to read: each child knows its parent.

A small chunk is about one thing and so has a sharp vector; a large one has what is needed to answer. Parents and
children come in one list, linked as LlamaIndex's HierarchicalNodeParser links them: `get_leaf_nodes` gives what is
indexed, and `AutoMergingRetriever` puts the parent in the place of its children.
"""

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode, NodeRelationship, TextNode

from stage2_rag_finetune_deploy.chunking.packing import pack
from stage2_rag_finetune_deploy.chunking.sentences import sentence_offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser, check_sizes


class ParentChild(SpanParser):
    """Parents of whole sentences up to `cap`, each cut into children up to `child_cap`.

    Children never reach over the end of their parent, so that a hit is always inside what the reader gets.
    """

    child_cap: int = Field(default=64)

    def model_post_init(self, context: object) -> None:
        """Check the sizes."""
        super().model_post_init(context)
        check_sizes(self.child_cap, 0)

    def spans(self, document: BaseNode) -> list[Span]:
        """The parents."""
        text = document.get_content()
        return [Span(*span) for span in self.packed(text, sentence_offsets(text))]

    def child_spans(self, text: str, parent: TextNode) -> list[Span]:
        """The children of one parent."""
        start, end = parent.start_char_idx, parent.end_char_idx
        cap = min(self.child_cap, self.cap)
        return [Span(*span) for span in pack(text, sentence_offsets(text, start, end), cap, 0, self.counter)]

    def nodes_of(self, document: BaseNode) -> list[BaseNode]:
        """All parents, then all children: leaves are what `get_leaf_nodes` returns."""
        parents, family = self.make_nodes(document, self.spans(document)), []
        text = document.get_content()
        for parent in parents:
            # the parent's id goes into the child's: overlapping parents have children of the same place and text
            children = self.make_nodes(document, self.child_spans(text, parent), within=parent.node_id)
            for child in children:
                child.relationships[NodeRelationship.PARENT] = parent.as_related_node_info()
            parent.relationships[NodeRelationship.CHILD] = [child.as_related_node_info() for child in children]
            family += children
        return [*self.linked(parents), *self.linked(family)]
