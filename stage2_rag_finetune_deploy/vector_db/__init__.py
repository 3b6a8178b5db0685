"""Vector databases behind one interface: a FAISS file store, Milvus Lite, a Milvus server, Weaviate."""

from stage2_rag_finetune_deploy.vector_db.filters import And, Eq, Filter, In, Not, Or, Range
from stage2_rag_finetune_deploy.vector_db.store import Collection, CollectionSpec, Hit, Record, VectorStore
from stage2_rag_finetune_deploy.vector_db.stores import STORES, open_store

__all__ = [
    "STORES", "And", "Collection", "CollectionSpec", "Eq", "Filter", "Hit", "In", "Not", "Or", "Range", "Record",
    "VectorStore", "open_store",
]  # fmt: skip
