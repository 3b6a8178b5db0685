"""The ways to search that the lab compares, by name: each is a `Retriever`, and most are the one before plus a part.

    parts = Parts.of(corpus, load_token_encoder("minilm"))
    retriever = make_variant("late", parts)           # what the RAG uses unless it is told otherwise
    retriever.retrieve("can I send boots back?", k=5)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import data
from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.dense import DenseRetriever
from stage2_rag_finetune_deploy.rag.hybrid import HybridRetriever
from stage2_rag_finetune_deploy.rag.late_interaction import LateInteraction
from stage2_rag_finetune_deploy.rag.query_rewriting import RewritingRetriever, Rm3Retriever, SpellingRewriter
from stage2_rag_finetune_deploy.rag.reranker import RerankedRetriever, Reranker
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Retriever
from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder

DEFAULT = "late"


@dataclass(frozen=True)
class Variant:
    """A row of the table: its name, what it is, and the row that it is compared with."""

    name: str
    title: str
    against: str | None


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("dense", "dense, one vector a passage", None),
        Variant("windows", "dense, best of 16-token windows", "dense"),
        Variant("bm25", "BM25 with stemming", "windows"),
        Variant("rm3", "BM25 with RM3 expansion", "bm25"),
        Variant("rrf", "windows + BM25, by ranks", "bm25"),
        Variant("hybrid", "windows + BM25, by scores", "rrf"),
        Variant("late", "hybrid + late interaction", "hybrid"),
        Variant("cross", "late + cross-encoder", "late"),
        Variant("llm", "late + query likelihood", "late"),
        Variant("spelling", "late, spelling corrected first", "late"),
    )
}


def load_token_encoder(name: str = "minilm") -> TokenEncoder:
    """`minilm`, `e5`, or another transformer that the embeddings lab can load, with its prompts.

    Raises:
        LabError: there is no such encoder, or it has no token vectors.
    """
    from stage1_foundations.embeddings.encoders import load_encoder
    from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder

    encoder = load_encoder(name)
    if not isinstance(encoder, TransformerEncoder):
        raise LabError(f"{name} has no token vectors", "minilm, e5, or the folder of a sentence-transformers model")
    return TokenEncoder(encoder.folder, encoder.name, encoder.prompts)


def as_they_are(part: Retriever) -> Retriever:
    """The part itself."""
    return part


@dataclass(frozen=True)
class Parts:
    """What the variants share; each part is made when the first variant asks for it.

    Attributes:
        corpus: the passages.
        encoder: for everything dense.
        wrap: put around every part that several variants use (the evaluation remembers their answers there).
        rerankers: `cross` and `llm`, by default the newest trained one and SmolLM2.
        made: the parts so far; a copy of this object (`dataclasses.replace`) shares them.
    """

    corpus: Corpus
    encoder: TokenEncoder
    wrap: Callable[[Retriever], Retriever] = as_they_are
    rerankers: Mapping[str, Reranker] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def bm25(self) -> Bm25Retriever:
        """Counts the words of the corpus."""
        return self._once("bm25", lambda: Bm25Retriever(self.corpus))

    @property
    def windows(self) -> DenseRetriever:
        """Vectors of windows."""
        return self._once("windows", lambda: DenseRetriever(self.corpus, self.encoder))

    @property
    def dense(self) -> DenseRetriever:
        """Vectors of whole passages."""
        return self._once("dense", lambda: DenseRetriever(self.corpus, self.encoder, window=0))

    @property
    def late_interaction(self) -> LateInteraction:
        """All token vectors."""
        return self._once("late_interaction", lambda: LateInteraction(self.corpus, self.encoder))

    @property
    def spelling(self) -> SpellingRewriter:
        """The corpus as a dictionary."""
        return self._once("spelling", lambda: SpellingRewriter(self.corpus.texts))

    def reranker(self, name: str) -> Reranker:
        """`cross` or `llm`. Raises LabError when no cross-encoder has been trained."""
        if name in self.rerankers:
            return self.rerankers[name]
        if name == "cross":  # both bring torch, which the others do without
            from stage2_rag_finetune_deploy.rag.cross_encoder import CrossEncoderReranker

            return self._once(name, CrossEncoderReranker.of_latest_run)
        from stage2_rag_finetune_deploy.rag.llm_reranker import QueryLikelihood

        return self._once(name, lambda: QueryLikelihood(data.fetch("smollm2-135m-instruct")))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]


def make_variant(name: str, parts: Parts) -> Retriever:
    """A way to search, by its name.

    Raises:
        LabError: there is none of this name.
    """
    wrap = parts.wrap
    match name:
        case "dense":
            return wrap(parts.dense)
        case "windows":
            return wrap(parts.windows)
        case "bm25":
            return wrap(parts.bm25)
        case "rm3":
            return Rm3Retriever(parts.bm25)
        case "rrf" | "hybrid":
            method = "rrf" if name == "rrf" else "score"
            return wrap(HybridRetriever([wrap(parts.windows), wrap(parts.bm25)], method))
        case "late":
            return wrap(RerankedRetriever(make_variant("hybrid", parts), parts.late_interaction))
        case "cross" | "llm":
            return RerankedRetriever(make_variant("late", parts), parts.reranker(name))
        case "spelling":
            return RewritingRetriever(make_variant("late", parts), parts.spelling)
    best = nearest(name, list(VARIANTS))
    raise LabError(f"no way to search is called {name!r}", best or f"one of: {', '.join(VARIANTS)}")
