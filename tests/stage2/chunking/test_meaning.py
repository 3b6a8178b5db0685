"""Semantic and topic chunkers. Each test names the bug that it catches."""

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.node_parser import SemanticSplitterNodeParser

from stage1_foundations.embeddings.encoders import Encoder, RandomEncoder, unit_length
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage2_rag_finetune_deploy.chunking.segmentation import pk, topic_errors
from stage2_rag_finetune_deploy.chunking.semantic import SemanticParser, breakpoints, distances
from stage2_rag_finetune_deploy.chunking.sentences import sentence_offsets
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter
from stage2_rag_finetune_deploy.chunking.topic import TOPIC, TopicParser, cohesion, topic_shifts, valley_depths


class Themes(Encoder):
    """A vector for each of three themes, by a word of the text, with noise from the text's hash."""

    name, dimensions, revision, cached = "themes", 16, "1", False

    def embed(self, texts, prompt=""):
        """See `Encoder.embed`."""
        noise = 0.15 * unit_length(RandomEncoder(16).embed(texts))
        themes = [next(n for n, word in enumerate(("kettle", "budget", "garden")) if word in text) for text in texts]
        return np.eye(16, dtype=np.float32)[themes] + noise


def meeting(*themes, turns=12):
    """Two people, so many turns a theme."""
    lines = [f"[00:{n // 60:02d}:{n % 60:02d}] {'Ada' if n % 2 else 'Bo'}: Number {n} is about the {theme} again.\n"
             for n, theme in enumerate(theme for theme in themes for _ in range(turns))]  # fmt: skip
    return "".join(lines)


def test_distances_by_hand():
    """Catches: a distance of the wrong pair, a mean that is not normalised again."""
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    assert distances(vectors, 0) == pytest.approx([0, 1, 0])
    smooth = distances(vectors, 1)  # means (1,0) (2,1) (1,2) (0,1)
    assert smooth == pytest.approx([1 - 2 / 5**0.5, 1 - 4 / 5, 1 - 2 / 5**0.5], abs=1e-6)
    assert breakpoints(np.array([0.1, 0.9, 0.2, 0.8]), 60.0) == [2, 4]
    assert breakpoints(np.array([]), 60.0) == []
    assert not len(distances(vectors[:1], 1))


def test_semantic_groups_are_those_of_llamaindex():
    """Catches: a cut at another sentence than SemanticSplitterNodeParser's with the same vectors."""
    text = " ".join(f"Item {n} concerns matter {n * 7 % 11} in full." for n in range(40))
    encoder = RandomEncoder(32)
    theirs = SemanticSplitterNodeParser(
        embed_model=LabEmbedding(encoder), buffer_size=1, breakpoint_percentile_threshold=80,
        sentence_splitter=lambda text: [text[start:end] for start, end in sentence_offsets(text)],
    )  # fmt: skip
    pieces = [text[start:end] for start, end in sentence_offsets(text)]
    joined = ["".join(pieces[max(0, n - 1) : n + 2]) for n in range(len(pieces))]  # its buffer joins texts
    jumps = distances(encoder.encode(joined, "symmetric"), 0)
    cuts = [0, *breakpoints(jumps, 80), len(pieces)]
    ours = ["".join(pieces[first:last]) for first, last in zip(cuts, cuts[1:], strict=False)]
    assert ours == [node.text for node in theirs.get_nodes_from_documents([Document(text=text)])]


def test_semantic_finds_the_change_of_theme():
    """Catches: vectors ignored; a cut one sentence too early or too late."""
    themes = ["kettle"] * 6 + ["budget"] * 6 + ["garden"] * 6
    text = " ".join(f"Number {n} is about the {theme}." for n, theme in enumerate(themes))
    parser = SemanticParser(cap=200, counter=TokenCounter(), encoder=Themes(), percentile=85, neighbours=0)
    nodes = parser.get_nodes_from_documents([Document(text=text)])
    starts = {int(node.text.split()[1]) for node in nodes}
    assert {0, 6, 12} <= starts and len(starts) <= 4


def test_valleys_by_hand():
    """Catches: depth from the neighbour in place of the peak; a valley on a slope."""
    curve = np.array([0.9, 0.5, 0.8, 0.6, 0.7], np.float32)
    assert valley_depths(curve) == pytest.approx([0, 0.4 + 0.3, 0, 0.2 + 0.1, 0], abs=1e-6)
    assert not len(valley_depths(np.array([], np.float32)))


def test_topics_of_a_meeting():
    """Catches: shifts missed or a turn off; a topic's number that does not count on; a dull meeting cut everywhere."""
    parser = TopicParser(cap=400, counter=TokenCounter(), encoder=Themes(), block=4)
    nodes = parser.get_nodes_from_documents([Document(text=meeting("kettle", "budget", "garden", "kettle"))])
    assert [node.text.split()[2] for node in nodes] == ["0", "12", "24", "36"]
    assert [node.metadata[TOPIC] for node in nodes] == [0, 1, 2, 3]
    vectors = np.tile(np.eye(4, dtype=np.float32)[0], (30, 1))
    assert topic_shifts(vectors, np.ones(30), 4, 0.5) == []
    assert cohesion(vectors, np.ones(30), 4) == pytest.approx(np.ones(29))
    assert topic_shifts(vectors[:1], np.ones(1), 4, 0.5) == []


def test_pk_by_hand_and_as_nltk_has_it():
    """Catches: a window of the wrong length, borders that are one turn off."""
    from nltk.metrics.segmentation import pk as theirs

    assert pk([5], [5], 10) == 0 and pk([5], [], 10) == 0.25  # window 2: 2 of 8 places lie across the border
    rng = np.random.default_rng(1)
    for _ in range(20):
        turns = int(rng.integers(12, 80))
        reference, found = (np.unique(rng.integers(1, turns, size=int(rng.integers(1, 6)))) for _ in range(2))
        # NLTK marks the turn before a border
        marks = ["".join("1" if n + 1 in borders else "0" for n in range(turns)) for borders in (reference, found)]
        window = max(1, round(turns / (len(reference) + 1) / 2))
        ours, other = pk(reference, found, turns), theirs(*marks, k=window)
        assert ours * (turns - window) == pytest.approx(other * (turns - window + 1), abs=1.01)  # it has one place more


def test_topic_errors_of_the_course_s_meetings():
    """Catches: shifts counted in characters, labels of another meeting."""
    errors = topic_errors(RandomEncoder(16), {"en-cold-room"})
    assert set(errors) == {"topic", "even", "none"} and all(0 < error < 0.7 for error in errors.values())
