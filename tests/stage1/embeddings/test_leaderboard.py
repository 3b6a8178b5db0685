"""Each test names the bug that it catches."""

from dataclasses import replace

import numpy as np
import pytest

from labkit.errors import LabError
from stage1_foundations.embeddings.bootstrap import Items
from stage1_foundations.embeddings.leaderboard import Board, ModelRow, TaskRow, summarise
from stage1_foundations.embeddings.leaderboard_views import (
    aligned,
    html,
    markdown,
    terminal_tables,
    text_of,
    write_views,
)
from stage1_foundations.embeddings.published import published_score

TASKS = [TaskRow("Squad.q50", "Retrieval", "eng", 50), TaskRow("SciFact", "Retrieval", "eng", 50),
         TaskRow("WordSim", "STS", "eng", 40), TaskRow("SquadArticles", "Clustering", "eng", 50)]  # fmt: skip


def items_of(kind: str, level: float, seed: int) -> Items:
    """Values around a level."""
    rng = np.random.default_rng(seed)
    if kind == "STS":
        gold = rng.normal(size=40)
        return Items("spearman", level * gold + (1 - level) * rng.normal(size=40), gold, np.arange(80).reshape(40, 2))
    if kind == "Clustering":
        return Items("replicates", rng.normal(level, 0.02, 20))
    return Items("mean", np.clip(rng.normal(level, 0.3, 50), 0, 1))


@pytest.fixture
def board() -> Board:
    """Four models: minilm as good as e5 but on other queries, random far behind, bm25 only on retrieval."""
    board = Board("cpu", list(TASKS))
    for name, level in {"e5": 0.8, "minilm": 0.799, "random": 0.05, "bm25": 0.6}.items():
        trained = {"e5": ["XQuADRetrieval"], "minilm": None}.get(name, [])
        board.models.append(ModelRow(name, None if name == "bm25" else 384, 50.0, trained_on=trained))
        for number, task in enumerate(TASKS):
            if name != "bm25" or task.type == "Retrieval":
                items = items_of(task.type, level, seed=number)
                if name == "minilm":
                    noise = np.random.default_rng(8).normal(0, 0.1, len(items.values))
                    items = replace(items, values=items.values + noise - noise.mean())
                board.items[name, task.name] = items
                board.scores[name, task.name] = level if task.type == "STS" else float(items.values.mean())
    return board


def test_saved_and_loaded_is_the_same(board, tmp_path):
    """Catches: a column lost on the way, a task with a dot in its name."""
    board.save(tmp_path)
    loaded = Board.load(tmp_path)
    assert (loaded.tasks, loaded.models, loaded.scores) == (board.tasks, board.models, board.scores)
    for key, items in board.items.items():
        np.testing.assert_array_equal(loaded.items[key].values, items.values)
        np.testing.assert_array_equal(loaded.items[key].sides, items.sides)
    assert markdown(summarise(loaded)) == markdown(summarise(board))


def test_missing_and_damaged_results(board, tmp_path):
    """Catches: a traceback for a cut file."""
    with pytest.raises(LabError, match="no results"):
        Board.load(tmp_path)
    board.save(tmp_path)
    (tmp_path / "items.npz").write_bytes((tmp_path / "items.npz").read_bytes()[:200])
    with pytest.raises(LabError, match="damaged"):
        Board.load(tmp_path)
    board.save(tmp_path)
    (tmp_path / "board.json").write_text('{"preset": "cpu"}')
    with pytest.raises(LabError, match="damaged"):
        Board.load(tmp_path)


