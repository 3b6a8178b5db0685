"""What is special about Milvus Lite, as tests: each names the surprise that it pins down."""

import logging

import numpy as np
import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import CollectionSpec, Record, open_store
from stage2_rag_finetune_deploy.vector_db.exact import exact_neighbours, recall_at_k
from stage2_rag_finetune_deploy.vector_db.milvus_store import MilvusStore

HOLDER = (
    "from stage2_rag_finetune_deploy.vector_db import open_store; import sys\n"
    "store = open_store('milvus-lite', sys.argv[1]); print('open', flush=True); sys.stdin.read()"
)


def test_two_processes_on_one_file(tmp_path, spawn):
    """Catches: a traceback of the embedded server, or a second writer that is let in."""
    path = tmp_path / "shared.db"
    child = spawn("-c", HOLDER, path)
    assert child.stdout.readline() == "open\n"
    with pytest.raises(LabError, match="another process has .*shared.db open") as caught:
        open_store("milvus-lite", path)
    assert "milvus" in caught.value.try_next
    child.kill()
    child.wait()
    open_store("milvus-lite", path).close()


def test_two_clients_of_one_process_share_it(tmp_path):
    """Catches: the first close that ends the server of the second; a folder that stays locked when all are closed."""
    first, second = (MilvusStore(tmp_path / "both.db") for _ in range(2))
    docs = first.create(CollectionSpec("docs", 4))
    docs.upsert([Record("a", np.ones(4))])
    first.close()
    assert second.open("docs").count() == 1
    second.close()
    MilvusStore(tmp_path / "both.db").close()


@pytest.mark.parametrize(("name", "word"), [("shop", "must end in .db"), ("old.db", "is a file")])
def test_paths_that_it_cannot_open(tmp_path, name, word):
    """Catches: a path without .db, which pymilvus takes for a server's address; the file of Milvus Lite 2."""
    (tmp_path / "old.db").write_bytes(b"SQLite format 3\0")
    with pytest.raises(LabError, match=word):
        open_store("milvus-lite", tmp_path / name)


def test_errors_are_told_once(tmp_path, capfd):
    """Catches: pymilvus' own log of a traceback beside our one line."""
    with MilvusStore(tmp_path / "quiet.db") as store, pytest.raises(LabError, match="refused to look"):
        store.call("look", lambda: store.client.describe_collection("nothing"))
    assert logging.getLogger("pymilvus").level > logging.CRITICAL
    assert "Traceback" not in "".join(capfd.readouterr())


def test_search_effort_counts_only_after_persist(tmp_path):
    """Catches: a recall curve measured on rows that Milvus Lite compares one by one, whatever `ef` says.

    Rows in memory, and sealed ones of a collection that was not loaded again, are searched exactly: the same recall
    for every effort, and a hundred times slower. `persist` builds the index; from then on the effort matters.
    """
    draw = np.random.default_rng(1)
    vectors, queries = draw.normal(size=(1500, 24)).astype(np.float32), draw.normal(size=(30, 24)).astype(np.float32)
    truth = [[str(row) for row in rows] for rows in exact_neighbours(queries, vectors, 10)]
    with MilvusStore(tmp_path / "effort.db") as store:
        docs = store.create(CollectionSpec("docs", 24, links=4, build_effort=20))

        def recall(effort: int) -> float:
            options = {"search_params": {"metric_type": "COSINE", "params": {"ef": effort}}, "anns_field": "vector"}
            found = store.client.search("docs", data=list(queries), limit=10, **options)
            return recall_at_k([[hit["id"] for hit in hits] for hits in found], truth, 10)

        docs.upsert([Record(str(i), vector) for i, vector in enumerate(vectors)])
        assert recall(10) == recall(500) == 1.0
        docs.persist()
        assert recall(10) + 0.05 < recall(500)


def test_bm25_scores_are_made_positive(tmp_path):
    """Catches: Milvus Lite's BM25 scores, which carry the sign of a distance, handed on as they are."""
    with MilvusStore(tmp_path / "sign.db") as store:
        docs = store.create(CollectionSpec("docs", 4))
        docs.upsert([Record(str(i), np.ones(4), text) for i, text in enumerate(["red fox", "red", "blue"])])
        raw = store.client.search("docs", data=["fox red"], anns_field="sparse", limit=2, output_fields=["text"])[0]
        assert [hit["distance"] for hit in raw] == sorted(hit["distance"] for hit in raw)  # most negative first
        scores = [hit.score for hit in docs.search_text("fox red", 2)]
        assert scores[0] > scores[1] > 0
