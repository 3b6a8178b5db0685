"""A store by its name: what a configuration file or a command line gives."""

import os
from pathlib import Path

from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db.store import VectorStore

STORES = ("faiss", "milvus-lite", "milvus", "weaviate")


def open_store(name: str, location: str | Path = "", **options: object) -> VectorStore:
    """Open a store.

    Args:
        name: one of STORES.
        location: faiss: a folder. milvus-lite: a path that ends in .db. milvus: the server's URI, or MILVUS_URI.
            weaviate: the server's URL, or WEAVIATE_URL, else a folder for an embedded server.
        options: of the store's class, such as `consistency="Strong"`.

    Raises:
        LabError: unknown name, nothing to connect to, locked by another process.
    """
    if name not in STORES:
        raise LabError(f"unknown store {name!r}", nearest(name, STORES) or f"one of: {', '.join(STORES)}")
    if name == "faiss":
        from stage2_rag_finetune_deploy.vector_db.faiss_store import FaissStore

        return FaissStore(needed(location, "a folder"), **options)
    if name == "weaviate":
        from stage2_rag_finetune_deploy.vector_db.weaviate_store import WeaviateStore

        return WeaviateStore(str(location or os.environ.get("WEAVIATE_URL", "")), **options)
    from stage2_rag_finetune_deploy.vector_db.milvus_store import MilvusStore

    if name == "milvus-lite":
        return MilvusStore(needed(location, "a path that ends in .db"), **options)
    uri = str(location or os.environ.get("MILVUS_URI", ""))
    if "://" not in uri:
        advice = "python -m stage2_rag_finetune_deploy.vector_db server, then MILVUS_URI=http://..."
        raise LabError(f"the store milvus wants the URI of a server, not {uri!r}", advice)
    return MilvusStore(uri, token=os.environ.get("MILVUS_TOKEN", ""), **options)


def needed(location: str | Path, what: str) -> str:
    """The location as text; nothing at all is an error."""
    if not str(location):
        raise LabError("where is the store?", what)
    return str(location)
