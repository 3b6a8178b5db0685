"""Weaviate behind the interface: a server by its URL, or one that the client library downloads and starts (embedded).

Weaviate wants UUIDs, so a record's UUID is made from its id (version 5), and the id itself is kept as a property.
Vectors come from us (no vectorizer). Hybrid search is one request: Weaviate fuses by rank with the weight alpha.
"""

import re
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
import weaviate
from weaviate.classes.config import (
    Configure,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)
from weaviate.classes.data import DataObject
from weaviate.classes.init import AdditionalConfig, Timeout
from weaviate.classes.query import Filter as WeaviateFilter
from weaviate.classes.query import HybridFusion, MetadataQuery
from weaviate.exceptions import WeaviateBaseError

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db.filters import Filter
from stage2_rag_finetune_deploy.vector_db.fusion import rrf_fuse
from stage2_rag_finetune_deploy.vector_db.lexical import cut_terms
from stage2_rag_finetune_deploy.vector_db.patience import ask, reason
from stage2_rag_finetune_deploy.vector_db.store import Collection, CollectionSpec, Hit, Record, VectorStore
from stage2_rag_finetune_deploy.vector_db.translate import to_weaviate

T = TypeVar("T")
WEAVIATE_TYPES = {str: DataType.TEXT, int: DataType.INT, float: DataType.NUMBER, bool: DataType.BOOL}
NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122's for object identifiers
NOBODY = str(uuid.UUID(int=0))
BATCH = 500
GRPC_PORT = 50051
ERRORS = (WeaviateBaseError, httpx.HTTPError, OSError)
PASSING = ("connect", "unavailable", "timeout", "timed out", "not ready", "refused", "reset", "disconnected", "startup")


