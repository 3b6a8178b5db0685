"""`compare`. Each test names the bug that it catches."""

import json

import numpy as np
import pytest

import data
from labkit.runs import latest_run
from stage2_rag_finetune_deploy.rag.__main__ import main
from stage2_rag_finetune_deploy.rag.compare_command import EVERY, in_random_order
from stage2_rag_finetune_deploy.rag.comparison import row_above, with_typo
from stage2_rag_finetune_deploy.rag.variants import VARIANTS


def test_the_first_questions_are_a_random_sample():
    """Catches: dear variants asked about the first article only; a question that loses its text or its label."""
    names = [f"q{number:03}" for number in range(200)]
    loaded = data.RetrievalSet("set", "en", {"p": "text"}, {name: f"{name}?" for name in names},
                               {name: {"p": 1} for name in names})  # fmt: skip
    mixed = in_random_order(loaded, seed=1)
    assert sorted(mixed.queries) == names and all(mixed.queries[name] == f"{name}?" for name in names)
    assert 60 < np.mean([names.index(name) for name in list(mixed.queries)[:50]]) < 140
    assert list(in_random_order(loaded, seed=1).queries) == list(mixed.queries) != names


def test_a_row_is_compared_with_the_next_one_that_is_there():
    """Catches: a difference against a variant that was left out; a variant without a row above it that crashes."""
    assert EVERY.split(",") == list(VARIANTS)
    assert row_above("late", ["dense", "bm25", "late"]) == "bm25"
    assert row_above("late", ["late"]) is None and row_above("dense", EVERY.split(",")) is None


def test_a_typo_swaps_two_letters_of_the_longest_word():
    """Catches: a typo in a word that search ignores, or none at all."""
    typo = with_typo("who opened the exhibition?", np.random.default_rng(1))
    assert typo != "who opened the exhibition?" and typo.startswith("who opened the ")
    assert sorted(typo) == sorted("who opened the exhibition?")
    assert with_typo("who ?", np.random.default_rng(1)) == "who ?"


@pytest.mark.parametrize("words", ["--variants nonsense", "--variants ,", "--timed 0", "--questions -1", "--data x"])
def test_impossible_settings_are_one_line(words, capsys):
    """Catches: a traceback, or a run that dies after minutes."""
    assert main(["compare", *words.split()]) == 2
    assert capsys.readouterr().err.lstrip().startswith("error: ")


@pytest.mark.assets
def test_smoke_run_leaves_a_table_and_run_files():
    """Catches: a command that is not wired in; rows, intervals or run files that are missing; dear rows not cut."""
    assert not main(["compare", "--preset", "smoke"])
    folder = latest_run("stage2", "rag", "compare")
    table = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert list(table) == ["dense", "windows", "bm25", "rrf", "hybrid", "late", "spelling"]
    for name, row in table.items():
        low, high = row["mrr10_interval"]
        assert row["queries"] == 12 and low <= row["mean"]["mrr@10"] <= high
        assert (row["difference"] is None) == (name == "dense")
        assert len((folder / f"{name}.trec").read_text(encoding="utf-8").splitlines()) >= 12
    metrics = json.loads((folder / "report.json").read_text(encoding="utf-8"))["metrics"]
    assert {"mrr10_late", "p95_late", "mrr10_typos_late", "mrr10_typos_spelling"} <= set(metrics)
