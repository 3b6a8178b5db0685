"""A real Milvus server, its crashes, and what surprises about it. Each test names the bug or surprise it pins down."""

import socket

import numpy as np
import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import CollectionSpec, Record, open_store
from stage2_rag_finetune_deploy.vector_db.crash import NAME, Writer
from stage2_rag_finetune_deploy.vector_db.milvus_server import MilvusServer, free_ports, is_free
from stage2_rag_finetune_deploy.vector_db.milvus_store import MilvusStore, version_tuple
from stage2_rag_finetune_deploy.vector_db.milvus_wheel import has_wheel

server_only = pytest.mark.skipif(not has_wheel(), reason="the package milvus has no server for this machine")


def test_an_address_where_nothing_listens(dead_port):
    """Catches: a wait of minutes, a traceback of gRPC."""
    with pytest.raises(LabError, match=f"cannot reach Milvus at http://127.0.0.1:{dead_port}") as caught:
        open_store("milvus", f"http://127.0.0.1:{dead_port}")
    assert "server" in caught.value.try_next


def test_no_address(monkeypatch):
    """Catches: an empty MILVUS_URI that opens something by accident."""
    monkeypatch.delenv("MILVUS_URI", raising=False)
    with pytest.raises(LabError, match="wants the URI of a server"):
        open_store("milvus")


def test_versions():
    """Catches: 2.10 taken for older than 2.5, a suffix that breaks the comparison."""
    assert version_tuple("v2.3.5-lite") == (2, 3, 5) < (2, 5) < version_tuple("2.10.0-rc1")


def test_free_ports_are_free_and_differ():
    """Catches: one port handed out twice."""
    ports = free_ports(12)
    assert len(set(ports)) == 12 and all(map(is_free, ports))


@server_only
@pytest.mark.assets
def test_a_port_in_use(tmp_path, milvus):
    """Catches: a server that dies in its log while we wait for it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=f"port {port} is in use"):
            MilvusServer(tmp_path, port).start()
    with pytest.raises(LabError, match="runs in .* already"):
        MilvusServer(milvus.folder).start()


@server_only
@pytest.mark.assets
def test_only_some_levels_see_their_own_write(milvus):
    """Pins down: `Bounded` and `Eventually` miss the write just made; `Session` and `Strong` wait for it.

    Statistics count rows, not records: replaced ones stay in until a compaction, and those in memory are not in yet.
    """
    with MilvusStore(milvus.uri) as store:
        store.drop("levels")
        docs = store.create(CollectionSpec("levels", 4, {"n": int}, "flat"))
        docs.upsert([Record("first", np.ones(4), fields={"n": 0})])
        assert docs.count() == 1
        missed = dict.fromkeys(("Session", "Strong", "Bounded", "Eventually"), 0)
        for level in missed:
            for i in range(3):
                docs.upsert([Record(f"{level}-{i}", np.ones(4), fields={"n": i})])
                found = store.client.query("levels", filter=f'id == "{level}-{i}"', consistency_level=level)
                missed[level] += not found
        assert missed["Session"] == missed["Strong"] == 0
        assert missed["Bounded"] >= 1 and missed["Eventually"] >= 1
        statistics = store.client.get_collection_stats("levels")["row_count"]
        assert statistics != docs.count() == 13
        store.drop("levels")


@server_only
@pytest.mark.assets
def test_a_server_killed_while_a_client_writes(milvus, tmp_path):
    """Catches: an acknowledged record that is gone, a client that gives up or hangs when its server comes back.

    The writer is a process of its own and keeps notes; the server gets kill -9 in the middle and is started again.
    """
    with MilvusStore(milvus.uri) as store, Writer("milvus", milvus.uri, tmp_path / "notes", 60, 20) as writer:
        writer.wait_for(200)
        milvus.kill()
        with pytest.raises(LabError, match="lost Milvus at .*could not list collections of for 0 s") as caught:
            store.patience = 0
            store.collections()
        assert "acknowledged is kept" in caught.value.try_next
        milvus.start()
        assert writer.process.wait(60) == 0, writer.process.stderr.read()
        ids = writer.acknowledged()
        assert len(ids) == 60 * 20
        store.patience = 20
        written = store.open(NAME)
        assert len(written.get(ids)) == len(ids) == written.count()
        store.drop(NAME)
