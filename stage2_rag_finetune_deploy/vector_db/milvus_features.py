"""What Milvus has beyond the narrow interface, tried on a live one: each function is an example to copy from.

Each takes a client and says in a few words what happened; a Milvus that lacks the feature says so itself.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from pymilvus import (
    AnnSearchRequest,
    DataType,
    Function,
    FunctionType,
    MilvusClient,
    MilvusException,
    RRFRanker,
    WeightedRanker,
)

from stage2_rag_finetune_deploy.vector_db.exact import exact_neighbours, recall_at_k
from stage2_rag_finetune_deploy.vector_db.patience import reason

INDEXES: dict[str, tuple[dict, str, tuple[int, int]]] = {  # build parameters, name of the search effort, low and high
    "FLAT": ({}, "", (0, 0)),
    "IVF_FLAT": ({"nlist": 64}, "nprobe", (1, 64)),
    "IVF_SQ8": ({"nlist": 64}, "nprobe", (1, 64)),
    "IVF_PQ": ({"nlist": 64, "m": 10, "nbits": 8}, "nprobe", (1, 64)),
    "SCANN": ({"nlist": 64}, "nprobe", (1, 64)),
    "HNSW": ({"M": 8, "efConstruction": 100}, "ef", (10, 200)),
}
LEVELS = ("Strong", "Session", "Bounded", "Eventually")
SECONDS = 60


@contextmanager
def collection(
    client: MilvusClient, dimensions: int, index: str = "FLAT", params: dict | None = None, **options: object
) -> Iterator[str]:
    """A throw-away collection of id, vector, kind and number; yields its name."""
    name = "feature"
    client.drop_collection(name)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
    schema.add_field("kind", DataType.VARCHAR, max_length=32, is_partition_key="num_partitions" in options)
    schema.add_field("number", DataType.INT64)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type=index, metric_type="COSINE", params=params or {})
    client.create_collection(name, schema=schema, index_params=indexes, timeout=SECONDS, **options)
    try:
        yield name
    finally:
        client.drop_collection(name)


def rows_of(vectors: np.ndarray, start: int = 0) -> list[dict]:
    """Rows with ids from `start`; kinds take turns."""
    kinds = ("news", "shop", "law", "song")
    return [
        {"id": start + i, "vector": vector, "kind": kinds[i % 4], "number": i} for i, vector in enumerate(vectors)
    ]


def partitions(client: MilvusClient, vectors: np.ndarray) -> str:
    """Parts with names of their own: written to and searched by name, dropped whole (last month's news)."""
    with collection(client, vectors.shape[1]) as name:
        for month, part in zip(("january", "february"), np.array_split(vectors[:200], 2), strict=True):
            client.create_partition(name, month)
            client.insert(name, rows_of(part, 1000 * len(client.list_partitions(name))), partition_name=month)
        options = {"data": [vectors[0]], "limit": 200, "consistency_level": "Strong"}
        one = len(client.search(name, partition_names=["january"], **options)[0])
        both = len(client.search(name, **options)[0])
    return f"a search sees {one} rows of one partition, {both} of both"


def partition_key(client: MilvusClient, vectors: np.ndarray) -> str:
    """A field that chooses the partition by hash: one collection for many tenants, and a filter reads one part."""
    with collection(client, vectors.shape[1], num_partitions=16) as name:
        client.insert(name, rows_of(vectors[:200]))
        found = client.search(name, data=[vectors[0]], limit=200, filter='kind == "law"', consistency_level="Strong")
        parts = len(client.list_partitions(name))
    return f"{parts} partitions by hash, a filter on the key finds its {len(found[0])} of 200"


def scalar_index(client: MilvusClient, vectors: np.ndarray) -> str:
    """An inverted index over a field that filters ask; the server uses it by itself."""
    with collection(client, vectors.shape[1]) as name:
        client.insert(name, rows_of(vectors))
        client.flush(name)
        indexes = client.prepare_index_params()
        indexes.add_index("number", index_type="INVERTED" if is_lite(client) else "STL_SORT")
        client.create_index(name, indexes)
        found = client.query(name, filter="number < 7", output_fields=["number"], consistency_level="Strong")
        kind = client.describe_index(name, client.list_indexes(name, "number")[0])["index_type"]
    return f"{kind}: {len(found)} rows below 7"


def index_type(client: MilvusClient, vectors: np.ndarray, queries: np.ndarray, index: str) -> str:
    """Recall@10 at a low and a high effort. Before `load` reads the sealed rows, both would be exact (Milvus Lite)."""
    params, setting, efforts = INDEXES[index]
    truth = exact_neighbours(queries, vectors, 10).tolist()
    with collection(client, vectors.shape[1], index, params) as name:
        client.insert(name, rows_of(vectors))
        client.flush(name)
        wait_for_index(client, name)
        recalls = []
        for effort in efforts if setting else efforts[:1]:
            search = {"metric_type": "COSINE", "params": {setting: effort} if setting else {}}
            found = client.search(name, data=list(queries), limit=10, search_params=search, consistency_level="Strong")
            recalls.append(recall_at_k([[hit["id"] for hit in hits] for hits in found], truth, 10))
    if not setting:
        return f"recall@10 {recalls[0]:.2f}"
    return f"{setting} {efforts[0]}: {recalls[0]:.2f}, {setting} {efforts[1]}: {recalls[1]:.2f}"


def wait_for_index(client: MilvusClient, name: str) -> None:
    """Until the server has built it and uses it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if not int(client.describe_index(name, "vector").get("pending_index_rows", 0)):
            break
        time.sleep(0.2)
    client.release_collection(name)
    client.load_collection(name, timeout=SECONDS)


def consistency(client: MilvusClient, vectors: np.ndarray) -> dict[str, str]:
    """For each level the first read after a write, ten times: how long it takes, how often it sees the write."""
    found = {}
    with collection(client, vectors.shape[1]) as name:
        client.insert(name, rows_of(vectors[:100]))
        for number, level in enumerate(LEVELS, start=1):
            seen, times = 0, []
            for i in range(10):
                row = 1000 * number + i
                client.upsert(name, rows_of(vectors[i : i + 1], row))
                started = time.perf_counter()
                rows = client.query(name, filter=f"id == {row}", output_fields=["id"], consistency_level=level)
                times.append((time.perf_counter() - started) * 1000)
                seen += len(rows)
            found[level] = f"sees its own write {seen} of 10 times, {np.median(times):.0f} ms a read"
    return found


def full_text(client: MilvusClient, vectors: np.ndarray) -> str:
    """BM25 by a function of the schema (2.5 and later): text goes in, a sparse vector is kept; both halves fused."""
    name = "feature"
    client.drop_collection(name)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    schema.add_field("text", DataType.VARCHAR, max_length=1000, enable_analyzer=True)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["sparse"]))
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="FLAT", metric_type="COSINE")
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection(name, schema=schema, index_params=indexes, timeout=SECONDS)
    try:
        texts = ["a badger by the river", "the river bank", "an otter", "no water here"]
        client.insert(name, [{"id": i, "vector": vectors[i], "text": text} for i, text in enumerate(texts)])
        words = AnnSearchRequest(["badger river"], "sparse", {"metric_type": "BM25"}, 4)
        dense = AnnSearchRequest([vectors[2]], "vector", {"metric_type": "COSINE"}, 4)
        first = {
            label: client.hybrid_search(name, [dense, words], ranker, limit=2, consistency_level="Strong")[0][0]["id"]
            for label, ranker in (("RRF", RRFRanker(60)), ("weights .1/.9", WeightedRanker(0.1, 0.9)))
        }
        alone = client.search(name, ["badger river"], anns_field="sparse", limit=4, consistency_level="Strong")[0]
        return f"BM25 finds {[hit['id'] for hit in alone]}; first when fused: {first}"
    finally:
        client.drop_collection(name)


def alias(client: MilvusClient, vectors: np.ndarray) -> str:
    """A second name that is moved in one step: fill a new collection with a new model's vectors, then switch."""
    with collection(client, vectors.shape[1]) as name:
        client.insert(name, rows_of(vectors[:10]))
        client.create_alias(name, "live")
        found = len(client.query("live", filter="id >= 0", output_fields=["id"], consistency_level="Strong"))
        client.drop_alias("live")
    return f"the alias answers with {found} rows"


def try_all(
    client: MilvusClient, vectors: np.ndarray, queries: np.ndarray, indexes: Sequence[str] = tuple(INDEXES)
) -> dict[str, str]:
    """Every feature by name, and what happened."""
    trials: dict[str, Callable[[], str]] = {
        "partitions": lambda: partitions(client, vectors),
        "partition key": lambda: partition_key(client, vectors),
        "index over a field": lambda: scalar_index(client, vectors),
        "BM25 function, hybrid": lambda: full_text(client, vectors),
        "alias": lambda: alias(client, vectors),
    }
    for index in indexes:
        trials[f"index {index}"] = lambda index=index: index_type(client, vectors, queries, index)
    found = {name: attempt(trial) for name, trial in trials.items()}
    return found | {f"consistency {level}": words for level, words in consistency(client, vectors).items()}


def attempt(trial: Callable[[], str]) -> str:
    """What happened, or the store's own refusal."""
    try:
        return trial()
    except MilvusException as error:
        return f"not here: {reason(error)}"


def is_lite(client: MilvusClient) -> bool:
    """Whether the client talks to Milvus Lite."""
    return "lite" in str(client.get_server_version()) and "v2." not in str(client.get_server_version())
