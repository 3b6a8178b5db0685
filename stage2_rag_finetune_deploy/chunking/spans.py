"""The common part of all chunkers: a LlamaIndex `NodeParser` that says where to cut, and makes nodes of it.

A chunker here returns spans: offsets into the document, and what is known about each (a header path, a speaker). The
base class turns them into `TextNode`s and takes care of five things that LlamaIndex's own parsers leave to chance:

- ids: by default random, so that a second run stores everything twice; here from document, place and text;
- offsets: by default found by searching for the text, which finds the wrong place when a text occurs twice;
- metadata in the vector: by default "file_path: /home/me/..." is embedded in front of every chunk; here only the keys
  in `embedded` are, and without their names;
- the cap: by default only SentenceSplitter has one; here no chunk is larger, what is embedded in front of it included;
- nothing is lost: what lies between two chunks is white space.
"""

import hashlib
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.node_parser import NodeParser
from llama_index.core.schema import BaseNode, Document, NodeRelationship, TextNode

from labkit.errors import LabError
from stage2_rag_finetune_deploy.chunking.packing import pack
from stage2_rag_finetune_deploy.chunking.sentences import Offsets
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter, load_counter

HEADER_PATH = "header_path"
SMALLEST_CAP = 16
INDENTATION = 40


@dataclass(frozen=True)
class Span:
    """A chunk before it is a node.

    Attributes:
        start, end: offsets into the document's text, white space around it included or not.
        metadata: what is known about it.
        text: what the chunk says, where that is not simply the text between the offsets (merged turns).
    """

    start: int
    end: int
    metadata: dict[str, Any] = field(default_factory=dict)
    text: str | None = None


def chunk_id(document_id: str, start: int, end: int, text: str) -> str:
    """A name for a chunk that is the same in every run, and another one for every other chunk.

    SHA-256 of document, offsets and text: the text alone would give two equal paragraphs one id, and the second would
    overwrite the first in the store. In a UUID's form, which is what Weaviate insists on.
    """
    parts = (document_id, str(start), str(end), text)
    whole = "".join(f"{len(part)}:{part}" for part in parts)  # with lengths: ("a", "b1") is not ("ab", "1")
    return str(uuid.UUID(bytes=hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()[:16]))


class SpanParser(NodeParser):
    """A chunker. Subclasses implement `spans`.

    Args:
        cap: largest chunk in tokens, as `counter` counts, with the metadata that is embedded.
        overlap: what neighbouring chunks may share, in tokens.
        counter: of the encoder that will read the chunks; by default MiniLM's.
        embedded: metadata keys whose values stand in front of the text when it is embedded.

    Raises:
        LabError: the cap is too small to hold anything, or the overlap is not smaller than the cap.
    """

    cap: int = Field(default=200)
    overlap: int = Field(default=0)
    counter: TokenCounter = Field(default_factory=load_counter, exclude=True)
    embedded: tuple[str, ...] = Field(default=(HEADER_PATH,))

    def model_post_init(self, context: Any) -> None:
        """Check the sizes."""
        super().model_post_init(context)
        check_sizes(self.cap, self.overlap)

    @classmethod
    def class_name(cls) -> str:
        """Name in traces and in serialised pipelines."""
        return cls.__name__

    @abstractmethod
    def spans(self, document: BaseNode) -> list[Span]:
        """Where to cut one document: in its order, covering everything but white space, none over the cap."""

    def packed(self, text: str, pieces: Sequence[Offsets], cap: int | None = None) -> list[Offsets]:
        """`pack` with this chunker's sizes."""
        cap = self.cap if cap is None else cap
        return pack(text, pieces, cap, min(self.overlap, cap // 2), self.counter)

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        return [node for document in nodes for node in self.nodes_of(document)]

    def nodes_of(self, document: BaseNode) -> list[BaseNode]:
        """The chunks of one document, linked to their neighbours."""
        return self.linked(self.make_nodes(document, self.spans(document)))

    def make_nodes(self, document: BaseNode, spans: Iterable[Span], within: str = "") -> list[TextNode]:
        """Spans as nodes: trimmed, empty ones left out, with id, metadata and source.

        Args:
            within: the id of a larger chunk that they are parts of.
        """
        text, source = document.get_content(), source_of(document)
        inherited = document.metadata if self.include_metadata else {}
        nodes = []
        for span in spans:
            start, end = trim(text, span.start, span.end)
            if start == end:
                continue
            metadata = {**inherited, **span.metadata}
            said = text[start:end] if span.text is None else span.text
            hidden = [key for key in metadata if key not in self.embedded]
            nodes.append(TextNode(
                id_=chunk_id(document.node_id + within, start, end, said), text=said,
                start_char_idx=start, end_char_idx=end,
                metadata=metadata, excluded_embed_metadata_keys=hidden, excluded_llm_metadata_keys=hidden,
                metadata_template="{value}", relationships={NodeRelationship.SOURCE: source},
            ))  # fmt: skip
        return nodes

    def linked(self, nodes: list[TextNode]) -> list[BaseNode]:
        """The same nodes, each knowing the one before and the one after it."""
        if self.include_prev_next_rel:
            for before, after in zip(nodes, nodes[1:], strict=False):
                before.relationships[NodeRelationship.NEXT] = after.as_related_node_info()
                after.relationships[NodeRelationship.PREVIOUS] = before.as_related_node_info()
        return list(nodes)

    def _postprocess_parsed_nodes(self, nodes: list[BaseNode], parent_doc_map: dict[str, Document]) -> list[BaseNode]:
        """Everything is in place already; LlamaIndex's own version would search for the offsets anew."""
        return nodes


def source_of(document: BaseNode) -> Any:
    """What a chunk's source refers to: the document, or the source of a node that is itself a chunk."""
    return document.source_node or document.as_related_node_info()


def trim(text: str, start: int, end: int) -> Offsets:
    """The same span without white space around it; empty at `end` when there is nothing else.

    The indentation of a first line stays where it is short: a method without it would read as if it were misplaced.
    """
    first = start
    while first < end and text[first].isspace():
        first += 1
    while end > first and text[end - 1].isspace():
        end -= 1
    line = text.rfind("\n", max(0, first - INDENTATION), first) + 1
    at_line_start = line > 0 or first <= INDENTATION
    return (max(start, line), end) if at_line_start and first < end and not text[line:first].strip() else (first, end)


def check_sizes(cap: int, overlap: int) -> None:
    """Refuse sizes that cannot work.

    Raises:
        LabError: see `SpanParser`.
    """
    if cap < SMALLEST_CAP:
        raise LabError(f"chunks of at most {cap} tokens hold no sentence", f"--cap {SMALLEST_CAP} or more")
    if not 0 <= overlap <= cap // 2:
        message = f"an overlap of {overlap} tokens in chunks of at most {cap} repeats everything or never ends"
        raise LabError(message, f"--overlap {cap // 8}, at most half of the cap")
