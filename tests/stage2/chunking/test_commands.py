"""The commands as a learner types them, at the `smoke` preset. Each test names the bug that it catches."""

import json
import re

import pytest

from labkit.runs import read_report


def test_evaluate(cli, runs):
    """Catches: a run without tables, figures or sentences; a figure that is no picture."""
    code, out, error = cli("evaluate", "--preset", "smoke")
    assert code == 0, error
    folder = runs / "stage2" / "chunking" / "latest-evaluate"
    report = read_report(folder)
    assert report["status"] == "finished" and len(report["learnt"]) == 2 and report["preset"] == "smoke"
    tables = json.loads((folder / "tables.json").read_text())
    assert list(tables) == ["technical", "meeting-en"]
    for lines in tables.values():
        assert {"right", "wrong"} <= {line["role"] for line in lines}
        assert all(0 <= line["low"] <= line["mrr"] <= line["high"] <= 1 and line["chunks"] > 10 for line in lines)
        assert all(line["largest"] <= 200 for line in lines if "800" not in line["name"])
    assert all((folder / figure["path"]).read_bytes().startswith(b"\x89PNG") for figure in report["figures"])
    assert "section, function" in out and (folder / "tables.md").read_text().count("\n|") > 8


def test_one_exam_draws_its_borders(cli, runs):
    """Catches: a picture of borders that is not made, or fails on some chunker."""
    code, _, error = cli("evaluate", "--preset", "smoke", "--exams", "meeting-en", "--meetings", 1)
    assert code == 0, error
    assert (runs / "stage2" / "chunking" / "latest" / "borders.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("chunker", ["dispatch", "sentence-window", "parent-child", "fixed"])
def test_show(cli, tmp_path, chunker):
    """Catches: a chunk that is not shown, square brackets of Markdown eaten by the terminal."""
    path = tmp_path / "guide.md"
    path.write_text("# Guide\n\nSee [the docs](x) or [bold].\n\n## Part\n\n" + "More words here. " * 60)
    code, out, error = cli("show", path, "--encoder", "random", "--chunker", chunker, "--cap", 60, "--lines", 0)
    assert code == 0, error
    assert "[the docs](x) or [bold]" in " ".join(out.split()) and "[1] 0-" in out
    assert out.splitlines()[-1].startswith("guide.md (markdown): ")


def test_show_a_line_of_ten_megabytes(cli, tmp_path):
    """Catches: quadratic time, a recursion that is too deep, or a chunk of ten megabytes."""
    path = tmp_path / "data.txt"
    path.write_text("word " * 1_000_000 + "x" * 5_000_000)
    code, out, error = cli("show", path, "--encoder", "random", "--chunks", 1)
    assert code == 0, error
    chunks, largest = re.search(r"(\d+) chunks of \d+ to (\d+) tokens", out).groups()
    assert int(chunks) > 10_000 and int(largest) <= 200


@pytest.mark.parametrize(
    ("words", "message", "advice"),
    [
        (["show"], "which file?", "show README.md"),
        (["show", "none.md"], "there is no file none.md", "the path of a text file"),
        (["show", "README.md", "--chunker", "sentense"], "no chunker is called 'sentense'", "sentence"),
        (["show", "README.md", "--kind", "markdwn"], "--kind cannot be 'markdwn'", "--kind markdown"),
        (["show", "README.md", "--cap", "8"], "chunks of at most 8 tokens hold no sentence", "--cap 16"),
        (["show", "README.md", "--cap", "40", "--overlap", "50"], "an overlap of 50 tokens in chunks of at most 40",
         "--overlap 5"),
        (["show", "README.md", "--encoder", "minilmm"], "no encoder is called 'minilmm'", "minilm"),
        (["evaluate", "--exams", "meeting-e"], "no exam is called 'meeting-e'", "--exams meeting-en"),
        (["evaluate", "--exams", ","], "no exam to sit", "--exams technical"),
        (["evaluate", "--chunkers", "fixd"], "no chunker is called 'fixd'", "fixed"),
        (["evaluate", "--documents", "0"], "--documents 0 is no positive number", "--documents 4"),
        (["evaluate", "--cap", "20", "--overlap", "20"], "an overlap of 20 tokens", "--overlap 2"),
    ],
)  # fmt: skip
def test_bad_input(cli, runs, words, message, advice):
    """Catches: a traceback, or a half-made run, where one clear line was due."""
    code, _, error = cli(*words)
    lines = error.splitlines()
    assert code == 2 and len(lines) == 2
    assert lines[0].startswith(f"error: {message}") and advice in lines[1]
    assert not runs.exists()
