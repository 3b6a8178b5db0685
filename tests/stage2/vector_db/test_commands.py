"""The command line as a learner types it. Each test names the bug that it catches."""

import json

import pytest

from stage2_rag_finetune_deploy.vector_db import compare, crash, features


def report(folder, command: str) -> dict:
    return json.loads((folder / "runs/stage2/vector_db" / f"latest-{command}" / "report.json").read_text())


@pytest.mark.assets
def test_compare_measures_each_store(cli, tmp_path):
    """Catches: a row without figures, a recall of the wrong vectors, a disk that holds nothing."""
    code, out, err = cli("compare", "--preset", "smoke", "--stores", "faiss-flat,milvus-lite", "--sizes", "300,600")
    assert code == 0, err
    metrics = report(tmp_path, "compare")["metrics"]
    for store in ("faiss-flat", "milvus-lite"):
        for size in (300, 600):
            assert 0.9 <= metrics[f"{store}.{size}.recall"]["value"] <= 1 and f"{size}" in out
            assert metrics[f"{store}.{size}.ingest"]["value"] > 0 < metrics[f"{store}.{size}.p50"]["value"]
            assert metrics[f"{store}.{size}.disk"]["value"] > size * 50 * 4
    assert metrics["faiss-flat.600.recall"]["value"] == 1
    assert (tmp_path / "runs/stage2/vector_db/latest-compare/growth.png").stat().st_size > 10_000


@pytest.mark.assets
def test_compare_leaves_out_what_is_not_there(cli, tmp_path, monkeypatch, dead_port):
    """Catches: one unreachable server that spoils the whole table; a gap in it that nobody explains."""
    monkeypatch.setenv("WEAVIATE_URL", f"http://127.0.0.1:{dead_port}")
    code, out, _ = cli("compare", "--stores", "faiss-flat,weaviate", "--sizes", "300", "--queries", 5)
    assert code == 0 and "left out: weaviate: cannot reach Weaviate" in out
    assert not any(name.startswith("weaviate") for name in report(tmp_path, "compare")["metrics"])
    code, _, err = cli("compare", "--stores", "weaviate", "--sizes", "300", "--queries", 5)
    assert code == 2 and "cannot reach Weaviate" in err


@pytest.mark.assets
def test_features_are_tried(cli, tmp_path):
    """Catches: a feature that is claimed and fails; a refusal that ends the command."""
    code, out, err = cli("features", "--preset", "smoke")
    assert code == 0, err
    found = json.loads((tmp_path / "runs/stage2/vector_db/latest-features/features.json").read_text())["milvus-lite"]
    assert found["partitions"] == "a search sees 100 rows of one partition, 200 of both"
    assert "finds its 50 of 200" in found["partition key"] and found["index IVF_PQ"].startswith("not here")
    assert "BM25 finds [0, 1]" in found["BM25 function, hybrid"] and "10 of 10" in found["consistency Strong"]
    assert "milvus-lite" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare", "--stores", "fais"), "unknown store 'fais'"),
        (("compare", "--stores", " , "), "no stores"),
        (("compare", "--sizes", "many"), "whole numbers"),
        (("features", "--stores", "faiss"), "unknown store 'faiss'"),
        (("features", "--indexes", "HNWS"), "unknown index 'HNWS'"),
        (("crash", "--stores", "fiass"), "unknown store 'fiass'"),
        (("server", "--port", "99999"), "no port 99999"),
        (("write", "--store", "redis"), "unknown store 'redis'"),
        (("write", "--location", ""), "where is the store"),
    ],
)
def test_a_mistyped_command(cli, tmp_path, words, message):
    """Catches: a traceback; a mistake that is found after minutes of work."""
    code, _, err = cli(*words)
    assert code == 2 and message in err and "try:" in err and "Traceback" not in err
    assert not list(tmp_path.glob("runs/stage2/vector_db/*"))


@pytest.mark.assets
def test_more_vectors_than_there_are(cli):
    """Catches: a sample that silently comes out smaller."""
    code, _, err = cli("compare", "--stores", "faiss", "--sizes", "1000000")
    assert code == 2 and "out of 400,000 words" in err


def test_presets():
    """Catches: a preset that the Makefile asks for and a command lacks."""
    for module in (compare, crash, features):
        assert {"smoke", "cpu", "study"} <= module.PRESETS.keys()
