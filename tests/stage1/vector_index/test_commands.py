"""Each test names the bug that it catches. The commands run at the `smoke` preset, as a learner would type them."""

import json

import numpy as np
import pytest

from labkit.runs import read_report
from stage1_foundations.vector_index import task
from stage1_foundations.vector_index.bench import compare
from stage1_foundations.vector_index.measure import Built, Point
from stage1_foundations.vector_index.recall import DEFINITION
from stage1_foundations.vector_index.sweep import Row


def report_of(runs, command):
    """The newest report of a command; its figures exist and are PNGs."""
    folder = runs / "stage1" / "vector_index" / f"latest-{command}"
    report = read_report(folder)
    assert report["status"] == "finished" and report["learnt"] and report["data"]
    for figure in report["figures"]:
        assert (folder / figure["path"]).read_bytes().startswith(b"\x89PNG")
    return folder, report


def plain(text: str) -> str:
    """Without the terminal's line breaks."""
    return " ".join(text.split())


def test_sweep(cli, runs):
    """Catches: a library left out, a row without points, a definition that is not printed."""
    code, out, error = cli("sweep", "--preset", "smoke", "--libraries", "ours,faiss,usearch")
    assert code == 0, error
    folder, report = report_of(runs, "sweep")
    rows = json.loads((folder / "sweep.json").read_text())
    assert {(row["library"], row["family"]) for row in rows} == {
        ("ours", "flat"), ("faiss", "flat"), ("ours", "ivf"), ("faiss", "ivf"), ("ours", "hnsw"), ("faiss", "hnsw"),
        ("usearch", "hnsw"),
    }  # fmt: skip
    for row in rows:
        recalls = [point["recall"] for point in row["points"]]
        assert recalls and min(recalls) > 0 and max(recalls) <= 1 and row["built"]["bytes_per_vector"] > 256
        assert all(0 < point["p50_ms"] <= point["p95_ms"] and point["batch_qps"] > 0 for point in row["points"])
    assert DEFINITION.replace("@k", "@10", 1) in plain(out)
    for metric in ("hnsw_best_recall", "ivf_best_recall", "ivf_recall_against_faiss", "hnsw_recall_against_faiss"):
        low, high = report["metrics"][metric]["band"]
        assert low <= report["metrics"][metric]["value"] <= high


def test_sweep_prints_a_dash_where_a_recall_is_not_reached(cli, runs):
    """Catches: an extrapolated speed for codes that cannot reach recall .99."""
    words = ["--libraries", "ours", "--families", "pq", "--parts", 4]
    code, out, error = cli("sweep", "--preset", "smoke", *words)
    assert code == 0, error
    line = next(line for line in out.splitlines() if line.strip().startswith("ours pq"))
    assert line.split()[-3:] == ["-", "-", "-"]


def test_clusters(cli, runs):
    """Catches: two sets that are the same; a figure of the one in the column of the other."""
    code, out, error = cli("clusters", "--preset", "smoke")
    assert code == 0, error
    folder, _ = report_of(runs, "clusters")
    even, grouped = json.loads((folder / "clusters.json").read_text())
    assert even["data"] == "uniform" and grouped["data"] == "clustered"
    assert even["intrinsic_dimension"] > 20 > grouped["intrinsic_dimension"]
    assert even["pq"]["8"] < grouped["pq"]["8"] and even["ivf"] < grouped["ivf"]
    assert even["code_error"] > grouped["code_error"] and even["gap"] < grouped["gap"]
    assert grouped["ivf_pq_refine"] > grouped["ivf_pq"]


