"""The right knife for each document: choose the chunker by the document's kind.

| kind | chunker | because |
|---|---|---|
| markdown, html | section | the author has cut it already, and named the parts |
| python | function | a function is the unit that is asked for |
| code | code | the same, by tree-sitter |
| transcript | speaker | a sentence without its speaker and its question means little |
| text | sentence | nothing better is known; overlap saves what lies on a border |
"""

from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode

from labkit.cli import nearest
from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import Encoder, load_encoder
from stage2_rag_finetune_deploy.chunking.code import CodeParser
from stage2_rag_finetune_deploy.chunking.function import FunctionParser
from stage2_rag_finetune_deploy.chunking.parent_child import ParentChild
from stage2_rag_finetune_deploy.chunking.readers import KINDS, kind_of
from stage2_rag_finetune_deploy.chunking.section import SectionParser
from stage2_rag_finetune_deploy.chunking.semantic import EmbeddingParser, SemanticParser
from stage2_rag_finetune_deploy.chunking.sentence import SentencePacking, SentenceWindow
from stage2_rag_finetune_deploy.chunking.sizes import load_counter
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser, check_sizes
from stage2_rag_finetune_deploy.chunking.speaker import SpeakerParser
from stage2_rag_finetune_deploy.chunking.topic import TopicParser
from stage2_rag_finetune_deploy.chunking.windows import CharacterWindow, FixedWindow

CHUNKERS: dict[str, type[SpanParser]] = {
    "section": SectionParser,
    "function": FunctionParser,
    "code": CodeParser,
    "fixed": FixedWindow,
    "characters": CharacterWindow,
    "sentence": SentencePacking,
    "sentence-window": SentenceWindow,
    "semantic": SemanticParser,
    "parent-child": ParentChild,
    "speaker": SpeakerParser,
    "topic": TopicParser,
}
BY_KIND = {
    "markdown": "section", "html": "section", "python": "function", "code": "code", "transcript": "speaker",
    "text": "sentence",
}  # fmt: skip


class Dispatch(SpanParser):
    """A chunker that leaves every document to the right one; the name of that one goes into the metadata.

    Args:
        by_kind: kind of document -> name of the chunker; kinds that are left out are cut as in BY_KIND.
        encoder: for chunkers that look at vectors; None is theirs.

    Raises:
        LabError: a kind or a chunker that does not exist.
    """

    by_kind: dict[str, str] = Field(default_factory=dict)
    encoder: Encoder | None = Field(default=None, exclude=True)

    def model_post_init(self, context: Any) -> None:
        """Check the names."""
        super().model_post_init(context)
        for kind, name in self.by_kind.items():
            check_kind(kind)
            check_chunker(name)

    def parser_for(self, document: BaseNode) -> tuple[str, SpanParser]:
        """The chunker for a document, by its metadata `kind`, else by its name and text."""
        name = str(document.metadata.get("source") or document.node_id)
        kind = document.metadata.get("kind") or kind_of(name, document.get_content())
        check_kind(kind)
        chunker = {**BY_KIND, **self.by_kind}[kind]
        sizes = {"cap": self.cap, "overlap": self.overlap, "counter": self.counter, "embedded": self.embedded}
        if chunker == "code":
            return chunker, CodeParser(language=document.metadata.get("language") or "", **sizes)
        if issubclass(CHUNKERS[chunker], EmbeddingParser) and self.encoder:
            sizes["encoder"] = self.encoder
        return chunker, CHUNKERS[chunker](**sizes)

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        name, parser = self.parser_for(document)
        return [Span(span.start, span.end, {**span.metadata, "chunker": name}, span.text)
                for span in parser.spans(document)]  # fmt: skip


def check_kind(kind: str) -> None:
    """Raises LabError for a kind that does not exist."""
    if kind not in KINDS:
        raise LabError(f"no kind of document is called {kind!r}", nearest(kind, KINDS) or f"one of: {', '.join(KINDS)}")


def check_chunker(name: str) -> None:
    """Raises LabError for a chunker that does not exist."""
    if name not in CHUNKERS:
        raise LabError(f"no chunker is called {name!r}", nearest(name, [*CHUNKERS]) or f"one of: {', '.join(CHUNKERS)}")


def make_chunker(
    name: str, cap: int = 200, overlap: int = 0, encoder: str | Encoder = "minilm", **options: Any
) -> SpanParser:
    """A chunker by its name, `dispatch` included, sized for an encoder.

    Args:
        name: one of CHUNKERS, or "dispatch".
        cap: largest chunk in the encoder's tokens.
        overlap: what neighbours may share.
        encoder: whose tokens count, and whose vectors `semantic` and `topic` look at; or its name.
        options: fields of the chunker.

    Raises:
        LabError: no such chunker, sizes that cannot work.
    """
    if name != "dispatch":
        check_chunker(name)
    check_sizes(cap, overlap)
    encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
    sizes = {"cap": cap, "overlap": overlap, "counter": load_counter(encoder), **options}
    if name == "dispatch" or issubclass(CHUNKERS[name], EmbeddingParser):
        sizes["encoder"] = encoder
    return Dispatch(**sizes) if name == "dispatch" else CHUNKERS[name](**sizes)
