"""Documents into an index, and later only what changed.

    <index>/documents.sqlite    which documents and chunks there are (docstore.py)
    <index>/store/              their vectors, in the store of `--store` (vector_db)

A document whose text has the same SHA-256 is not read by the encoder again; one that is gone disappears; one that
changed is taken out and put in anew. An index belongs to one encoder and one chunker: another one is refused, because
vectors of two models do not compare.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core import Document
from llama_index.core.schema import MetadataMode

import data
from labkit.errors import LabError
from labkit.progress import progress
from stage1_foundations.embeddings.encoders import Encoder
from stage2_rag_finetune_deploy.chunking.dispatch import make_chunker
from stage2_rag_finetune_deploy.rag.docstore import Chunk, DocStore
from stage2_rag_finetune_deploy.vector_db.store import Collection, CollectionSpec, Record, VectorStore

COLLECTION = "chunks"
FIELDS = {"document": str, "kind": str}
BATCH = 256  # documents between two commits: what an interrupted run can lose


@dataclass(frozen=True)
class Changes:
    """What a run has to do, as document ids."""

    new: list[str]
    changed: list[str]
    gone: list[str]
    unfinished: list[str]  # entered by a run that was killed
    unchanged: list[str]


def sha256_of(document: Document) -> str:
    """Of the text and of what decides how it is cut."""
    text = f"{document.metadata.get('kind')}\n{document.get_content()}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# exercise: rag.plan_changes
def plan_changes(known: dict[str, tuple[str, bool]], wanted: dict[str, str]) -> Changes:
    """Compare what the index holds with what it should hold.

    Args:
        known: document id -> (SHA-256, ready), as the index has them.
        wanted: document id -> SHA-256, as they are now.

    A document that is known but not ready was being written when its run died: it is done again if it is still
    wanted, and taken out in any case.
    """
    ready = {id: sha256 for id, (sha256, is_ready) in known.items() if is_ready}
    return Changes(
        new=[id for id in wanted if id not in known],
        changed=[id for id, sha256 in wanted.items() if id in ready and ready[id] != sha256],
        gone=[id for id in ready if id not in wanted],
        unfinished=[id for id in known if id not in ready],
        unchanged=[id for id, sha256 in wanted.items() if ready.get(id) == sha256],
    )


# end exercise


class Ingestion:
    """An index that is being brought up to date.

    Args:
        folder: of the index.
        store: an opened store, usually in `folder`.
        encoder: makes the vectors.
        chunker: name of a chunker of the chunking lab, or `dispatch`.
        cap, overlap: of its chunks, in the encoder's tokens.
        read: texts to their vectors (N, D) of length 1, where a pass through the encoder serves something else, too.
    """

    def __init__(
        self, folder: Path, store: VectorStore, encoder: Encoder, chunker: str = "dispatch", cap: int = 200,
        overlap: int = 0, read: Callable[[Sequence[str]], np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self.docs, self.store, self.encoder = DocStore(folder / "documents.sqlite"), store, encoder
        self.read = read or (lambda texts: encoder.encode(texts, "passage"))
        self.parser = make_chunker(chunker, cap, overlap, encoder)
        settings = {"encoder": encoder.name, "revision": encoder.revision, "chunker": chunker, "cap": cap,
                    "overlap": overlap, "store": store.name}  # fmt: skip
        check_settings(self.docs.settings(), settings)
        self.docs.set(settings)

    def run(self, documents: Sequence[Document]) -> Changes:
        """Bring the index to these documents.

        Raises:
            LabError: the store was lost on the way (what was done is kept; the same call goes on), or a text that the
                encoder cannot read.
        """
        by_id = {document.node_id: document for document in documents}
        wanted = {id: sha256_of(document) for id, document in by_id.items()}
        changes = plan_changes(self.docs.documents(), wanted)
        vectors = self.collection()
        stale = [*changes.changed, *changes.gone, *changes.unfinished]
        if stale:
            vectors.delete(ids=self.docs.chunk_ids(stale))
            self.docs.remove(stale)
        again = [id for id in changes.unfinished if id in wanted]
        todo = [*changes.new, *changes.changed, *again]
        with progress(total=len(todo), description="ingest") as bar:
            for batch in batches(todo):
                self.write(vectors, [by_id[id] for id in batch], wanted)
                bar.advance(len(batch))
        if todo or stale:
            vectors.persist()
        texts = {id: document.get_content() for id, document in by_id.items()}
        self.docs.set({"corpus_sha256": data.corpus_sha256(texts), "documents": len(texts)})
        return changes

    def write(self, vectors: Collection, documents: Sequence[Document], sha256: dict[str, str]) -> None:
        """Enter, upsert, confirm."""
        chunks: list[Chunk] = []
        for document in documents:
            mine = [as_chunk(node, document.node_id) for node in self.parser.get_nodes_from_documents([document])]
            self.docs.enter(document.node_id, sha256[document.node_id], mine)
            chunks += mine
        made = self.read([chunk.embedded for chunk in chunks]) if chunks else ()
        records = [
            Record(chunk.id, vector, chunk.text, {"document": chunk.document, "kind": str(chunk.metadata["kind"])})
            for chunk, vector in zip(chunks, made, strict=True)
        ]
        vectors.upsert(records)
        self.docs.confirm(document.node_id for document in documents)

    def collection(self) -> Collection:
        """The collection of the chunks' vectors, made when it is not there."""
        if COLLECTION in self.store.collections():
            return self.store.open(COLLECTION)
        if self.docs.documents():
            raise LabError(f"{self.store.where} has lost the vectors of this index", "ingest --rebuild")
        return self.store.create(CollectionSpec(COLLECTION, self.encoder.dimensions, FIELDS))


def as_chunk(node: Any, document: str) -> Chunk:
    """A LlamaIndex node as a row of the docstore."""
    embedded = node.get_content(metadata_mode=MetadataMode.EMBED)
    place = node.start_char_idx or 0, node.end_char_idx or 0
    return Chunk(node.node_id, document, *place, node.text, embedded, dict(node.metadata))


def check_settings(known: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises LabError when an index was made in another way than is asked for now."""
    for name, value in wanted.items():
        if name in known and known[name] != value:
            was, now = str(known[name])[:16], str(value)[:16]
            raise LabError(
                f"this index was made with {name} {was}, now it is {now}: their vectors do not mix",
                f"ingest --rebuild, or --{name.replace('revision', 'encoder')} {known.get(name)}"[:120],
            )


def batches(items: list[str]) -> Iterator[list[str]]:
    """Lists of BATCH items."""
    yield from (items[start : start + BATCH] for start in range(0, len(items), BATCH))
