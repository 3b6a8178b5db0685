"""What can be tested of `--source hub` without a network. Each test names the bug that it catches."""

import mteb
import pytest
from datasets import Dataset

from labkit.errors import LabError
from stage1_foundations.embeddings.bm25 import Bm25
from stage1_foundations.embeddings.evaluate_command import EvaluateConfig, chosen_models, chosen_tasks, measure
from stage1_foundations.embeddings.evaluation import HUB_TASKS, run_task
from stage1_foundations.embeddings.item_scores import split_of
from stage1_foundations.embeddings.leaderboard import summarise
from stage1_foundations.embeddings.leaderboard_views import text_of
from stage1_foundations.embeddings.published import PUBLISHED


def test_no_network_is_one_clear_error(cli, offline):
    """Catches: a traceback of datasets or huggingface_hub, and minutes of retries."""
    code, _, err = cli("evaluate", "--preset", "smoke", "--source", "hub", "--models", "bm25", "--tasks", "SciFact",
                       "--no-speed")  # fmt: skip
    assert code == 2 and "cannot get SciFact from the hub" in err and "HF_ENDPOINT" in err and "Traceback" not in err


def test_hub_models_join_the_default_rows_only():
    """Catches: three downloads that nobody asked for, when the rows were named."""
    assert "BAAI/bge-small-en-v1.5" in chosen_models(EvaluateConfig(source="hub"))
    assert chosen_models(EvaluateConfig(source="hub", models="bm25")) == ["bm25"]
    assert "BAAI/bge-small-en-v1.5" not in chosen_models(EvaluateConfig())


def test_published_scores_are_of_tasks_that_can_be_run():
    """Catches: a typo in a task's name, so that the column stays empty."""
    names, tasks = chosen_tasks(EvaluateConfig(source="hub"))
    assert set(HUB_TASKS) <= set(names)
    assert {task for scores in PUBLISHED.values() for task in scores} <= set(HUB_TASKS)
    assert all(0.2 < score / 100 < 0.9 for scores in PUBLISHED.values() for score in scores.values())


@pytest.fixture
def hub_data(monkeypatch):
    """Small data in place of a download, in the layout that mteb's own loaders leave behind."""
    corpus = [{"id": f"d{n}", "text": f"word{n} filler", "title": ""} for n in range(12)]
    queries = [{"id": f"q{n}", "text": f"word{n}"} for n in range(12)]
    qrels = {f"q{n}": {f"d{n if n < 9 else 0}": 1} for n in range(12)}  # three questions have the wrong passage

    def load(self, **_):
        split = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries), "relevant_docs": qrels,
                 "top_ranked": None}  # fmt: skip
        self.dataset, self.data_loaded = {"default": {split_of(self): split}}, True

    for name in ("NanoNFCorpusRetrieval", "SciFact"):
        monkeypatch.setattr(type(mteb.get_task(name)), "load_data", load)


def test_nanobeir_is_evaluated_on_the_split_it_has(hub_data):
    """Catches: "test" written into the code, where NanoBEIR has only "train"."""
    task = mteb.get_task("NanoNFCorpusRetrieval")
    assert split_of(task) == "train"
    cell = run_task(Bm25(), task)
    assert cell.score == pytest.approx(9 / 12, abs=0.02) and len(cell.items.values) == 12
    assert run_task(Bm25(), task).cached


def test_difference_to_the_published_score_is_shown(hub_data):
    """Catches: a hub task without its published column."""
    config = EvaluateConfig(source="hub", models="bm25", tasks="SciFact", speed=False)
    summary = summarise(measure(config, "study", *chosen_tasks(config)))
    ours = 100 * summary.cells["bm25", "SciFact"].score
    assert text_of(summary, "bm25", "published SciFact") == f"68.7 {ours - 68.7:+.1f}"


def test_unknown_names_point_to_the_nearest(cli):
    """Catches: an empty table for a task that does not exist, or for a hub task without `--source hub`."""
    with pytest.raises(LabError, match="no task is called Sqad"):
        chosen_tasks(EvaluateConfig(tasks="Sqad"))
    code, _, err = cli("evaluate", "--tasks", "NFCorpus")
    assert code == 2 and "no task is called NFCorpus" in err
