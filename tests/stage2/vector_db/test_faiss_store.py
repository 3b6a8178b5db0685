"""The file store's own promises: the index is a cache, the table is the truth. Each test names its bug."""

import shutil
import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import CollectionSpec, Eq, Range, Record
from stage2_rag_finetune_deploy.vector_db import faiss_store as module
from stage2_rag_finetune_deploy.vector_db.exact import exact_neighbours
from stage2_rag_finetune_deploy.vector_db.faiss_store import FaissStore, reconcile

patient = settings(deadline=None)  # a busy machine is no failure


def fill(collection, ids, seed=0, text="text"):
    vectors = np.random.default_rng(seed).normal(size=(len(ids), 8)).astype(np.float32)
    pairs = enumerate(zip(ids, vectors, strict=True))
    collection.upsert([Record(name, vector, text, {"n": i}) for i, (name, vector) in pairs])
    return vectors


def test_reconcile_by_hand():
    """Catches: additions and removals the wrong way round."""
    add, forget = reconcile(np.array([7, 2, 9]), np.array([2, 5]))
    assert add.tolist() == [7, 9] and forget.tolist() == [5]


@patient
@given(st.sets(st.integers(1, 60)), st.sets(st.integers(1, 60)))
def test_reconcile(table, index):
    """Catches: an order that depends on the input's, an empty side that fails."""
    to_list = lambda numbers: np.array(list(numbers), np.int64)  # noqa: E731
    add, forget = reconcile(to_list(table), to_list(index))
    assert add.tolist() == sorted(table - index) and forget.tolist() == sorted(index - table)


@pytest.mark.parametrize("index", ["flat", "hnsw"])
@pytest.mark.parametrize("damage", ["none", "missing", "truncated", "older", "another"])
def test_an_index_in_doubt_is_made_again(tmp_path, index, damage):
    """Catches: answers from a stale, truncated or foreign snapshot after a crash."""
    spec = CollectionSpec("docs", 8, {"n": int}, index)
    with FaissStore(tmp_path / "store") as store:
        collection = store.create(spec)
        fill(collection, [f"a{i}" for i in range(50)])
        collection.persist()
        path = tmp_path / "store" / "docs" / module.INDEX
        shutil.copy(path, tmp_path / "older")
        fill(collection, [f"b{i}" for i in range(20)], seed=1)
        collection.delete(ids=["a0", "a1"])
        fill(collection, ["a2"], seed=2)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "older":
        shutil.copy(tmp_path / "older", path)
    elif damage == "another":
        path.write_bytes(path.read_bytes()[::-1])
    with FaissStore(tmp_path / "store") as store:
        collection = store.open("docs")
        everything = collection.get([f"a{i}" for i in range(50)] + [f"b{i}" for i in range(20)])
        assert len(everything) == collection.count() == 68
        vectors = np.stack([record.vector for record in everything])
        for query in np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32):
            truth = [everything[row].id for row in exact_neighbours(query[None], vectors, 5)[0]]
            assert [hit.id for hit in collection.search(query, 5)] == truth


def test_a_crash_before_persist_loses_nothing(tmp_path):
    """Catches: an index on disk that is believed although the table went on (the files of a killed process)."""
    store = FaissStore(tmp_path / "store")
    collection = store.create(CollectionSpec("docs", 8, {"n": int}))
    fill(collection, ["a", "b", "c"])
    collection.persist()
    fill(collection, ["b", "d"], seed=1, text="new")
    collection.delete(ids=["c"])
    shutil.copytree(tmp_path / "store", tmp_path / "copy")  # what kill -9 would leave
    store.close()
    with FaissStore(tmp_path / "copy") as again:
        docs = again.open("docs")
        assert sorted(hit.id for hit in docs.search(np.ones(8), 10)) == ["a", "b", "d"]
        assert docs.get(["b"])[0].text == "new"


def test_many_replacements_do_not_pile_up(tmp_path, monkeypatch):
    """Catches: an HNSW index that keeps every version of every record for ever, or finds the dead ones."""
    monkeypatch.setattr(module, "EXACT_BELOW", 20)
    with FaissStore(tmp_path / "store") as store:
        collection = store.create(CollectionSpec("docs", 8, {"n": int}))
        for round in range(12):
            vectors = fill(collection, [f"r{i}" for i in range(30)], seed=round)
        assert collection._index.ntotal < 90
        for i in (0, 13, 29):
            assert collection.search(vectors[i], 1)[0].id == f"r{i}"
        assert len(collection.search(vectors[0], 100)) == 30


def test_a_failed_write_changes_nothing(tmp_path):
    """Catches: an index that took the vectors of a transaction that was rolled back."""
    with FaissStore(tmp_path / "store") as store:
        collection = store.create(CollectionSpec("docs", 8, {"n": int}))
        vectors = fill(collection, ["a", "b"])
        trigger = "BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        collection._db.execute(f"CREATE TRIGGER full {trigger}")
        with pytest.raises(sqlite3.DatabaseError, match="disk full"):
            fill(collection, ["a", "c"], seed=9)
        collection._db.execute("DROP TRIGGER full")
        assert collection.count() == 2 and collection.search(vectors[0], 1)[0].id == "a"
        fill(collection, ["c"], seed=4)
        assert collection.count() == 3 and len(collection.search(vectors[0], 5)) == 3


def test_a_filter_is_exact_on_both_paths(tmp_path, monkeypatch):
    """Catches: a selector that HNSW ignores; a small set that is compared with the wrong rows."""
    with FaissStore(tmp_path / "store") as store:
        collection = store.create(CollectionSpec("docs", 8, {"n": int}, effort=400))
        vectors = fill(collection, [f"r{i}" for i in range(400)])
        query = np.ones(8, np.float32)
        for share in (1.0, 0.0):  # all filters by comparing, then all by HNSW
            monkeypatch.setattr(module, "EXACT_SHARE", share)
            monkeypatch.setattr(module, "EXACT_BELOW", 0)
            found = [int(hit.id[1:]) for hit in collection.search(query, 10, Range("n", at_least=200))]
            assert found == (exact_neighbours(query[None], vectors[200:], 10)[0] + 200).tolist()


def test_one_owner_at_a_time(tmp_path, spawn):
    """Catches: two processes that write one folder; a lock that outlives its process."""
    script = (
        "from stage2_rag_finetune_deploy.vector_db import open_store; import sys\n"
        f"store = open_store('faiss', {str(tmp_path / 'store')!r}); print('open', flush=True); sys.stdin.read()"
    )
    child = spawn("-c", script)
    child_out = child.stdout.readline()
    assert child_out == "open\n"
    with pytest.raises(LabError, match="is open already"):
        FaissStore(tmp_path / "store")
    child.kill()
    child.wait()
    FaissStore(tmp_path / "store").close()


def test_places_that_are_no_store(tmp_path):
    """Catches: a traceback from SQLite for a file that is something else."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(LabError, match="is a file"):
        FaissStore(tmp_path / "file")
    with FaissStore(tmp_path / "store") as store:
        store.create(CollectionSpec("docs", 8))
    (tmp_path / "store" / "docs" / module.DATA).write_bytes(b"not a database" * 100)
    for left in (tmp_path / "store" / "docs").glob("*-wal"):
        left.unlink()
    with FaissStore(tmp_path / "store") as store, pytest.raises(LabError, match="damaged"):
        store.open("docs").count(Eq("n", 1))
