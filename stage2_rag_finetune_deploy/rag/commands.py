"""`ingest`, `ask` and `serve`."""

import shutil
import socket
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import shown, start_run
from stage1_foundations.embeddings.encoders import PACKAGED, load_encoder
from stage2_rag_finetune_deploy.chunking.dispatch import CHUNKERS
from stage2_rag_finetune_deploy.rag.answering import Answer
from stage2_rag_finetune_deploy.rag.documents import load_documents
from stage2_rag_finetune_deploy.rag.ingestion import Changes, Ingestion
from stage2_rag_finetune_deploy.rag.rag_config import ServeOptions, default_index, open_rag, store_place
from stage2_rag_finetune_deploy.rag.variants import load_token_encoder
from stage2_rag_finetune_deploy.vector_db.stores import STORES, open_store


@dataclass(frozen=True)
class IngestConfig:
    """What goes into the index, and how."""

    docs: str = option("squad", "a folder, a file, a .jsonl with id and text, or a retrieval set of the course")
    index: Path | None = option(None, "folder of the index; none: runs/stage2/rag/index")
    encoder: str = option("minilm", "makes the vectors: minilm, e5 or a model's folder")
    chunker: str = option("dispatch", "how documents are cut", ("dispatch", *CHUNKERS))
    cap: int = option(250, "largest chunk, in the encoder's tokens")
    overlap: int = option(0, "tokens that neighbouring chunks share")
    store: str = option("faiss", "where the vectors are kept", STORES)
    rebuild: bool = option(False, "throw the index away first")
    skip_unreadable: bool = option(False, "leave out files that cannot be read")


@dataclass(frozen=True)
class AskConfig(ServeOptions):
    """One question."""

    question: str = option("", "what you want to know")


@dataclass(frozen=True)
class ServeConfig(ServeOptions):
    """The service."""

    port: int = option(8010, "of this machine")
    host: str = option("127.0.0.1", "0.0.0.0 lets other machines ask")


INGEST_PRESETS = {name: IngestConfig() for name in ("cpu", "study", "gpu")} | {"smoke": IngestConfig()}


def run_ingest(config: IngestConfig, preset: str) -> None:
    """Bring the index up to date with the documents."""
    folder = config.index or default_index()
    documents = load_documents(config.docs, config.skip_unreadable)
    encoder = load_encoder(config.encoder)
    with start_run("stage2", "rag", "ingest", config, preset=preset) as run:
        if config.rebuild and folder.exists():
            check_is_index(folder)
            shutil.rmtree(folder)
        with open_store(config.store, store_place(config.store, folder)) as store:
            read = token_means(config.encoder) if config.encoder in PACKAGED else None
            work = Ingestion(folder, store, encoder, config.chunker, config.cap, config.overlap, read)
            changes = work.run(documents)
            settings, chunks = work.docs.settings(), work.docs.chunks()
        fresh = {*changes.new, *changes.changed, *changes.unfinished}
        size = sum(len(document.get_content().encode()) for document in documents)
        run.data("corpus", settings["corpus_sha256"], size)
        run.metric("documents", len(documents))
        run.metric("chunks", len(chunks))
        run.metric("encoded_documents", len(fresh))
        run.learnt(f"{config.docs}: {len(documents):,} documents in {len(chunks):,} chunks; {summary(changes)}.")
        run.next("python -m stage2_rag_finetune_deploy.rag serve")
    counts = f"{len(documents):,} documents, {len(chunks):,} chunks; {summary(changes)}"
    console.print(f"{counts}: {shown(folder)}", markup=False)


def token_means(encoder: str) -> Callable[[Sequence[str]], np.ndarray]:
    """Chunks to the means of their token vectors, which stay in the cache: `serve` searches among them, and one pass
    through the encoder is enough for both."""
    tokens = load_token_encoder(encoder)
    return lambda texts: np.stack([passage.mean for passage in tokens.passages(texts)])


def summary(changes: Changes) -> str:
    """`3 new, 1 changed, 2 gone, 10 unchanged`."""
    counts = {"new": changes.new, "changed": changes.changed, "gone": changes.gone,
              "done again": changes.unfinished, "unchanged": changes.unchanged}  # fmt: skip
    return ", ".join(f"{len(ids):,} {name}" for name, ids in counts.items() if ids) or "nothing to do"


def check_is_index(folder: Path) -> None:
    """Raises LabError for a folder that --rebuild must not remove."""
    if any(folder.iterdir()) and not (folder / "documents.sqlite").is_file():
        raise LabError(f"{folder} is no index, and is not removed", "another --index")


def run_ask(config: AskConfig, preset: str) -> None:
    """Answer one question, with the passages."""
    if not config.question:
        raise LabError("what is the question?", 'ask "Who designed the bridge?"')
    with open_rag(config) as rag:
        passages, answer = [], None
        for event in rag.events(config.question):
            if isinstance(event, list):
                passages = event
            elif isinstance(event, Answer):
                answer = event
    console.print(answer.answer, style="dim" if answer.refused else "bold", markup=False)
    cited = {citation.id for citation in answer.citations}
    for rank, passage in enumerate(passages, start=1):
        mark = "[1]" if passage.id in cited else f" {rank}."
        console.print(f"\n{mark} {passage.id}  ({passage.score:.2f})", markup=False)
        console.print(textwrap.indent(textwrap.shorten(passage.text, 300, placeholder=" ..."), "    "), markup=False)
    console.print(f"\nevidence {answer.evidence:.2f}", style="dim")


def run_serve(config: ServeConfig, preset: str) -> None:
    """Answer over HTTP until Ctrl-C."""
    import uvicorn

    from stage2_rag_finetune_deploy.rag.service import make_app

    check_port(config.host, config.port)
    with open_rag(config) as rag:
        rag.ask("warm up")  # weights are read now, not while somebody waits
        console.print(f"http://{config.host}:{config.port}  (Ctrl-C ends it)", markup=False)
        uvicorn.run(make_app(rag), host=config.host, port=config.port, log_level="warning")


def check_port(host: str, port: int) -> None:
    """Raises LabError when somebody else has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise LabError(f"port {port} of {host} cannot be had: {reason}", "another --port, such as 8011") from None
