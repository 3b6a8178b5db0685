"""Milvus behind the interface: the same code for Milvus Lite (a folder), a standalone server and a cluster.

What differs is the address. `runs/shop.db` opens Milvus Lite inside this process; `http://host:19530` talks to a
server, and `https://...` with a token to a hosted one.

Words: servers from 2.5 on, and Milvus Lite, cut and weigh words themselves (a BM25 function fills a sparse vector
field) and fuse both halves in one request. Older servers, such as the 2.3.5 that comes as a Python package, have no
sparse vectors: there the lexical half is this process's, over all texts fetched from the server (`LexicalIndex`).
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, MilvusClient, MilvusException, RRFRanker

from labkit.errors import LabError, debugging
from stage2_rag_finetune_deploy.vector_db.filters import Filter, In
from stage2_rag_finetune_deploy.vector_db.fusion import RANK_CONSTANT, rrf_fuse
from stage2_rag_finetune_deploy.vector_db.lexical import LexicalIndex, cut_terms
from stage2_rag_finetune_deploy.vector_db.patience import ask, reason
from stage2_rag_finetune_deploy.vector_db.store import (
    HYBRID_DEPTH,
    MAX_ID_BYTES,
    MAX_VALUE_BYTES,
    Collection,
    CollectionSpec,
    Hit,
    Record,
    VectorStore,
)
from stage2_rag_finetune_deploy.vector_db.translate import to_milvus

T = TypeVar("T")
MILVUS_TYPES = {str: DataType.VARCHAR, int: DataType.INT64, float: DataType.DOUBLE, bool: DataType.BOOL}
LONGEST_VARCHAR = 65_535  # bytes
CALL_BYTES = 8_000_000  # of records in one request; the server's limit is 64 MB
CALL_SECONDS = 15.0
MAX_ROWS = 16_384
INDEX_SECONDS = 300.0
PASSING = ("connect", "unavailable", "not loaded", "retry timeout", "deadline", "not ready", "offline", "no available",
           "not found available", "closed", "channel", "shard", "timestamp lag", "server id mismatch")  # fmt: skip
ERRORS = (MilvusException, grpc.RpcError, ValueError)  # ValueError: grpc's word for a closed channel
SPEC = "lab.spec"  # the property of a collection that keeps its spec; Milvus Lite forgets descriptions
CONSISTENCY = ("Strong", "Session", "Bounded", "Eventually")


class MilvusCollection(Collection):
    """One collection of a Milvus; the store's connection is shared."""

    def __init__(self, spec: CollectionSpec, store: "MilvusStore") -> None:
        super().__init__(spec)
        self._store, self._client = store, store.client
        self._names, self._behind = ["text", *spec.fields], True
        self._lexical: tuple[LexicalIndex, int] | None = None  # of servers without BM25: the index, rows then
        self._run("load", self._client.load_collection, timeout=60)

    def _run(
        self, action: str, method: Callable[..., T], *args: Any, timeout: float = CALL_SECONDS, **options: Any
    ) -> T:
        """A method of the client for this collection, asked again when the server was away (`MilvusStore.call`)."""
        name = self.spec.name
        return self._store.call(f"{action} {name}", lambda: method(name, *args, timeout=timeout, **options), name)

    def _query(self, action: str, method: Callable[..., T], *args: Any, **options: Any) -> T:
        """A read at the store's consistency level, said each time: of a collection made with it, pymilvus forgets it.

        `Session` waits for this client's writes by the timestamps that the server gave them. A new client has none,
        and a server that was just restarted, still reading its log, would answer with a part; a 2.3 server gives
        deletes none. So the first read of a client, and the first after a delete, are `Strong` ones.
        """
        level = "Strong" if self._behind and self._store.consistency == "Session" else self._store.consistency
        found = self._run(action, method, *args, consistency_level=level, **options)
        self._behind = False
        return found

    def _upsert(self, records: list[Record], vectors: np.ndarray) -> None:
        self._lexical = None
        for rows in in_batches(self._rows(records, vectors)):
            self._run("write to", self._client.upsert, rows)

    def _rows(self, records: list[Record], vectors: np.ndarray) -> Iterator[dict[str, Any]]:
        for record, vector in zip(records, vectors, strict=True):
            row = {"id": record.id, "vector": vector, "text": record.text, **record.fields}
            yield row | {"terms": " ".join(cut_terms(record.text))} if self._store.has_bm25 else row

    def _delete_ids(self, ids: list[str]) -> None:
        self._lexical, self._behind = None, True
        for start in range(0, len(ids), 1000):
            self._run("delete from", self._client.delete, filter=self._named(ids[start : start + 1000]))

    def _delete_where(self, where: Filter | None) -> None:
        self._lexical, self._behind = None, True
        self._run("delete from", self._client.delete, filter=self._text(where) or 'id != ""')

    def _get(self, ids: list[str]) -> list[Record]:
        found, names = [], ["id", "vector", *self._names]
        for start in range(0, len(ids), 1000):
            chosen = self._named(ids[start : start + 1000])
            found += self._query("read", self._client.query, filter=chosen, output_fields=names)
        return [Record(r["id"], np.asarray(r["vector"], np.float32), r["text"], self._fields(r)) for r in found]

    def _count(self, where: Filter | None) -> int:
        """By a query. A collection's statistics count replaced and deleted rows too, until the next compaction."""
        rows = self._query("count", self._client.query, filter=self._text(where), output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def _search(self, vector: np.ndarray, k: int, where: Filter | None) -> list[Hit]:
        settings = {"filter": self._text(where), "search_params": self._effort(k), "output_fields": self._names}
        found = self._query("search", self._client.search, data=[vector], anns_field="vector", limit=k, **settings)
        return self._hits(found)

    def _search_text(self, text: str, k: int, where: Filter | None) -> list[Hit]:
        if not self._store.has_bm25:
            return self._filled(self._words(text, k, where))
        terms = " ".join(cut_terms(text))
        if not terms:
            return []
        settings = {"filter": self._text(where), "search_params": {"metric_type": "BM25"}, "output_fields": self._names}
        found = self._query("search", self._client.search, data=[terms], anns_field="sparse", limit=k, **settings)
        return self._hits(found, abs)  # Milvus Lite gives BM25 scores the sign of a distance

    def _hybrid(self, vector: np.ndarray, text: str, k: int, where: Filter | None, alpha: float) -> list[Hit]:
        terms, depth = " ".join(cut_terms(text)), max(k, HYBRID_DEPTH)
        if self._store.has_bm25 and alpha == 0.5 and terms:  # RRFRanker has no weights
            dense = AnnSearchRequest([vector], "vector", self._effort(depth), depth, expr=self._text(where))
            words = AnnSearchRequest([terms], "sparse", {"metric_type": "BM25"}, depth, expr=self._text(where))
            found = self._query("search", self._client.hybrid_search, [dense, words], RRFRanker(RANK_CONSTANT), limit=k,
                                output_fields=self._names)  # fmt: skip
            return self._hits(found, lambda score: score / 2)  # its two weights are 1, ours sum to 1
        dense = self._search(vector, depth, where)
        words = self._search_text(text, depth, where)
        known = {hit.id: hit for hit in [*dense, *words]}
        fused = rrf_fuse([[hit.id for hit in dense], [hit.id for hit in words]], [alpha, 1 - alpha])
        return [Hit(name, score, known[name].text, known[name].fields) for name, score in fused[:k]]

    def _words(self, text: str, k: int, where: Filter | None) -> list[tuple[str, float]]:
        """(id, BM25) by an index in this process, made anew after a write of ours or when the number of rows changed.

        What this cannot see: another client that replaces texts and leaves their number as it was.
        """
        rows = self._count(None)
        if self._lexical is None or self._lexical[1] != rows:
            pairs = [(row["id"], row["text"]) for row in self._scan(None, ["text"])]
            self._lexical = LexicalIndex([name for name, _ in pairs], [words for _, words in pairs]), rows
        allowed = None if where is None else {row["id"] for row in self._scan(where, [])}
        return self._lexical[0].search(text, k, allowed)

    def _scan(self, where: Filter | None, names: list[str]) -> Iterator[dict[str, Any]]:
        """Every row that passes. A query may return 16,384 rows at most; more come in pages, half a second each."""
        if self._count(where) <= MAX_ROWS:
            options = {"filter": self._text(where), "limit": MAX_ROWS, "output_fields": ["id", *names]}
            yield from self._query("read", self._client.query, **options)
            return
        pages = self._query("read", self._client.query_iterator, batch_size=5000, filter=self._text(where),
                            output_fields=["id", *names])  # fmt: skip
        while rows := pages.next():
            yield from rows
        pages.close()

    def persist(self) -> None:
        """Seal what is in memory, then wait until its index is built.

        Milvus Lite compares sealed rows one by one, too, until the collection is loaded again: that builds its index.
        """
        self._run("flush", self._client.flush, timeout=120)
        if self._store.is_lite:
            self._run("release", self._client.release_collection)
            self._run("load", self._client.load_collection, timeout=INDEX_SECONDS)
            return
        deadline = time.monotonic() + INDEX_SECONDS
        while time.monotonic() < deadline:
            state = self._run("look at", self._client.describe_index, "vector")
            if not state or int(state.get("pending_index_rows", 0)) == 0:
                return
            time.sleep(0.2)
        raise LabError(f"{self._store.where} is still building the index of {self.spec.name}", "persist() again, later")

    def _effort(self, k: int) -> dict[str, Any]:
        params = {"ef": max(self.spec.effort, k)} if self.spec.index == "hnsw" else {}
        return {"metric_type": "COSINE", "params": params}

    def _named(self, ids: list[str]) -> str:
        """An expression for these ids. pymilvus' own `get(ids)` and `delete(ids)` paste them in without escapes."""
        return to_milvus(In("id", ids), {"id": str})

    def _text(self, where: Filter | None) -> str:
        return "" if where is None else to_milvus(where, self.spec.fields)

    def _fields(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: row[name] for name in self.spec.fields}

    def _hits(self, found: Sequence, score: Callable[[float], float] = float) -> list[Hit]:
        return [
            Hit(hit["id"], score(hit["distance"]), hit["entity"]["text"], self._fields(hit["entity"]))
            for hit in found[0]
        ]

    def _filled(self, found: list[tuple[str, float]]) -> list[Hit]:
        """(id, score) with texts and fields, in the given order."""
        known = {record.id: record for record in self._get([name for name, _ in found])} if found else {}
        return [Hit(name, score, known[name].text, known[name].fields) for name, score in found if name in known]


def in_batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups of about CALL_BYTES."""
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += row["vector"].nbytes + 3 * len(row["text"]) + 200
        if size > CALL_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class MilvusStore(VectorStore):
    """A connection to a Milvus.

    Args:
        uri: a path that ends in .db (Milvus Lite), or http(s)://host:port.
        token: `user:password` or an API key, where the server wants one.
        consistency: what a read waits for. `Session`: everything this client wrote. `Strong`: everything anyone wrote,
            which costs up to the server's time tick (200 ms) a read. `Bounded`, `Eventually`: may miss recent writes.
        patience: seconds to wait for a server that was lost, before giving up.
    """

    def __init__(
        self, uri: str | Path, token: str = "", consistency: str = "Session", patience: float = 20.0
    ) -> None:
        if consistency not in CONSISTENCY:
            raise LabError(f"unknown consistency level {consistency!r}", f"one of: {', '.join(CONSISTENCY)}")
        if not debugging():  # every error is told once, by us
            logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
            logging.getLogger("milvus_lite").setLevel(logging.CRITICAL + 1)
        self.uri, self.consistency, self.patience = str(uri), consistency, patience
        self.is_lite = "://" not in self.uri
        self.client = self._connect(token)
        self.version = str(self.client.get_server_version()).removeprefix("milvus_lite-")
        self.has_bm25 = self.is_lite or version_tuple(self.version) >= (2, 5)

    @property
    def name(self) -> str:
        return "milvus-lite" if self.is_lite else "milvus"

    @property
    def where(self) -> str:
        return self.uri

    def _connect(self, token: str) -> MilvusClient:
        if self.is_lite:
            from stage2_rag_finetune_deploy.vector_db.milvus_lite import open_lite

            return open_lite(self.uri)
        try:
            return MilvusClient(self.uri, token=token, timeout=5, dedicated=True)
        except ERRORS as error:
            advice = "python -m stage2_rag_finetune_deploy.vector_db server starts one; or --store milvus-lite"
            raise LabError(f"cannot reach Milvus at {self.uri}: {reason(error)}", advice) from error

    def call(self, action: str, call: Callable[[], T], collection: str | None = None) -> T:
        """A request, asked again while the server is away; a restarted one has to load the collection again."""

        def reconnect() -> None:
            if collection:
                with suppress(*ERRORS):
                    self.client.load_collection(collection, timeout=10)

        def is_passing(why: str) -> bool:
            return any(word in why for word in PASSING)

        return ask(call, action, f"Milvus at {self.uri}", self.patience, ERRORS, is_passing, reconnect)

    def collections(self) -> list[str]:
        return sorted(self.call("list collections of", lambda: self.client.list_collections(timeout=CALL_SECONDS)))

    def _create(self, spec: CollectionSpec) -> Collection:
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=spec.dimensions)
        schema.add_field("text", DataType.VARCHAR, max_length=LONGEST_VARCHAR)
        for name, kind in spec.fields.items():
            schema.add_field(name, MILVUS_TYPES[kind], **({"max_length": MAX_VALUE_BYTES} if kind is str else {}))
        indexes = self.client.prepare_index_params()
        links = {"M": spec.links, "efConstruction": spec.build_effort} if spec.index == "hnsw" else {}
        indexes.add_index("vector", index_type=spec.index.upper(), metric_type="COSINE", params=links)
        if self.has_bm25:
            analyser = {} if self.is_lite else {"analyzer_params": {"tokenizer": "whitespace"}}  # terms are cut already
            schema.add_field("terms", DataType.VARCHAR, max_length=LONGEST_VARCHAR, enable_analyzer=True, **analyser)
            schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(Function("bm25", FunctionType.BM25, ["terms"], ["sparse"]))
            indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        self.call(f"create {spec.name} in", lambda: self.client.create_collection(
            spec.name, schema=schema, index_params=indexes, consistency_level=self.consistency,
            properties={SPEC: spec.to_json()}, timeout=60))  # fmt: skip
        return MilvusCollection(spec, self)

    def _open(self, name: str) -> Collection:
        about = self.call(f"look at {name} in", lambda: self.client.describe_collection(name, timeout=CALL_SECONDS))
        try:
            spec = CollectionSpec.from_json(about["properties"][SPEC])
        except (KeyError, ValueError) as error:
            raise LabError(f"the collection {name} of {self.uri} is not of this lab", "another name") from error
        return MilvusCollection(spec, self)

    def _drop(self, name: str) -> None:
        self.call(f"drop {name} of", lambda: self.client.drop_collection(name, timeout=60))

    def close(self) -> None:
        if self.is_lite:
            from stage2_rag_finetune_deploy.vector_db.milvus_lite import close_lite

            close_lite(self.uri, self.client)
        else:
            self.client.close()


def version_tuple(version: str) -> tuple[int, ...]:
    """(2, 3, 5) of v2.3.5-lite."""
    return tuple(int(part) for part in version.lstrip("v").split("-")[0].split(".") if part.isdigit())