def test_boards_are_put_together_by_model(board):
    """Catches: an old row beside the new one of the same model; samples of different sizes in one column."""
    newer = Board("cpu", [TASKS[0]], [ModelRow("e5", 384, 99.0), ModelRow("new", 12, 1.0)],
                  {("e5", TASKS[0].name): 0.5, ("new", TASKS[0].name): 0.4},
                  {(name, TASKS[0].name): items_of("Retrieval", 0.4, 0) for name in ("e5", "new")})  # fmt: skip
    both = board.add(newer)
    assert [row.name for row in both.models] == ["e5", "minilm", "random", "bm25", "new"]
    assert both.models[0].passages_per_second == 99.0 and both.scores["e5", TASKS[0].name] == 0.5
    other_sample = Board("study", [TaskRow("Squad", "Retrieval", "eng", 900)])
    with pytest.raises(LabError, match="different samples"):
        board.add(other_sample)


def test_ties_intervals_and_order(board):
    """Catches: everything tied, nothing tied, BM25 sorted last because it has no mean."""
    summary = summarise(board)
    squad = {model: summary.cells[model, "Squad.q50"] for model in summary.order}
    assert squad["e5"].tied and squad["minilm"].tied and not squad["random"].tied and not squad["bm25"].tied
    assert all(entry.low <= entry.score <= entry.high for entry in squad.values())
    assert summary.order == ["e5", "minilm", "bm25", "random"]
    assert ("bm25", "mean") not in summary.means and ("bm25", "Retrieval") in summary.means
    mean = summary.means["e5", "Retrieval"]
    assert mean.score == pytest.approx((board.scores["e5", "Squad.q50"] + board.scores["e5", "SciFact"]) / 2)


def test_cells_show_marks_and_published_scores(board):
    """Catches: contamination that is known and not shown, a difference with the wrong sign."""
    summary = summarise(board)
    assert text_of(summary, "e5", "Squad.q50").endswith("*†")
    assert "†" not in text_of(summary, "e5", "SciFact")
    assert text_of(summary, "bm25", "WordSim") == "–"
    published = published_score("minilm", "SciFact")
    difference = 100 * (board.scores["minilm", "SciFact"] - published)
    assert text_of(summary, "minilm", "published SciFact") == f"{100 * published:.1f} {difference:+.1f}"
    assert text_of(summary, "random", "published SciFact") == ""
    assert published_score("all-MiniLM-L6-v2", "SciFact") == published and published_score("e5", "Squad") is None


def test_three_views_say_the_same(board, tmp_path):
    """Catches: a view that loses a row, a column or a note; HTML that a name can break."""
    board.models[2] = ModelRow("<random>", 384, None, "a & b")
    for table in (board.scores, board.items):
        for task in TASKS:
            table["<random>", task.name] = table.pop(("random", task.name))
    summary = summarise(board)
    write_views(summary, tmp_path)
    text, page = (tmp_path / "leaderboard.md").read_text(), (tmp_path / "leaderboard.html").read_text()
    assert page == html(summary) and "<random>" not in page and "&lt;random&gt;" in page and "a &amp; b" in page
    for content in (text, page):
        assert all(task.short in content for task in TASKS)
        assert "† e5 on Squad: trained on XQuADRetrieval" in content
        assert "minilm: nobody says what it was trained on" in content
    assert "0.8" not in text.split("Retrieval")[0]  # percent everywhere
    titles = [title for title, _ in terminal_tables(summary)]
    assert titles == ["Means by task type", "Retrieval, nDCG@10", "STS, Spearman", "Clustering, V-measure"]
    assert (tmp_path / "leaderboard.png").stat().st_size > 10_000


def test_markdown_stars_are_stars(board):
    """Catches: two tied cells of a row that Markdown turns into one run of italics."""
    rows = [line for line in markdown(summarise(board)).splitlines() if line.startswith("| e5")]
    assert rows and all(line.count("*") == line.count("\\*") for line in rows)
    assert "**STS**, Spearman" in markdown(summarise(board))


def test_alignment_keeps_the_digits_below_each_other():
    """Catches: a mark that shifts the numbers of its row."""
    assert aligned(["9.1 ±1.0*†", "8.0 ±1.0", "–"]) == ["9.1 ±1.0*†", "8.0 ±1.0  ", "–  "]