class WeaviateCollection(Collection):
    """One collection of a Weaviate; the store's connection is shared."""

    def __init__(self, spec: CollectionSpec, store: "WeaviateStore") -> None:
        super().__init__(spec)
        self._store, self._remote = store, store.client.collections.use(class_name(spec.name))
        self._names = ["record_id", "text", *spec.fields]

    def _run(self, action: str, method: Callable[..., T], *args: Any, **options: Any) -> T:
        return self._store.call(f"{action} {self.spec.name}", lambda: method(*args, **options))

    def _upsert(self, records: list[Record], vectors: np.ndarray) -> None:
        for start in range(0, len(records), BATCH):
            objects = [
                DataObject(
                    uuid=uuid_of(record.id),
                    vector=vector.tolist(),
                    properties={
                        "record_id": record.id,
                        "text": record.text,
                        "terms": " ".join(cut_terms(record.text)),
                        **record.fields,
                    },
                )
                for record, vector in zip(records[start : start + BATCH], vectors[start : start + BATCH], strict=True)
            ]
            answer = self._run("write to", self._remote.data.insert_many, objects)  # a known UUID is replaced
            if answer.has_errors:
                first = next(iter(answer.errors.values()))
                raise LabError(f"{self._store.where} refused {len(answer.errors)} records: {first.message}"[:300],
                               "mend them, then the same call again")  # fmt: skip

    def _delete_ids(self, ids: list[str]) -> None:
        for start in range(0, len(ids), 1000):
            names = [uuid_of(name) for name in ids[start : start + 1000]]
            self._run("delete from", self._remote.data.delete_many, where=WeaviateFilter.by_id().contains_any(names))

    def _delete_where(self, where: Filter | None) -> None:
        chosen = WeaviateFilter.by_id().not_equal(NOBODY) if where is None else to_weaviate(where)
        while True:  # one call deletes 10,000 at most
            answer = self._run("delete from", self._remote.data.delete_many, where=chosen)
            if answer.failed:
                raise LabError(f"{self._store.where} could not delete {answer.failed} records", "the same call again")
            if not answer.matches:
                return

    def _get(self, ids: list[str]) -> list[Record]:
        found = []
        for start in range(0, len(ids), 1000):
            names = [uuid_of(name) for name in ids[start : start + 1000]]
            answer = self._run("read", self._remote.query.fetch_objects, limit=len(names), include_vector=True,
                               filters=WeaviateFilter.by_id().contains_any(names))  # fmt: skip
            found += [
                Record(one.properties["record_id"], np.asarray(one.vector["default"], np.float32),
                       one.properties["text"], self._fields(one.properties))
                for one in answer.objects
            ]  # fmt: skip
        return found

    def _count(self, where: Filter | None) -> int:
        answer = self._run("count", self._remote.aggregate.over_all, total_count=True, filters=self._filters(where))
        return int(answer.total_count or 0)

    def _search(self, vector: np.ndarray, k: int, where: Filter | None) -> list[Hit]:
        answer = self._run("search", self._remote.query.near_vector, near_vector=vector.tolist(), limit=k,
                           filters=self._filters(where), return_properties=self._names,
                           return_metadata=MetadataQuery(distance=True))  # fmt: skip
        return [self._hit(one, 1 - one.metadata.distance) for one in answer.objects]

    def _search_text(self, text: str, k: int, where: Filter | None) -> list[Hit]:
        terms = " ".join(cut_terms(text))
        if not terms:
            return []
        answer = self._run("search", self._remote.query.bm25, query=terms, query_properties=["terms"], limit=k,
                           filters=self._filters(where), return_properties=self._names,
                           return_metadata=MetadataQuery(score=True))  # fmt: skip
        return [self._hit(one, one.metadata.score) for one in answer.objects]

    def _hybrid(self, vector: np.ndarray, text: str, k: int, where: Filter | None, alpha: float) -> list[Hit]:
        terms = " ".join(cut_terms(text))
        if not terms:
            dense = {hit.id: hit for hit in self._search(vector, k, where)}
            fused = rrf_fuse([list(dense)], [alpha])
            return [Hit(name, score, dense[name].text, dense[name].fields) for name, score in fused]
        answer = self._run("search", self._remote.query.hybrid, query=terms, query_properties=["terms"],
                           vector=vector.tolist(), alpha=alpha, fusion_type=HybridFusion.RANKED, limit=k,
                           filters=self._filters(where), return_properties=self._names,
                           return_metadata=MetadataQuery(score=True))  # fmt: skip
        return [self._hit(one, one.metadata.score) for one in answer.objects]

    def persist(self) -> None:
        """Nothing to do: every acknowledged write is in Weaviate's write-ahead log, and its index grows with it."""

    def _filters(self, where: Filter | None) -> Any:
        return None if where is None else to_weaviate(where)

    def _fields(self, properties: dict[str, Any]) -> dict[str, Any]:
        return {name: kind(properties[name]) for name, kind in self.spec.fields.items()}

    def _hit(self, one: Any, score: float) -> Hit:
        return Hit(one.properties["record_id"], float(score), one.properties["text"], self._fields(one.properties))


