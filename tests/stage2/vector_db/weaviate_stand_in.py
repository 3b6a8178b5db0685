"""A stand-in that speaks Weaviate's protocol (REST for schemas, gRPC for data), in memory.

It tells whether the adapter speaks the protocol: names, filters, vectors, batches, errors. It does not tell what
a real Weaviate does with them: for that, set WEAVIATE_URL and run the conformance suite.
"""

import json
import operator
import struct
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import bm25s
import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from weaviate.proto.v1 import (
    aggregate_pb2,
    base_pb2,
    batch_delete_pb2,
    batch_pb2,
    health_weaviate_pb2,
    search_get_pb2,
    weaviate_pb2_grpc,
)

Operator = base_pb2.Filters.Operator
COMPARE = {
    Operator.Value("OPERATOR_EQUAL"): operator.eq,
    Operator.Value("OPERATOR_NOT_EQUAL"): operator.ne,
    Operator.Value("OPERATOR_GREATER_THAN"): operator.gt,
    Operator.Value("OPERATOR_GREATER_THAN_EQUAL"): operator.ge,
    Operator.Value("OPERATOR_LESS_THAN"): operator.lt,
    Operator.Value("OPERATOR_LESS_THAN_EQUAL"): operator.le,
    Operator.Value("OPERATOR_CONTAINS_ANY"): lambda value, wanted: value in wanted,
}
INDEX_DEFAULTS = {  # what a server adds to a vector index's settings
    "distance": "cosine", "cleanupIntervalSeconds": 300, "dynamicEfMin": 100, "dynamicEfMax": 500, "ef": -1,
    "dynamicEfFactor": 8, "skip": False, "flatSearchCutoff": 40_000, "vectorCacheMaxObjects": 10**12,
    "efConstruction": 128, "maxConnections": 32,
}  # fmt: skip
SHARDS = {
    "virtualPerPhysical": 128, "desiredCount": 1, "actualCount": 1, "desiredVirtualCount": 128,
    "actualVirtualCount": 128, "key": "_id", "strategy": "hash", "function": "murmur3",
}  # fmt: skip


class WeaviateStandIn:
    """`with WeaviateStandIn() as server:` then `server.url` and `server.grpc_port`."""

    def __init__(self) -> None:
        self.schemas: dict[str, dict] = {}
        self.objects: dict[str, dict[str, tuple[dict, np.ndarray]]] = {}  # class -> uuid -> properties, vector

    def __enter__(self) -> "WeaviateStandIn":
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Rest,), {"server_state": self}))
        Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(Data(self), self._grpc)
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.unary_unary_rpc_method_handler(
                lambda request, context: health_weaviate_pb2.WeaviateHealthCheckResponse(status=1),
                request_deserializer=health_weaviate_pb2.WeaviateHealthCheckRequest.FromString,
                response_serializer=health_weaviate_pb2.WeaviateHealthCheckResponse.SerializeToString)}),))  # fmt: skip
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(0).wait()


class Rest(BaseHTTPRequestHandler):
    """Schemas and what the client asks when it connects."""

    server_state: WeaviateStandIn
    protocol_version = "HTTP/1.0"  # a connection for each request: none outlives the server

    def log_message(self, *words: object) -> None:
        """Silence."""

    def answer(self, code: int, body: object = None) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:  # noqa: N802
        state, path = self.server_state, self.path.split("?")[0]
        if path == "/v1/meta":
            self.answer(200, {"version": "1.30.5", "hostname": "stand-in", "modules": {}})
        elif path == "/v1/schema":
            self.answer(200, {"classes": list(state.schemas.values())})
        elif path.startswith("/v1/schema/") and path.rsplit("/", 1)[1] in state.schemas:
            self.answer(200, state.schemas[path.rsplit("/", 1)[1]])
        else:
            self.answer(200 if path.endswith(("ready", "live")) else 404)

    def do_POST(self) -> None:  # noqa: N802
        schema = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/schema":  # single objects, tenants, references
            self.answer(404)
            return
        full = {"vectorizer": "none", "multiTenancyConfig": {"enabled": False}, "replicationConfig": {"factor": 1},
                "shardingConfig": SHARDS, **schema}  # fmt: skip
        defaults = {"indexFilterable": True, "indexSearchable": True, "indexRangeFilters": False}
        full["properties"] = [defaults | prop for prop in schema["properties"]]
        for vector in full["vectorConfig"].values():
            vector["vectorIndexConfig"] = INDEX_DEFAULTS | vector.get("vectorIndexConfig", {})
        inverted = full.setdefault("invertedIndexConfig", {"bm25": {"b": 0.75, "k1": 1.2}})
        inverted["stopwords"] = {"preset": "en", "additions": None, "removals": None} | inverted.get("stopwords", {})
        inverted["cleanupIntervalSeconds"] = 60
        self.server_state.schemas[schema["class"]] = full
        self.server_state.objects[schema["class"]] = {}
        self.answer(200, full)

    def do_DELETE(self) -> None:  # noqa: N802
        name = self.path.rsplit("/", 1)[1]
        self.server_state.schemas.pop(name, None)
        self.server_state.objects.pop(name, None)
        self.answer(200)


