"""kill -9 of a process that writes to a file store. Each test names the bug that it catches."""

import json

import pytest

from stage2_rag_finetune_deploy.vector_db.crash import crash_file_store


@pytest.mark.parametrize("store", ["faiss", "milvus-lite"])
def test_nothing_acknowledged_is_lost(store, tmp_path):
    """Catches: an acknowledgement before the write is safe; a folder that cannot be opened after a crash."""
    facts = crash_file_store(store, tmp_path, after=10, batch=10)
    assert facts["acknowledged"] >= 100 and facts["lost"] == 0
    assert facts["extra"] <= 10  # at most the batch in flight


def test_the_command_reports_it(cli, tmp_path):
    """Catches: a report without the figures, a table that says more than the report."""
    code, out, err = cli("crash", "--stores", "faiss", "--after", 3)
    assert code == 0, err
    report = json.loads((tmp_path / "runs/stage2/vector_db/latest-crash/report.json").read_text())
    assert report["metrics"]["faiss.lost"]["value"] == 0 and report["metrics"]["faiss.acknowledged"]["value"] >= 60
    assert "faiss" in out and "killed with it" in out
