"""Build a `VectorStoreIndex`, keep it in a folder, load it again, and refuse folders that would answer wrongly.

`StorageContext.persist` writes JSON files and nothing that says which model made the vectors. An index loaded with
another model of the same width answers without an error, and wrongly. So a manifest, `lab.json`, lies beside them:
model, revision, dimensions, chunk size, and the SHA-256 of every file. The folder appears whole, by one rename.
"""

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode

from labkit.errors import LabError
from labkit.files import sha256_file, write_json
from labkit.runs import runs_root, shown
from stage1_foundations.first_rag.embedding import LabEmbedding, token_counter
from stage1_foundations.first_rag.words import cut_sentences

MANIFEST = "lab.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What made an index: enough to see whether it can be used, and with what."""

    encoder: str
    revision: str
    dimensions: int
    documents: int
    nodes: int
    chunk_tokens: int
    overlap: int
    origin: str
    format: int = FORMAT
    files: dict[str, str] = field(default_factory=dict)


def default_folder() -> Path:
    """Where `build` puts the index and the other commands look for it."""
    return runs_root() / "stage1" / "first_rag" / "index"


def split_documents(
    documents: Sequence[Document], embedding: LabEmbedding, chunk_tokens: int, overlap: int
) -> list[BaseNode]:
    """Documents to nodes of at most `chunk_tokens` tokens, cut between sentences; ids `document#0`, `document#1`, ...

    Raises:
        LabError: the overlap is not smaller than the chunk.
    """
    if not 0 <= overlap < chunk_tokens:
        raise LabError(f"an overlap of {overlap} in chunks of {chunk_tokens} tokens", f"--overlap {chunk_tokens // 8}")
    splitter = SentenceSplitter(
        chunk_size=chunk_tokens,
        chunk_overlap=overlap,
        tokenizer=token_counter(embedding.encoder),
        chunking_tokenizer_fn=cut_sentences,
        id_func=lambda number, document: f"{document.id_}#{number}",  # by default random, and no two builds are equal
        include_metadata=True,
    )
    return splitter.get_nodes_from_documents(list(documents))


def build_index(nodes: Sequence[BaseNode], embedding: LabEmbedding) -> VectorStoreIndex:
    """An index of nodes in memory: the embedding is passed by hand, `Settings.embed_model` would do as well.

    Raises:
        LabError: there are no nodes, or a vector holds NaN or infinity.
    """
    if not nodes:
        raise LabError("there is no text to index", "--docs DIR with text in it")
    return VectorStoreIndex(nodes=list(nodes), embed_model=embedding)


def save_index(
    index: VectorStoreIndex, folder: Path, embedding: LabEmbedding, chunk_tokens: int, overlap: int, origin: str
) -> Manifest:
    """Persist the index and its manifest; an older index in `folder` is replaced in one step.

    Raises:
        LabError: `folder` holds something that is not an index of this lab.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise LabError(f"{shown(folder)} holds other files", "--index with a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".tmp-{secrets.token_hex(4)}-{folder.name}")
    try:
        index.storage_context.persist(partial)
        nodes = index.docstore.docs
        manifest = Manifest(
            embedding.model_name, embedding.encoder.revision, embedding.encoder.dimensions,
            len({node.ref_doc_id for node in nodes.values()}), len(nodes), chunk_tokens, overlap, origin,
            files={path.name: sha256_file(path) for path in sorted(partial.iterdir())},
        )  # fmt: skip
        write_json(partial / MANIFEST, asdict(manifest))
        if folder.exists():
            os.replace(folder, partial.with_name(partial.name + "-old"))
        os.replace(partial, folder)
    finally:
        for left_over in (partial, partial.with_name(partial.name + "-old")):
            shutil.rmtree(left_over, ignore_errors=True)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a persisted index, after a look at its files.

    Raises:
        LabError: there is no index, it was made by another version, or a file is missing or changed.
    """
    advice = "python -m stage1_foundations.first_rag build"
    if not (folder / MANIFEST).is_file():
        raise LabError(f"there is no index in {shown(folder)}", advice)
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise LabError(f"{shown(folder / MANIFEST)} is not a manifest of this lab", advice) from error
    if manifest.format != FORMAT:
        raise LabError(f"{shown(folder)} has format {manifest.format}, this lab reads {FORMAT}", advice)
    for name, sha256 in manifest.files.items():
        if not (folder / name).is_file():
            raise LabError(f"the index in {shown(folder)} is damaged: {name} is missing", advice)
        if sha256_file(folder / name) != sha256:
            raise LabError(f"the index in {shown(folder)} is damaged: {name} has changed (SHA-256 differs)", advice)
    return manifest


def load_index(folder: Path, embedding: LabEmbedding) -> VectorStoreIndex:
    """The index as it was saved, with the model that made it.

    Raises:
        LabError: as `read_manifest`, or it was made by another model, other weights, or another width.
    """
    manifest = read_manifest(folder)
    encoder = embedding.encoder
    rebuild = "python -m stage1_foundations.first_rag build"
    where = f"the index in {shown(folder)}"
    if manifest.dimensions != encoder.dimensions:
        theirs = f"{manifest.dimensions} dimensions ({manifest.encoder})"
        message = f"{where} has {theirs}, {encoder.name} has {encoder.dimensions}"
        raise LabError(message, f"--encoder {manifest.encoder}, or {rebuild} --encoder {encoder.name}")
    if (manifest.encoder, manifest.revision) != (encoder.name, encoder.revision):
        same = manifest.encoder == encoder.name
        made = f"other weights of {manifest.encoder}" if same else f"{manifest.encoder}, not by {encoder.name}"
        advice = rebuild if same else f"--encoder {manifest.encoder}, or {rebuild} --encoder {encoder.name}"
        raise LabError(f"{where} was made by {made}", advice)
    storage = StorageContext.from_defaults(persist_dir=str(folder))
    return load_index_from_storage(storage, embed_model=embedding)
