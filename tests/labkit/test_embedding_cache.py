"""The cache of embeddings: keys, order, damage, two processes. Each test names the bug that it catches."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labkit.embedding_cache import CHUNK, EmbeddingCache, text_key
from labkit.errors import LabError

REPOSITORY = Path(__file__).resolve().parents[2]


class Counter:
    """A model that remembers what it was asked: a text's vector is (length, first code point, 1)."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.calls = 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        self.calls += 1
        return np.array([[len(text), ord(text[0]) if text else 0, 1] for text in texts], np.float32)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> EmbeddingCache:
    """An empty one."""
    monkeypatch.setenv("COURSE_LAB_CACHE", str(tmp_path))
    return EmbeddingCache("model", "1", 3)


def test_order_and_duplicates(cache):
    """Catches: vectors in the order of encoding (by length) instead of the caller's; duplicates encoded twice."""
    model, texts = Counter(), ["bb", "a", "bb", "", "cccc", "a"]
    vectors = cache.encode(texts, model)
    assert vectors.dtype == np.float32
    assert vectors[:, 0].tolist() == [2, 1, 2, 0, 4, 1]
    assert vectors[:, 1].tolist() == [98, 97, 98, 0, 99, 97]
    assert sorted(model.seen) == ["", "a", "bb", "cccc"]


def test_second_call_encodes_only_what_is_new(cache):
    """Catches: a cache that is written and never read, or read from memory alone."""
    cache.encode(["a", "b"], Counter())
    model = Counter()
    again = EmbeddingCache("model", "1", 3).encode(["b", "c", "a"], model)
    assert model.seen == ["c"]
    assert again[:, 1].tolist() == [98, 99, 97]
    assert len(cache) == 3 and cache.count(["a", "a", "z"]) == 1


@pytest.mark.parametrize("other", [("model2", "1", 3), ("model", "2", 3)])
def test_model_and_revision_are_apart(cache, other):
    """Catches: new weights answered with the old weights' vectors."""
    cache.encode(["a"], Counter())
    model = Counter()
    EmbeddingCache(*other).encode(["a"], model)
    assert model.seen == ["a"]


def test_prompts_are_apart(cache):
    """Catches: a query's vector handed out for the passage of the same text, and prompt + text run together."""
    cache.encode(["b"], Counter(), prompt="a")
    model = Counter()
    cache.encode(["ab"], model)
    cache.encode(["b"], model)
    cache.encode(["b"], model, prompt="a")
    assert model.seen == ["ab", "b"]
    assert text_key("a", "b") != text_key("", "ab") != text_key("ab", "")


def test_no_texts(cache):
    """Catches: a stack of nothing; a file made for nothing."""
    assert cache.encode([], Counter()).shape == (0, 3)
    assert not cache.path.exists() and len(cache) == 0


def test_interrupted_run_keeps_finished_chunks(cache):
    """Catches: all work lost when the last text fails or the learner presses Ctrl-C."""
    texts = [f"{number:04d}" for number in range(CHUNK + 10)]
    model = Counter()

    def breaks(chunk: list[str]) -> np.ndarray:
        if model.calls == 1:
            raise KeyboardInterrupt
        return model(chunk)

    with pytest.raises(KeyboardInterrupt):
        cache.encode(texts, breaks)
    assert len(cache) == CHUNK


def test_not_a_database_is_started_afresh(cache, capsys):
    """Catches: a traceback, or a cache that stays broken, after a file was truncated or overwritten."""
    cache.encode(["a", "b"], Counter())
    cache.path.write_bytes(b"nonsense" * 1000)
    model = Counter()
    assert cache.encode(["a"], model)[0, 1] == 97
    assert model.seen == ["a"] and len(cache) == 1
    assert "damaged" in capsys.readouterr().err


def test_truncated_file_is_started_afresh(cache):
    """Catches: SQLite's 'malformed' passed on to the learner."""
    texts = [f"text {number}" for number in range(600)]
    cache.encode(texts, Counter())
    whole = cache.path.read_bytes()
    cache.path.write_bytes(whole[: len(whole) // 2])
    model = Counter()
    assert cache.encode(texts, model)[:, 0].tolist() == [len(text) for text in texts]
    assert model.seen


def test_damaged_row_is_encoded_again(cache):
    """Catches: a flipped bit or a short vector that enters a ranking unnoticed."""
    cache.encode(["a", "b", "c"], Counter())
    with sqlite3.connect(cache.path) as connection:
        rows = {key: vector for key, vector in connection.execute("SELECT key, vector FROM vectors")}
        flipped = bytes([rows[text_key("", "a")][0] ^ 1]) + rows[text_key("", "a")][1:]
        connection.execute("UPDATE vectors SET vector = ? WHERE key = ?", (flipped, text_key("", "a")))
        connection.execute("UPDATE vectors SET vector = ? WHERE key = ?", (b"\0" * 4, text_key("", "b")))
    connection.close()
    model = Counter()
    vectors = cache.encode(["a", "b", "c"], model)
    assert sorted(model.seen) == ["a", "b"]
    assert vectors[:, 1].tolist() == [97, 98, 99]


@pytest.mark.parametrize("answer", [np.full((1, 3), np.nan), np.array([[1, np.inf, 0]]), np.ones((1, 4)), np.ones(3)])
def test_bad_vectors_are_refused(cache, answer):
    """Catches: NaN, infinity or another width kept on disk for every later run."""
    with pytest.raises(LabError):
        cache.encode(["a"], lambda texts: answer)
    assert len(cache) == 0


def test_a_file_in_the_way_is_one_line(tmp_path, monkeypatch):
    """Catches: a traceback of SQLite where the cache cannot be opened."""
    cache = EmbeddingCache("model", "1", 3, root=tmp_path / "here")
    cache.path.mkdir(parents=True)  # a folder where the file should be
    with pytest.raises(LabError, match="cannot use the embedding cache"):
        cache.encode(["a"], Counter())


WRITER = """
import sys, numpy as np
from labkit.embedding_cache import EmbeddingCache
cache = EmbeddingCache("model", "1", 3)
first = int(sys.argv[1])
for start in range(first, first + 300, 20):
    texts = [str(number) for number in range(start, start + 20)]
    vectors = cache.encode(texts, lambda chunk: np.array([[float(text), 0, 1] for text in chunk]))
    assert vectors[:, 0].tolist() == [float(text) for text in texts]
"""


def test_two_processes_at_once(cache):
    """Catches: lost rows, 'database is locked', or a broken file when two labs run side by side."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(first)], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        for first in (0, 150)
    ]
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    assert len(cache) == 450
    vectors = cache.encode([str(number) for number in range(450)], Counter())
    assert vectors[:, 0].tolist() == list(range(450))
