"""Which store, retriever, reranker and answerer: one name each, and the parts behind the names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cli import option
from labkit.errors import LabError
from labkit.runs import runs_root
from stage1_foundations.embeddings.encoders import Encoder, load_encoder
from stage1_foundations.first_rag.words import WordWeights
from stage2_rag_finetune_deploy.rag.answering import ANSWERERS, load_answerer
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.docstore import DocStore
from stage2_rag_finetune_deploy.rag.hybrid import HybridRetriever
from stage2_rag_finetune_deploy.rag.ingestion import COLLECTION
from stage2_rag_finetune_deploy.rag.pipeline import Rag
from stage2_rag_finetune_deploy.rag.query_rewriting import RewritingRetriever, SpellingRewriter
from stage2_rag_finetune_deploy.rag.reranker import RerankedRetriever
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Retriever
from stage2_rag_finetune_deploy.rag.search import PassageSearch, StoreRetriever, as_corpus
from stage2_rag_finetune_deploy.rag.variants import Parts, load_token_encoder
from stage2_rag_finetune_deploy.vector_db.store import VectorStore
from stage2_rag_finetune_deploy.vector_db.stores import open_store

RETRIEVERS = ("hybrid", "hybrid-store", "windows", "store", "bm25")
RERANKERS = ("late", "cross", "llm", "none")  # each one after the ones before it
REWRITERS = ("none", "spelling")
THRESHOLD = 0.5  # share of the question's key words that the best passage must have


@dataclass(frozen=True)
class ServeOptions:
    """How an index is asked; `ask` and `serve` have these as their options."""

    index: Path | None = option(None, "the index; none: the one of `ingest`")
    retriever: str = option("hybrid", "how chunks are found", RETRIEVERS)
    reranker: str = option("late", "how the found ones are ordered", RERANKERS)
    rewrite: str = option("none", "what happens to the question first", REWRITERS)
    llm: str = option("extract", "who writes the answer", ANSWERERS)
    api_base: str | None = option(None, "address of an OpenAI-compatible server, up to /v1")
    model: str | None = option(None, "its model")
    threshold: float = option(THRESHOLD, "evidence below it is a refusal")


def default_index() -> Path:
    """Where `ingest` writes and `serve` reads when nothing else is said; month 2 is graded on it."""
    return runs_root() / "stage2" / "rag" / "index"


def store_place(name: str, folder: Path) -> str:
    """The location of a store that belongs to an index; servers are found by their environment variables."""
    return {"faiss": str(folder / "store"), "milvus-lite": str(folder / "store.db")}.get(name, "")


@contextmanager
def open_rag(options: ServeOptions) -> Iterator[Rag]:
    """A RAG over an index, closed at the end.

    Raises:
        LabError: no index, one of another model, or a part that cannot be had.
    """
    folder = options.index or default_index()
    docs = DocStore(folder / "documents.sqlite")
    if not docs.path.is_file():
        raise LabError(f"there is no index at {folder}", "python -m stage2_rag_finetune_deploy.rag ingest")
    settings, chunks = docs.settings(), docs.chunks()
    if not chunks:
        raise LabError(f"the index at {folder} is empty or was never finished", "ingest again")
    encoder = load_encoder(settings["encoder"])
    if encoder.revision != settings["revision"]:
        raise LabError(f"the index was made by another {encoder.name} than the one that is here", "ingest --rebuild")
    with open_store(settings["store"], store_place(settings["store"], folder)) as store:
        corpus = as_corpus(chunks)
        retriever = make_retriever(options, corpus, encoder, store)
        weights = WordWeights(chunk.text for chunk in chunks)
        answerer = load_answerer(options.llm, weights, options.api_base, options.model)
        facts = facts_of(settings, options, len(chunks))
        yield Rag(PassageSearch(retriever, chunks), weights, answerer, options.threshold, facts)


def facts_of(settings: dict[str, Any], options: ServeOptions, chunks: int) -> dict[str, Any]:
    """What /health shows."""
    corpus = {"sha256": settings["corpus_sha256"], "documents": settings["documents"], "chunks": chunks}
    made = {name: settings[name] for name in ("encoder", "chunker", "store")}
    return {"corpus": corpus, **made, "retriever": options.retriever, "reranker": options.reranker, "llm": options.llm}


def make_retriever(options: ServeOptions, corpus: Corpus, encoder: Encoder, store: VectorStore) -> Retriever:
    """The retriever, with the rewriter before it and the rerankers after it."""
    parts = Parts(corpus, load_token_encoder(encoder.name)) if needs_tokens(options) else None
    found: list[Retriever] = []
    if parts and options.retriever in ("hybrid", "windows"):
        found.append(parts.windows)
    if options.retriever in ("hybrid-store", "store"):
        found.append(StoreRetriever(store.open(COLLECTION), encoder, corpus))
    if options.retriever in ("hybrid", "hybrid-store", "bm25"):
        found.append(parts.bm25 if parts else Bm25Retriever(corpus))
    retriever = found[0] if len(found) == 1 else HybridRetriever(found)
    if parts and options.reranker != "none":
        rerankers = [parts.late_interaction]
        if options.reranker != "late":
            rerankers.append(parts.reranker(options.reranker))
        retriever = RerankedRetriever(retriever, *rerankers)
    return RewritingRetriever(retriever, SpellingRewriter(corpus.texts)) if options.rewrite == "spelling" else retriever


def needs_tokens(options: ServeOptions) -> bool:
    """Whether a part reads token vectors: they cost memory, so a large corpus may want to go without."""
    return options.retriever in ("hybrid", "windows") or options.reranker != "none"