def test_bench(cli, runs):
    """Catches: a line that is no JSON; a bar that is computed the wrong way round."""
    code, out, error = cli("bench", "--preset", "smoke", "--libraries", "ours,faiss", "--data", "clustered")
    assert code == 0, error
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["bench"] for line in lines] == ["flat", "ivf", "hnsw"]
    for line in lines:
        assert line["threads"] == 1 and line["vectors"] == 3000 and set(line["qps"]) == {"ours", "faiss"}
        for low, median, high in (*line["qps"].values(), *line["batch_qps"].values(), line["ours_over_faiss"]):
            assert 0 < low <= median <= high
        assert f"{line['bench']} one by one" in error and f"{line['bench']} in a batch" in error
    _, report = report_of(runs, "bench")
    assert {"flat_speed", "ivf_speed", "hnsw_speed"} == set(report["metrics"])


def test_bench_compares_within_a_repetition():
    """Catches: ours of one repetition over faiss's of another; the ratio upside down; a mean for a median."""
    built = Built("x", 1.0, 200.0)

    def row(library: str, qps: float) -> Row:
        return Row(library, "ivf", built, 200.0, [Point("x", 1, 0.96, qps, 1, 1, 10 * qps)])

    line = compare([[row("ours", ours), row("faiss", theirs)] for ours, theirs in ((10, 20), (90, 90), (40, 20))], 0.95)
    assert line["ours_over_faiss"] == [0.5, 1.0, 2.0] == line["ours_over_faiss_batch"]
    assert line["qps"] == {"ours": [10, 40, 90], "faiss": [20, 20, 90]}
    missed = compare([[row("ours", 10), row("faiss", 20)]], 0.97)
    assert missed["qps"] == {"ours": None, "faiss": None} and missed["ours_over_faiss"] is None


@pytest.mark.assets
def test_task(cli, runs):
    """Catches: nDCG of the wrong questions; a curve that does not end at exact search."""
    code, out, error = cli("task", "--preset", "smoke", "--encoder", "glove")
    assert code == 0, error
    folder, _ = report_of(runs, "task")
    found = json.loads((folder / "task.json").read_text())
    assert 0.2 < found["exact"] < 0.9
    last = {item["index"]: item for item in found["outcomes"]}  # from bad to good
    assert set(last) == {"lost by chance", "IVF", "PQ", "HNSW"}
    for index in ("lost by chance", "IVF"):
        assert last[index]["recall"] == 1.0 and last[index]["ndcg"] == pytest.approx(found["exact"])
    first = {}
    for item in found["outcomes"]:
        first.setdefault(item["index"], item)
    assert all(first[index]["recall"] < last[index]["recall"] for index in last)
    assert first["lost by chance"]["ndcg"] < 0.4 * found["exact"]


@pytest.mark.assets
def test_task_too_few_passages(cli):
    """Catches: an index of fewer vectors than results."""
    code, _, error = cli("task", "--preset", "smoke", "--queries", 5, "--passages", 20)
    assert code == 2 and "20 passages are too few" in error


@pytest.mark.assets
def test_sweep_of_words_and_of_passages(cli, runs):
    """Catches: a data set that only the larger presets read."""
    for words in (["--data", "glove"], ["--data", "passages", "--encoder", "glove", "--vectors", 400]):
        code, out, error = cli("sweep", "--preset", "smoke", "--libraries", "ours", "--families", "flat", *words)
        assert code == 0, error
        assert "1.000" in out


def test_dropped_keeps_the_order_and_the_share():
    """Catches: neighbours that change places; a chance that is not the one asked for."""
    ids = np.tile(np.arange(50), (2000, 1))
    kept = task.dropped(ids, 0.6, seed=1)
    assert kept.shape == (2000, 10) and (np.diff(kept, axis=1) > 0).all()
    assert (kept < 10).sum() / (10 * 2000) == pytest.approx(0.6, abs=0.01)
    np.testing.assert_array_equal(task.dropped(ids, 1.0, seed=1), ids[:, :10])


def test_overview_names_every_command(cli):
    """Catches: a command that nobody can find."""
    code, out, _ = cli()
    assert code == 0 and all(word in out for word in ("sweep", "task", "clusters", "bench", "all", "smoke", "study"))
