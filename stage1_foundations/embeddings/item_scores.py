"""From mteb's predictions to one value a query: what confidence intervals are made of.

mteb averages; it keeps its predictions when asked (`prediction_folder`), and its own measure is computed on them again,
query by query. That the mean of the values is mteb's score is a test, for every kind of task.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval
from mteb.abstasks import AbsTask
from mteb.results import TaskResult

from stage1_foundations.embeddings.bootstrap import Items


def read_items(task: AbsTask, result: TaskResult, folder: Path) -> Items:
    """The values behind a task's main score.

    Args:
        task: with its data loaded.
        result: mteb's result.
        folder: the prediction folder of the evaluation.

    Raises:
        OSError, ValueError, KeyError: the predictions are absent, damaged, or of other data.
    """
    kind = task.metadata.type
    if kind == "Clustering":
        levels = result.scores[split_of(task)][0]["v_measures"]
        return Items("replicates", np.array(levels["Level 0"]))
    stored = json.loads((folder / task.prediction_file_name).read_text(encoding="utf-8"))
    predictions = stored["default"][split_of(task)]
    reader = {"Retrieval": ndcg_of_queries, "STS": pairs, "Classification": hits, "BitextMining": matches}[kind]
    items = reader(task, predictions)
    if len(items.values) != item_count(task):
        raise ValueError(f"{folder} holds predictions for {len(items.values)} items")
    return items


def item_count(task: AbsTask) -> int:
    """Queries, pairs or texts of a task's test part."""
    part = test_part(task)
    return len(part["relevant_docs"] if task.metadata.type == "Retrieval" else part)


def split_of(task: AbsTask) -> str:
    """The split that is evaluated: "test" nearly everywhere, "train" in NanoBEIR."""
    return task.metadata.eval_splits[0]


def test_part(task: AbsTask) -> Any:
    """The data of that split, whether or not a subset stands before it."""
    split = split_of(task)
    return task.dataset[split] if split in task.dataset else task.dataset["default"][split]


def ndcg_of_queries(task: AbsTask, predictions: dict[str, dict[str, float]]) -> Items:
    """nDCG@10 of every query, in the order of their ids."""
    qrels = test_part(task)["relevant_docs"]
    measured = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(predictions)
    return Items("mean", np.array([measured[query]["ndcg_cut_10"] for query in sorted(measured)]))


def pairs(task: AbsTask, predictions: dict[str, list[float]]) -> Items:
    """Cosine and human rating of every pair."""
    part = test_part(task)
    numbers: dict[str, int] = {}
    first, second = part["sentence1"], part["sentence2"]
    sides = [[numbers.setdefault(text, len(numbers)) for text in pair] for pair in zip(first, second, strict=True)]
    return Items("spearman", np.array(predictions["cosine_scores"]), np.array(part["score"]), np.array(sides))


def hits(task: AbsTask, predictions: list[list[int]]) -> Items:
    """How often each text was classified rightly over mteb's experiments, 0 to 1."""
    gold = np.array(test_part(task)[task.label_column_name])
    return Items("mean", (np.array(predictions) == gold).mean(axis=0))


def matches(task: AbsTask, predictions: dict[str, list[dict[str, float]]]) -> Items:
    """1 where a sentence found its translation."""
    found = np.array([neighbour["corpus_id"] for neighbour in predictions["sentence1-sentence2"]])
    return Items("mean", (found == np.arange(len(found))).astype(float))