class Data(weaviate_pb2_grpc.WeaviateServicer):
    """Objects: write, delete, count, search."""

    def __init__(self, state: WeaviateStandIn) -> None:
        self.state = state

    def BatchObjects(self, request, context):  # noqa: N802
        for one in request.objects:
            kinds = {prop["name"]: prop["dataType"] for prop in self.state.schemas[one.collection]["properties"]}
            values = MessageToDict(one.properties.non_ref_properties)
            values = {name: int(value) if kinds[name] == ["int"] else value for name, value in values.items()}
            packed = one.vector_bytes or one.vectors[0].vector_bytes
            self.state.objects[one.collection][one.uuid] = values, np.frombuffer(packed, "<f4")
        return batch_pb2.BatchObjectsReply()

    def BatchDelete(self, request, context):  # noqa: N802
        table = self.state.objects[request.collection]
        doomed = self.passing(request)[:10_000]
        for name in doomed:
            del table[name]
        return batch_delete_pb2.BatchDeleteReply(matches=len(doomed), successful=len(doomed))

    def Aggregate(self, request, context):  # noqa: N802
        single = aggregate_pb2.AggregateReply.Single(objects_count=len(self.passing(request)))
        return aggregate_pb2.AggregateReply(single_result=single)

    def Search(self, request, context):  # noqa: N802
        names = self.passing(request)
        if request.HasField("hybrid_search"):
            ask = request.hybrid_search
            alpha = ask.alpha_param if ask.use_alpha_param else ask.alpha
            vector = np.frombuffer(ask.vector_bytes or ask.vectors[0].vector_bytes, "<f4")
            found: dict[str, float] = {}
            halves = ((alpha, self.near(request, names, vector)), (1 - alpha, self.words(request, names, ask)))
            for weight, ranking in halves:
                for rank, (name, _) in enumerate(ranking[:100], start=1):
                    found[name] = found.get(name, 0.0) + weight / (60 + rank)
            hits = sorted(((n, s) for n, s in found.items() if s > 0), key=lambda pair: -pair[1])
        elif request.HasField("bm25_search"):
            hits = self.words(request, names, request.bm25_search)
        elif request.HasField("near_vector"):
            ask = request.near_vector
            packed = ask.vector_bytes or ask.vectors[0].vector_bytes
            hits = self.near(request, names, np.frombuffer(packed, "<f4"))
        else:
            hits = [(name, 0.0) for name in names]
        return search_get_pb2.SearchReply(results=[self.result(request, *hit) for hit in hits[: request.limit]])

    def result(self, request, name: str, score: float):
        values, vector = self.state.objects[request.collection][name]
        one = search_get_pb2.SearchResult()
        one.metadata.id, one.metadata.id_as_bytes = name, uuid.UUID(name).bytes
        one.metadata.score, one.metadata.score_present = score, True
        one.metadata.distance, one.metadata.distance_present = 1 - score, True
        one.metadata.vector_bytes = struct.pack(f"<{len(vector)}f", *vector)
        for key, value in values.items():
            kind = {bool: "bool_value", int: "int_value", float: "number_value", str: "text_value"}[type(value)]
            setattr(one.properties.non_ref_props.fields[key], kind, value)
        return one

    def near(self, request, names: list[str], vector: np.ndarray) -> list[tuple[str, float]]:
        table = self.state.objects[request.collection]
        unit = vector / np.linalg.norm(vector)
        scores = [(name, float(table[name][1] @ unit / np.linalg.norm(table[name][1]))) for name in names]
        return sorted(scores, key=lambda pair: -pair[1])

    def words(self, request, names: list[str], ask) -> list[tuple[str, float]]:
        table, query = self.state.objects[request.collection], ask.query
        wanted = list(ask.properties) or ["text"]
        texts = [" ".join(table[name][0][one] for one in wanted).split() for name in table]
        index = bm25s.BM25()
        index.index(texts, show_progress=False)
        terms = [term for term in query.split() if term in index.vocab_dict]
        scores = dict(zip(table, index.get_scores(terms) if terms else np.zeros(len(table)), strict=True))
        return sorted(((n, float(scores[n])) for n in names if scores[n] > 0), key=lambda pair: -pair[1])

    def passing(self, request) -> list[str]:
        table = self.state.objects[request.collection]
        if not request.HasField("filters"):
            return list(table)
        return [name for name, (values, _) in table.items() if passes(request.filters, values | {"_id": name})]


def passes(where, values: dict) -> bool:
    """A filter of the protocol, on one object."""
    if where.operator in (Operator.Value("OPERATOR_AND"), Operator.Value("OPERATOR_OR")):
        join = all if where.operator == Operator.Value("OPERATOR_AND") else any
        return join(passes(part, values) for part in where.filters)
    wanted = getattr(where, where.WhichOneof("test_value"))
    wanted = list(wanted.values) if hasattr(wanted, "values") else wanted
    return COMPARE[where.operator](values[where.target.property], wanted)
