"""The commands at their smallest, and bad input. Each test names the bug that it catches."""

import json
import sys

import pytest

from labkit.runs import latest_run, read_report

pytestmark = pytest.mark.assets
SMALL = ["--preset", "smoke", "--models", "bm25,random", "--tasks", "ConstructionFAQ,Tatoeba", "--no-speed"]


@pytest.fixture
def evaluated(cli):
    """The output of a small evaluation, and its folder."""
    code, out, err = cli("evaluate", *SMALL)
    assert code == 0, err
    return out, latest_run("stage1", "embeddings", "evaluate")


def test_evaluate_writes_every_view_and_its_report(evaluated):
    """Catches: an artefact that is not recorded, a table that cannot be added to."""
    out, folder = evaluated
    report = read_report(folder)
    assert report["status"] == "finished" and report["metrics"]["retrieval_bm25"]["value"] > 50
    assert {item["path"] for item in report["artefacts"]} == {
        "board.json", "items.npz", "leaderboard.md", "leaderboard.html"}  # fmt: skip
    assert {entry["name"] for entry in report["data"]} == {"construction-faq", "glove-tatoeba"}
    assert "Retrieval, nDCG@10" in out and "*: the best of its column" in out


def test_leaderboard_shows_it_again_and_puts_runs_together(evaluated, cli):
    """Catches: rows lost in the merge. The same numbers, because nothing is computed again."""
    out, folder = evaluated
    code, again, _ = cli("leaderboard")
    assert code == 0 and again.startswith(out.partition("leaderboard.md")[0].rstrip()[:400])
    code, _, err = cli("evaluate", *SMALL[:2], "--models", "glove", *SMALL[4:])
    assert code == 0, err
    newest = latest_run("stage1", "embeddings", "evaluate")
    code, both, _ = cli("leaderboard", "--runs", f"{folder},{newest}")
    assert code == 0 and all(name in both for name in ("bm25", "random", "glove"))
    code, _, err = cli("leaderboard", "--runs", "/nowhere")
    assert code == 2 and "no results in /nowhere" in err


def test_without_a_mini_gpt_its_row_stays_empty(cli):
    """Catches: a whole evaluation that dies because the other lab was not run; but who asks for gpt alone is told."""
    code, out, err = cli("evaluate", *SMALL[:2], "--models", "bm25,gpt", *SMALL[4:])
    assert code == 0 and "its row stays empty" in err
    assert "gpt: there is no mini-GPT of your own yet" in " ".join(out.split())
    code, _, err = cli("evaluate", *SMALL[:2], "--model", "gpt", *SMALL[4:])
    assert code == 2 and "no mini-GPT of your own yet" in err


def test_train_reports_a_paired_test(cli):
    """Catches: a run without its verdict, or without its figure."""
    code, out, err = cli("train", "--preset", "smoke", "--test", 12, "--passages", 20)
    assert code == 0, err
    report = read_report(latest_run("stage1", "embeddings", "train"))
    assert report["metrics"]["gain_p"]["value"] <= 1 and report["metrics"]["gain_p"]["band"] is None
    assert "p = " in out and "12 held-out queries" in " ".join(out.split())
    assert [figure["path"] for figure in report["figures"]] == ["fine-tuning.png"]


def test_explain_draws_its_parts(cli):
    """Catches: a part that is skipped without a word."""
    code, out, err = cli("explain", "--preset", "smoke")
    assert code == 0, err
    report = read_report(latest_run("stage1", "embeddings", "explain"))
    assert [figure["path"] for figure in report["figures"]] == ["anisotropy.png", "overlap.png"]
    assert abs(report["metrics"]["mean_cosine_random"]["value"]) < 0.05
    assert report["metrics"]["mean_cosine_glove"]["value"] > 0.5
    assert "construction-faq" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "--models", " , "], "no model to evaluate"),
        (["evaluate", "--models", "minilmm"], "no encoder is called 'minilmm'"),
        (["evaluate", "--tasks", ","], "no task is called nothing"),
        (["evaluate", "--queries", 0], "--queries 0 is no positive number"),
        (["evaluate", "--queries", 90, "--passages", 10, "--models", "bm25"], "gold passages, more than 10"),
        (["evaluate", "--model", "/nowhere"], "no encoder is called"),
        (["evaluate", "--preset", "big"], "unknown preset big"),
        (["explain", "--queries", 1], "2 questions or more"),
        (["explain", "--queries", 50, "--passages", 20], "as many passages"),
        (["explain", "--data", "sqad"], "no retrieval set is called 'sqad'"),
        (["leaderboard"], "there is no evaluation yet"),
        (["train", "--data", "tiny-shakespeare"], "no retrieval set is called"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(cli, words, message):
    """Catches: a traceback, and advice that is missing."""
    preset = [] if "--preset" in words or words[0] == "leaderboard" else ["--preset", "smoke"]
    code, _, err = cli(words[0], *preset, *words[1:])
    assert code == 2 and message in err and "\n  try: " in err and "Traceback" not in err


def test_a_run_that_fails_leaves_a_report_that_says_so(cli, runs):
    """Catches: a half-written run that looks finished."""
    cli("evaluate", "--preset", "smoke", "--models", "minilmm")
    folder = next(path for path in (runs / "stage1" / "embeddings").iterdir())
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "failed" and "minilmm" in report["error"]["message"]
    assert latest_run("stage1", "embeddings", "evaluate") is None


def test_help_loads_no_library(spawn):
    """Catches: `--help` that takes ten seconds because it imports torch and mteb."""
    code = ("import sys; import stage1_foundations.embeddings.__main__; "
            "print([name for name in ('torch', 'mteb', 'transformers', 'datasets') if name in sys.modules])")
    out, err = spawn("-c", code).communicate(timeout=60)
    assert out.strip() == "[]", err or sys.version
