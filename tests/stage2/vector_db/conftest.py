"""One Milvus server for the whole session, the four stores, and a collection of known records in each."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from lab_cli import lab_cli

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import Collection, CollectionSpec, Record, VectorStore, open_store
from stage2_rag_finetune_deploy.vector_db.milvus_server import MilvusServer
from stage2_rag_finetune_deploy.vector_db.weaviate_store import WeaviateStore
from tests.stage2.vector_db.weaviate_stand_in import WeaviateStandIn

REPOSITORY = Path(__file__).resolve().parents[3]
DIMENSIONS, ROWS = 16, 240
FIELDS = {"language": str, "year": int, "price": float, "draft": bool}
STORES = [
    "faiss",
    "milvus-lite",
    "weaviate-stand-in",
    pytest.param("milvus", marks=pytest.mark.assets),
    pytest.param("weaviate", marks=pytest.mark.assets),
]


@pytest.fixture(scope="session")
def milvus(tmp_path_factory) -> Iterator[MilvusServer]:
    """A real server. Skips where its package has none, or cannot be fetched."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    try:
        server.start()
    except LabError as error:
        pytest.skip(f"no Milvus server: {error.message}")
    yield server
    server.stop()


@pytest.fixture(scope="module", params=STORES)
def store(request, tmp_path_factory) -> Iterator[VectorStore]:
    """Each store in turn, empty."""
    if request.param == "weaviate-stand-in":
        with WeaviateStandIn() as server, WeaviateStore(server.url, grpc_port=server.grpc_port) as opened:
            yield opened
        return
    location = place_of(request, tmp_path_factory.getbasetemp() / f"store-{request.param}-{os.getpid()}")
    with open_store(request.param, location) as opened:
        for name in ("docs", "scratch", "shelf"):
            opened.drop(name)
        yield opened


def second_client(store: VectorStore) -> VectorStore:
    """Another connection to the same server."""
    if isinstance(store, WeaviateStore):
        return WeaviateStore(store.location, grpc_port=store.grpc_port)
    return open_store(store.name, store.where)


def place_of(request, folder: Path) -> str:
    """Where a test's store lies; skips where it cannot be had, with the reason."""
    if request.param == "milvus":
        return os.environ.get("MILVUS_URI") or request.getfixturevalue("milvus").uri
    if request.param == "weaviate":
        return weaviate_place(folder)
    return str(folder / "test.db")


def weaviate_place(folder: Path) -> str:
    """WEAVIATE_URL, else an embedded server, else a skip with the reason."""
    location = os.environ.get("WEAVIATE_URL") or str(folder)
    if problem := weaviate_problem(location):
        pytest.skip(problem)
    return location


@cache
def weaviate_problem(location: str) -> str:
    """Why there is no Weaviate; "" when there is one. Asked once."""
    try:
        open_store("weaviate", location).close()
        return ""
    except LabError as error:
        return error.message


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """ROWS records with random vectors, texts in two languages, and fields of every type."""
    draw = np.random.default_rng(5)
    vectors = draw.normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
    animals = ["badger", "otter", "heron", "lynx", "viper"]
    return [
        Record(
            f"doc-{i}",
            vectors[i],
            f"The {animals[i % 5]} saw river number{i}. 关羽骑马过河" if i % 3 else f"{animals[i % 5]}s at night {i}",
            {"language": ("en", "zh", 'a"b\\c', "d'e\nf")[i % 4], "year": 2000 + i % 25 - 12 * (i % 7),
             "price": round(i / 7 - 10, 2), "draft": i % 3 == 0},
        )
        for i in range(ROWS)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def docs(store, records) -> Collection:
    """The records in the store; tests only read it."""
    collection = store.create(CollectionSpec("docs", DIMENSIONS, FIELDS))
    collection.upsert(records)
    return collection


@pytest.fixture(scope="module")
def scratch(store) -> Collection:
    """A collection to write to; each test uses ids of its own."""
    return store.create(CollectionSpec("scratch", 4, {"owner": str, "n": int}))


@pytest.fixture
def note() -> Callable[..., Record]:
    """A record for `scratch`: note("a", [1, 0, 0, 0], "text", owner="test", n=1)."""

    def make(name: str, vector=(1, 0, 0, 0), text: str = "", owner: str = "", n: int = 0) -> Record:
        return Record(name, np.asarray(vector, np.float32), text, {"owner": owner, "n": n})

    return make


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """`python -m stage2_rag_finetune_deploy.vector_db` without the second process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    return lab_cli(capsys, "stage2_rag_finetune_deploy.vector_db")


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start Python in the repository; whatever still runs is killed at the end."""
    started = []

    def start(*words: object, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=REPOSITORY, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def dead_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