class WeaviateStore(VectorStore):
    """A connection to a Weaviate.

    Args:
        location: `http(s)://host:port` of a server; else the folder of an embedded one ("" for the library's own).
        api_key: where the server wants one. grpc_port: of the server, beside the port in the URL.
        patience: seconds to wait for a server that was lost, before giving up.
    """

    name = "weaviate"

    def __init__(
        self, location: str = "", api_key: str = "", grpc_port: int = GRPC_PORT, patience: float = 20.0
    ) -> None:
        self.location, self.grpc_port, self.patience = location, grpc_port, patience
        self.is_embedded = "://" not in location
        try:
            self.client = self._embedded() if self.is_embedded else self._connect(api_key)
        except Exception as error:  # the embedded start alone raises a dozen kinds, of three libraries
            if self.is_embedded:
                message = f"no Weaviate: WEAVIATE_URL is not set, the embedded server did not start: {reason(error)}"
                raise LabError(message, "WEAVIATE_URL=http://127.0.0.1:8080 of a running one") from error
            raise LabError(f"cannot reach Weaviate at {location}: {reason(error)}", "is it running?") from error

    def _embedded(self) -> weaviate.WeaviateClient:
        """The library downloads the server from GitHub at the first time (Linux and macOS), 40 MB or so."""
        ports = []
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports.append(probe.getsockname()[1])
        folder = {"persistence_data_path": str(Path(self.location).absolute())} if self.location else {}
        return weaviate.connect_to_embedded(port=ports[0], grpc_port=ports[1], **folder)

    def _connect(self, api_key: str) -> weaviate.WeaviateClient:
        url = urlsplit(self.location)
        secure = url.scheme == "https"
        grpc_port = 443 if secure and not url.port else self.grpc_port
        return weaviate.connect_to_custom(
            http_host=url.hostname or "", http_port=url.port or (443 if secure else 8080), http_secure=secure,
            grpc_host=url.hostname or "", grpc_port=grpc_port, grpc_secure=secure,
            auth_credentials=api_key or None, additional_config=AdditionalConfig(timeout=Timeout(init=5)),
        )  # fmt: skip

    @property
    def where(self) -> str:
        return "embedded Weaviate" if self.is_embedded else f"Weaviate at {self.location}"

    def call(self, action: str, call: Callable[[], T]) -> T:
        """A request, asked again while the server is away."""
        return ask(call, action, self.where, self.patience, ERRORS, lambda why: any(word in why for word in PASSING))

    def collections(self) -> list[str]:
        names = self.call("list collections", self.client.collections.list_all)
        return sorted(spec_name(name) for name in names if re.fullmatch(r"[A-Z][a-z0-9_]*", name))

    def _create(self, spec: CollectionSpec) -> Collection:
        if spec.index == "flat":
            index = Configure.VectorIndex.flat(distance_metric=VectorDistances.COSINE)
        else:
            index = Configure.VectorIndex.hnsw(
                distance_metric=VectorDistances.COSINE, max_connections=spec.links,
                ef_construction=spec.build_effort, ef=spec.effort,
            )  # fmt: skip
        properties = [
            scalar_property("record_id", str),
            Property(name="text", data_type=DataType.TEXT, index_filterable=False, index_searchable=False),
            Property(name="terms", data_type=DataType.TEXT, index_filterable=False,
                     tokenization=Tokenization.WHITESPACE),
            *(scalar_property(name, kind) for name, kind in spec.fields.items()),
        ]  # fmt: skip
        self.call(f"create {spec.name}", lambda: self.client.collections.create(
            class_name(spec.name), description=spec.to_json(), properties=properties,
            vector_config=Configure.Vectors.self_provided(vector_index_config=index),
            inverted_index_config=Configure.inverted_index(
                bm25_b=0.75, bm25_k1=1.5, stopwords_preset=StopwordsPreset.NONE)))  # fmt: skip
        return WeaviateCollection(spec, self)

    def _open(self, name: str) -> Collection:
        about = self.call(f"look at {name}", self.client.collections.use(class_name(name)).config.get)
        try:
            return WeaviateCollection(CollectionSpec.from_json(about.description or ""), self)
        except ValueError as error:
            raise LabError(f"the collection {name} of {self.where} is not of this lab", "another name") from error

    def _drop(self, name: str) -> None:
        self.call(f"drop {name}", lambda: self.client.collections.delete(class_name(name)))

    def close(self) -> None:
        self.client.close()


def scalar_property(name: str, kind: type) -> Property:
    """A field that filters ask: text as a whole, numbers with an index for ranges."""
    if kind is str:
        return Property(name=name, data_type=DataType.TEXT, tokenization=Tokenization.FIELD, index_searchable=False)
    options = {"index_range_filters": True} if kind in (int, float) else {}
    return Property(name=name, data_type=WEAVIATE_TYPES[kind], **options)


def class_name(name: str) -> str:
    """Weaviate wants a capital: docs is Docs there."""
    return name[0].upper() + name[1:]


def spec_name(name: str) -> str:
    """The way back."""
    return name[0].lower() + name[1:]


def uuid_of(name: str) -> str:
    """The same id has the same UUID, so writing it again replaces it."""
    return str(uuid.uuid5(NAMESPACE, name))
