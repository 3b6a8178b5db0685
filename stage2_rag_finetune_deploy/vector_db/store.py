"""The interface: a store holds collections, a collection holds records. Four stores implement it.

    store = open_store("milvus-lite", "runs/shop.db")
    docs = store.create(CollectionSpec("docs", dimensions=384, fields={"language": str, "year": int}))
    docs.upsert([Record("readme#1", vector, "How to set up ...", {"language": "en", "year": 2024})])
    docs.search(vector, k=5, where=Eq("language", "en") & Range("year", at_least=2020))
    docs.hybrid_search(vector, "set up", k=5)

What every store promises, and tests/stage2/vector_db/test_conformance.py holds it to:

- `upsert` returns after the records are safe: a process or server killed right then loses none of them.
- What this client wrote, it reads back at once. A second upsert of an id replaces the first.
- Hits come best first; a larger score is better. Cosine: 1 is the same direction.
- A filter narrows the search before the k best are taken, not after.
- Bad input is one `LabError`, and nothing of it was written.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db.filters import (
    TYPES,
    Filter,
    In,
    Value,
    check_filter,
    check_text,
    check_value,
    leaves,
)
from stage2_rag_finetune_deploy.vector_db.filters import simplify as simplify_filter

MAX_K = 1000  # Milvus allows 16,384, Weaviate 10,000; no reranker wants more than some hundreds
MAX_VALUES = 10_000  # in all the `In` of a filter together
HYBRID_DEPTH = 50  # hits of each half that are fused, at least
MAX_ID_BYTES = 512
MAX_VALUE_BYTES = 1024
MAX_TEXT_BYTES = 24_000  # cut into terms a text grows up to 2.4 times, and Milvus' longest VARCHAR is 65,535 bytes
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
RESERVED = {"id", "record_id", "row", "vector", "text", "terms", "sparse", "additional", "and", "or", "not", "in",
            "like", "true", "false", "is", "null", "exists", "iso", "interval"}  # fmt: skip


@dataclass(frozen=True)
class CollectionSpec:
    """What a collection is: fixed when it is created.

    Attributes:
        name: small letters, digits, underscores.
        dimensions: of every vector.
        fields: name and type (str, int, float, bool) of what filters may ask; every record has all of them.
        index: `hnsw` (approximate, fast) or `flat` (exact, reads everything).
        links: HNSW's M, links a node. build_effort: its efConstruction. effort: its ef at search time, at least k.
    """

    name: str
    dimensions: int
    fields: Mapping[str, type] = field(default_factory=dict)
    index: str = "hnsw"
    links: int = 16
    build_effort: int = 200
    effort: int = 64

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise LabError(f"a collection cannot be called {self.name!r}", "small letters, digits and _, such as docs")
        if not 1 <= self.dimensions <= 32_768:
            raise LabError(f"{self.dimensions} dimensions", "1 to 32768; 384 for MiniLM and e5-small")
        for name, kind in self.fields.items():
            if not NAME.fullmatch(name) or name in RESERVED:
                raise LabError(f"a field cannot be called {name!r}", "small letters, digits and _, such as source")
            if kind not in TYPES.values():
                raise LabError(f"the field {name} has the type {kind!r}", "str, int, float or bool")
        if self.index not in ("hnsw", "flat"):
            raise LabError(f"unknown index {self.index!r}", "hnsw or flat")

    def to_json(self) -> str:
        """As kept inside a store, next to the data."""
        fields = {name: kind.__name__ for name, kind in self.fields.items()}
        return json.dumps({**vars(self), "fields": fields})

    @classmethod
    def from_json(cls, text: str) -> "CollectionSpec":
        """What `to_json` wrote. Raises ValueError when it is not that."""
        try:
            values = json.loads(text)
            return cls(**values | {"fields": {name: TYPES[kind] for name, kind in values["fields"].items()}})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a collection of this lab: {text[:80]!r}") from error


@dataclass(frozen=True)
class Record:
    """One thing to find: `vector` (D,), the `text` it stands for, and a value for every field of the collection."""

    id: str
    vector: np.ndarray
    text: str = ""
    fields: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """One answer; a larger score is better. Scores of different kinds of search do not compare."""

    id: str
    score: float
    text: str
    fields: Mapping[str, Value]


class Collection(ABC):
    """Checks everything once, here; the stores implement the methods with an underscore and see only good input."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.spec = spec

    def upsert(self, records: Sequence[Record]) -> int:
        """Write records, replacing those of the same ids; within one call the last one of an id counts.

        Returns:
            how many records were written, once they are safe.

        Raises:
            LabError: a record does not fit (nothing was written), or the store was lost on the way (parts of this
                call may be written; the same call again is safe).
        """
        latest = {record.id: record for record in records}
        if not latest:
            return 0
        vectors = self._check_records(list(latest.values()))
        self._upsert(list(latest.values()), vectors)
        return len(latest)

    def delete(self, ids: Sequence[str] | None = None, where: Filter | None = None) -> None:
        """Remove the records with these ids, or those that pass the filter. An id that is not there is no error."""
        if (ids is None) == (where is None):
            raise LabError("delete what? one of ids and where", "delete(ids=[...]) or delete(where=Eq(...))")
        if isinstance(ids, str):
            raise LabError(f"ids is one string, {ids!r}", f"delete(ids=[{ids!r}])")
        if where is not None:
            wanted = self._check_where(where)
            if wanted is not False:
                self._delete_where(wanted)
        elif ids:
            self._delete_ids(list(dict.fromkeys(ids)))

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records with these ids, in this order; those that are not there are left out."""
        found = {record.id: record for record in self._get(list(dict.fromkeys(ids)))} if ids else {}
        return [found[name] for name in ids if name in found]

    def search(self, vector: np.ndarray, k: int = 10, where: Filter | None = None) -> list[Hit]:
        """The k records whose vectors have the largest cosine with `vector` (D,)."""
        wanted = self._check_query(k, where)
        return [] if wanted is False else self._search(self._check_vector(vector), k, wanted)

    def search_text(self, text: str, k: int = 10, where: Filter | None = None) -> list[Hit]:
        """The k records of largest BM25 score; records that share no term with the text are never found."""
        wanted = self._check_query(k, where)
        check_text("the query", text)
        return [] if wanted is False else self._search_text(text, k, wanted)

    def hybrid_search(
        self, vector: np.ndarray, text: str, k: int = 10, where: Filter | None = None, alpha: float = 0.5
    ) -> list[Hit]:
        """Both searches, fused by reciprocal rank.

        Args:
            alpha: weight of the dense half; 1 is `search` alone, 0 is `search_text` alone.
        """
        wanted = self._check_query(k, where)
        check_text("the query", text)
        if not 0 <= alpha <= 1:
            raise LabError(f"alpha is {alpha}", "0 (words alone) to 1 (vectors alone)")
        return [] if wanted is False else self._hybrid(self._check_vector(vector), text, k, wanted, alpha)

    def count(self, where: Filter | None = None) -> int:
        """How many records there are, or pass the filter. Deleted and replaced ones do not count."""
        wanted = self._check_where(where) if where is not None else None
        return 0 if wanted is False else self._count(wanted)

    @abstractmethod
    def persist(self) -> None:
        """Bring everything into the store's long-term form, index included: faster to open and to search.

        Never needed for safety: what `upsert` acknowledged is safe already.
        """

    @abstractmethod
    def _upsert(self, records: list[Record], vectors: np.ndarray) -> None: ...

    @abstractmethod
    def _delete_ids(self, ids: list[str]) -> None: ...

    @abstractmethod
    def _delete_where(self, where: Filter | None) -> None: ...

    @abstractmethod
    def _get(self, ids: list[str]) -> list[Record]: ...

    @abstractmethod
    def _search(self, vector: np.ndarray, k: int, where: Filter | None) -> list[Hit]: ...

    @abstractmethod
    def _search_text(self, text: str, k: int, where: Filter | None) -> list[Hit]: ...

    @abstractmethod
    def _hybrid(self, vector: np.ndarray, text: str, k: int, where: Filter | None, alpha: float) -> list[Hit]: ...

    @abstractmethod
    def _count(self, where: Filter | None) -> int: ...

    def _check_records(self, records: list[Record]) -> np.ndarray:
        """The vectors (N, D) float32, after everything about the records was looked at."""
        for record in records:
            if not isinstance(record.id, str) or not record.id:
                raise LabError(f"a record's id is {record.id!r}", "a text that is not empty")
            name = f"record {record.id[:40]!r}"
            check_text(f"the id of {name}", record.id)
            check_text(f"the text of {name}", record.text)
            self._check_sizes(record, name)
            if record.fields.keys() != self.spec.fields.keys():
                odd = ", ".join(sorted(record.fields.keys() ^ self.spec.fields.keys()))
                known = ", ".join(self.spec.fields) or "no fields"
                raise LabError(f"{name} has other fields than its collection: {odd}", f"exactly: {known}")
            for key, value in record.fields.items():
                check_value(key, value, self.spec.fields)
        return np.stack([self._check_vector(record.vector, f"record {record.id[:40]!r}") for record in records])

    @staticmethod
    def _check_sizes(record: Record, name: str) -> None:
        values = [(key, value) for key, value in record.fields.items() if isinstance(value, str)]
        limits = [("id", record.id, MAX_ID_BYTES), ("text", record.text, MAX_TEXT_BYTES)]
        for key, text, limit in limits + [(key, value, MAX_VALUE_BYTES) for key, value in values]:
            size = len(text.encode("utf-8"))
            if size > limit:
                raise LabError(f"{name} has a {key} of {size:,} bytes, the limit is {limit:,}", "cut it into chunks")

    def _check_vector(self, vector: np.ndarray, whose: str = "the query") -> np.ndarray:
        """(D,) float32, finite, not zero: a vector without a direction has no cosine."""
        try:
            vector = np.asarray(vector, np.float32)
        except (TypeError, ValueError):
            raise LabError(f"the vector of {whose} is no array of numbers", "a numpy array of float32") from None
        if vector.shape != (self.spec.dimensions,):
            shape = " x ".join(map(str, vector.shape)) or "no"
            raise LabError(f"the vector of {whose} has {shape} dimensions, {self.spec.name} has {self.spec.dimensions}",
                           "the embedding model that filled the collection, or a new collection")  # fmt: skip
        if not np.isfinite(vector).all():
            raise LabError(f"the vector of {whose} holds NaN or infinity", "look at the text it was made from")
        if not vector.any():
            raise LabError(f"the vector of {whose} is all zeros", "look at the text it was made from: is it empty?")
        return vector

    def _check_query(self, k: int, where: Filter | None) -> Filter | bool | None:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
            raise LabError(f"k is {k!r}", f"a whole number from 1 to {MAX_K}")
        return self._check_where(where) if where is not None else None

    def _check_where(self, where: Filter) -> Filter | bool | None:
        """The filter in its simplest form: None when everything passes, False when nothing can."""
        check_filter(where, self.spec.fields)
        values = sum(len(leaf.values) for leaf in leaves(where) if isinstance(leaf, In))
        if values > MAX_VALUES:
            raise LabError(f"the filter names {values:,} values, the limit is {MAX_VALUES:,}", "filter by a group")
        simple = simplify_filter(where)
        return None if simple is True else simple


class VectorStore(ABC):
    """A place for collections. `with open_store(...) as store:` closes it."""

    name = ""

    @abstractmethod
    def collections(self) -> list[str]:
        """Names, sorted."""

    @abstractmethod
    def _create(self, spec: CollectionSpec) -> Collection: ...

    @abstractmethod
    def _open(self, name: str) -> Collection: ...

    @abstractmethod
    def _drop(self, name: str) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of files, locks and connections. Closing twice is no error."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The folder or address, for messages."""

    def create(self, spec: CollectionSpec) -> Collection:
        """A new, empty collection. Raises LabError when the name is taken."""
        if spec.name in self.collections():
            raise LabError(f"{self.where} already has a collection {spec.name}", f"open({spec.name!r}) or drop it")
        return self._create(spec)

    def open(self, name: str) -> Collection:
        """A collection that is there. Raises LabError when it is not."""
        names = self.collections()
        if name not in names:
            best, has = nearest(name, names), ", ".join(names) or "none"
            advice = f"open({best!r})" if best else f"create({name!r}, ...)"
            raise LabError(f"{self.where} has no collection {name!r}; it has {has}", advice)
        return self._open(name)

    def drop(self, name: str) -> None:
        """Remove a collection and everything in it. A name that is not there is no error."""
        if name in self.collections():
            self._drop(name)

    def __enter__(self) -> "VectorStore":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
