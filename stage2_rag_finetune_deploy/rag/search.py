"""From a retriever's hits to passages: chunks back to their documents, each document once.

Retrievers and rerankers know chunks; people and graders ask for documents. The best chunk speaks for its document.
"""

from collections.abc import Mapping, Sequence

from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import Encoder
from stage2_rag_finetune_deploy.rag.answering import Passage
from stage2_rag_finetune_deploy.rag.docstore import Chunk
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Hit, Retriever
from stage2_rag_finetune_deploy.vector_db.filters import And, Eq, Filter
from stage2_rag_finetune_deploy.vector_db.store import Collection

SPARE = 3  # chunks asked for, for each document wanted
FILTERED = ("document", "kind")


def as_corpus(chunks: Sequence[Chunk]) -> Corpus:
    """The chunks as retrievers want them: what is searched is what the encoder reads, header path included.

    Raises:
        LabError: there are none.
    """
    texts = {chunk.id: chunk.embedded for chunk in chunks}
    fields = {chunk.id: {"document": chunk.document, "kind": str(chunk.metadata.get("kind", ""))} for chunk in chunks}
    return Corpus.from_texts(texts, fields)


class StoreRetriever:
    """Dense search in a vector store, one vector a chunk: what scales past memory and past one machine.

    Args:
        collection: of the chunks.
        encoder: the one that filled it.
        corpus: for the texts; a store may hold chunks that are not confirmed yet, and those are left out.
    """

    name = "store"

    def __init__(self, collection: Collection, encoder: Encoder, corpus: Corpus) -> None:
        self.collection, self.encoder = collection, encoder
        self.texts = dict(zip(corpus.ids, corpus.texts, strict=True))

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`."""
        (vector,) = self.encoder.encode_now([query], "query")
        found = self.collection.search(vector, k, filter)
        return [
            Hit(hit.id, hit.score, self.texts[hit.id], hit.fields, {self.name: hit.score})
            for hit in found
            if hit.id in self.texts
        ]


class PassageSearch:
    """A retriever over chunks, asked for documents.

    Args:
        retriever: of chunks.
        chunks: all of them.
    """

    def __init__(self, retriever: Retriever, chunks: Sequence[Chunk]) -> None:
        self.retriever = retriever
        self.chunks = {chunk.id: chunk for chunk in chunks}

    def search(self, question: str, k: int, where: Mapping[str, str] | None = None) -> list[Passage]:
        """The k best documents, each with its best chunk.

        Raises:
            LabError: a filter on a field that chunks do not have.
        """
        best: dict[str, Passage] = {}
        for hit in self.retriever.retrieve(question, SPARE * k, as_filter(where)):
            chunk = self.chunks[hit.id]
            passage = Passage(chunk.document, chunk.text, hit.score, chunk.start, chunk.stop, chunk.metadata)
            best.setdefault(chunk.document, passage)
        return list(best.values())[:k]


def as_filter(where: Mapping[str, str] | None) -> Filter | None:
    """{"kind": "markdown"} as a filter. Raises LabError for an unknown field."""
    for name in where or {}:
        if name not in FILTERED:
            raise LabError(f"passages have no field {name!r}", f"one of: {', '.join(FILTERED)}")
    parts = [Eq(name, value) for name, value in (where or {}).items()]
    return And(*parts) if parts else None
