"""Each test names the bug that it catches."""

import json

import numpy as np
import pytest

from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import RandomEncoder
from stage1_foundations.first_rag.corpus import make_document
from stage1_foundations.first_rag.embedding import LabEmbedding, token_counter
from stage1_foundations.first_rag.index_folder import (
    MANIFEST,
    build_index,
    load_index,
    read_manifest,
    save_index,
    split_documents,
)
from stage1_foundations.first_rag.rag import Rag, RagConfig

QUESTIONS = ["What does the kettle hold?", "Where is the red knob?", "Who painted the Mona Lisa?"]


@pytest.fixture
def saved(index, embedding, tmp_path):
    """The index in a folder."""
    save_index(index, tmp_path / "index", embedding, 100, 0, "manual")
    return tmp_path / "index"


@pytest.mark.parametrize("retriever", ["vector", "fusion"])
def test_same_answers_after_saving_and_loading(index, embedding, saved, retriever):
    """Catches: vectors rounded by JSON, another order of nodes, texts or metadata lost on the way."""
    options = RagConfig(retriever=retriever, threshold=0.3)
    before, after = Rag(index, embedding, options), Rag.open(saved, options)
    assert [before.ask(question) for question in QUESTIONS] == [after.ask(question) for question in QUESTIONS]
    assert not before.ask(QUESTIONS[0]).refused and before.ask(QUESTIONS[2]).refused


def test_manifest(saved):
    """Catches: an index that does not say what made it."""
    manifest = read_manifest(saved)
    assert (manifest.encoder, manifest.revision, manifest.dimensions) == ("random", "seed-1", 384)
    assert (manifest.documents, manifest.chunk_tokens, manifest.origin) == (6, 100, "manual")
    assert set(manifest.files) == {path.name for path in saved.iterdir()} - {MANIFEST}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (RandomEncoder(64), "has 384 dimensions .* has 64"),
        (RandomEncoder(384, seed=2), "other weights of random"),
    ],
)
def test_an_index_of_other_vectors_is_refused(saved, encoder, message):
    """Catches: an index searched with other weights of the same width, which answers at random and says nothing."""
    with pytest.raises(LabError, match=message):
        load_index(saved, LabEmbedding(encoder))


def test_an_index_of_another_model_is_refused(saved):
    """Catches: two models of 384 dimensions taken for each other."""
    other = RandomEncoder()
    other.name = "minilm"
    with pytest.raises(LabError, match="made by random, not by minilm") as caught:
        load_index(saved, LabEmbedding(other))
    assert "--encoder random" in caught.value.try_next


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_corrupt_file_is_named(saved, damage):
    """Catches: a traceback of the JSON library, or an index that lost half of its nodes and still answers."""
    for name in read_manifest(saved).files:
        path = saved / name
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content + b" ")
        with pytest.raises(LabError, match=f"damaged: {name}"):
            read_manifest(saved)
        path.write_bytes(content)
    assert read_manifest(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"encoder": "x"}', '{"unknown": 1}'])
def test_a_corrupt_manifest(saved, text):
    """Catches: a traceback on a manifest that was cut off or belongs to another program."""
    (saved / MANIFEST).write_text(text)
    with pytest.raises(LabError, match="not a manifest"):
        read_manifest(saved)


def test_another_format_and_no_index(saved, tmp_path):
    """Catches: an index of a later version read as if it were ours."""
    manifest = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(LabError, match="format 99"):
        read_manifest(saved)
    with pytest.raises(LabError, match="there is no index"):
        read_manifest(tmp_path / "nowhere")


def test_saving_replaces_an_index_and_nothing_else(index, embedding, saved, tmp_path):
    """Catches: `--index ~/papers` that wipes the papers; left-overs beside the index."""
    save_index(index, saved, embedding, 100, 0, "again")
    assert read_manifest(saved).origin == "again"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "thesis.txt").write_text("years of work")
    with pytest.raises(LabError, match="holds other files"):
        save_index(index, papers, embedding, 100, 0, "x")
    assert [path.name for path in papers.iterdir()] == ["thesis.txt"]


def test_a_failing_save_keeps_the_old_index(index, embedding, saved, tmp_path, monkeypatch):
    """Catches: a full disk that leaves half an index, or none."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stage1_foundations.first_rag.index_folder.write_json", full)
    with pytest.raises(OSError, match="No space"):
        save_index(index, saved, embedding, 100, 0, "new")
    assert read_manifest(saved).origin == "manual"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


class BrokenEncoder(RandomEncoder):
    """A model whose weights diverged."""

    name, cached = "broken", True

    def embed(self, texts, prompt=""):
        vectors = super().embed(texts, prompt)
        vectors[0, 0] = np.nan
        return vectors


def test_nan_vectors_are_refused(documents, tmp_path, monkeypatch):
    """Catches: a NaN in the index, which makes every cosine NaN and every ranking arbitrary."""
    monkeypatch.setenv("COURSE_LAB_CACHE", str(tmp_path / "cache"))
    embedding = LabEmbedding(BrokenEncoder())
    nodes = split_documents(documents, embedding, 100, 0)
    with pytest.raises(LabError, match="NaN"):
        build_index(nodes, embedding)


def test_no_nodes_and_an_overlap_too_large(documents, embedding):
    """Catches: an empty index, a splitter that never gets forward."""
    with pytest.raises(LabError, match="no text to index"):
        build_index([], embedding)
    with pytest.raises(LabError, match="overlap of 50 in chunks of 50"):
        split_documents(documents, embedding, 50, 50)


@pytest.mark.assets
def test_nodes_fit_the_encoders_window(documents):
    """Catches: chunks counted in GPT-3.5's tokens, whose ends MiniLM never reads."""
    embedding = LabEmbedding("minilm")
    long = make_document("long", " ".join(document.text for document in documents) * 6)
    nodes = split_documents([long], embedding, 40, 8)
    count = token_counter(embedding.encoder)
    assert len(nodes) > 5 and max(len(count(node.get_content())) for node in nodes) <= 40
    assert [node.node_id for node in nodes[:2]] == ["long#0", "long#1"]


def test_two_builds_are_equal(documents, embedding, index):
    """Catches: random node ids, with which no two reports can be compared."""
    again = build_index(split_documents(documents, embedding, 100, 0), embedding)
    assert again.vector_store.data.embedding_dict == index.vector_store.data.embedding_dict
