"""The report in every format, from one real grading."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from labkit.errors import LabError
from milestones.criteria import load_criteria
from milestones.grade import Context, Grading
from milestones.report import write_reports
from milestones.report_text import print_table
from milestones.submission import NotStarted

ATTACK = "<script>alert(1)</script> | [x](http://e) ]]> \x1b[31m"


def grade_one(context: Context) -> list:
    context.details["samples"] = [ATTACK] * 4
    figures = {"genuine": 1, "runs": 1, "bits_per_character": float("nan"), "real_words": 0.99}
    return [context.result(id, value, ATTACK, variant="tiny-shakespeare") for id, value in figures.items()]


def grade_other(context: Context) -> list:
    if context.month.number == 3:
        raise LabError("no network", "python -m data fetch smollm2-135m-instruct")
    raise NotStarted


@pytest.fixture
def grading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grading:
    """Month 1 failed, month 3 an error, the others not started."""
    monkeypatch.setattr("milestones.registry.grader_of", lambda n: grade_one if n == 1 else grade_other)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return Grading(load_criteria(), submission=tmp_path, seed=7, required=[1])


def test_json_holds_everything_and_is_json(grading: Grading, tmp_path: Path) -> None:
    """Catches: NaN in JSON, a status or a threshold that is missing."""
    write_reports(grading, tmp_path)
    text = (tmp_path / "milestones.json").read_text(encoding="utf-8")
    report = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert [month["status"] for month in report["months"]] == ["failed", "not started", "error"] + [
        "not started"
    ] * 2
    assert report["seed"] == 7 and report["ok"] is False and report["required"] == [1]
    words = report["months"][0]["checks"][6]
    assert (words["id"], words["figure"], words["status"], words["points"]) == (
        "real_words",
        "0.99",
        "passed",
        0,
    )
    assert words["wanted"].startswith(">= ") and words["why"]
    assert report["months"][2]["next"] == "python -m data fetch smollm2-135m-instruct"
    assert len(report["grader"]["criteria_sha256"]) == 64


def test_junit_counts_failures_errors_and_skips(grading: Grading, tmp_path: Path) -> None:
    """Catches: XML that no CI can read, a month that is not started counted as a failure."""
    write_reports(grading, tmp_path)
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    suites = {suite.get("name")[:7]: suite for suite in root}
    assert suites["month 1"].get("failures") == "5" and suites["month 1"].get("tests") == "8"
    assert suites["month 2"].get("skipped") == "5" and suites["month 2"].get("failures") == "0"
    assert suites["month 3"].get("errors") == "5"
    assert "make stage2" in suites["month 2"].find("./testcase/skipped").get("message")


def test_hand_in_cannot_write_into_the_page(grading: Grading, tmp_path: Path) -> None:
    """Catches: a sample or a message of the hand-in that becomes markup."""
    write_reports(grading, tmp_path)
    html = (tmp_path / "milestones.html").read_text(encoding="utf-8")
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "连贯的文本" in html and "make stage2" in html
    markdown = (tmp_path / "milestones.md").read_text(encoding="utf-8")
    assert "<script>" not in markdown.replace("\\<", "") and "[x](" not in markdown.replace("\\[", "")
    table = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in table} == {6}


def test_summary_is_appended(grading: Grading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: the summary of an earlier step overwritten."""
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    write_reports(grading, tmp_path)
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n") and "| 2 | Retrieval | not started |" in text


def test_badge_is_svg_and_counts(grading: Grading, tmp_path: Path) -> None:
    """Catches: a badge that no browser draws."""
    write_reports(grading, tmp_path)
    root = ElementTree.parse(tmp_path / "badge.svg").getroot()
    assert root.tag.endswith("svg") and root.get("aria-label") == "milestones: 0/5"


def test_table_shows_figures_and_the_next_command(grading: Grading, tmp_path: Path) -> None:
    """Catches: a table that hides a month, or markup in a message that swallows text."""
    console = Console(width=120, record=True, file=io.StringIO())
    print_table(write_reports(grading, tmp_path), console)
    text = console.export_text()
    for words in (
        "1  Coherent text",
        "5  LLMOps",
        "not started",
        "0.99",
        "seed 7",
        "month 3: no network",
    ):
        assert words in text
    assert "next: python -m stage1_foundations.gpt train" in text


def test_change_since_the_last_report_is_said(grading: Grading, tmp_path: Path) -> None:
    """Catches: progress that nobody sees, and a crash on an old report that is damaged."""
    (tmp_path / "milestones.json").write_text("[")
    assert write_reports(grading, tmp_path)["months"][0]["before"] is None
    old = json.loads((tmp_path / "milestones.json").read_text(encoding="utf-8"))
    old["months"][0] |= {"status": "not started", "points": 0}
    (tmp_path / "milestones.json").write_text(json.dumps(old))
    months = write_reports(grading, tmp_path)["months"]
    assert months[0]["before"] == {"status": "not started", "points": 0}
    assert months[1]["before"] is None
