"""Each test names the bug that it catches."""

import json

import pytest
from llama_index.core import ServiceContext, Settings

from labkit.errors import LabError
from labkit.runs import read_report
from stage1_foundations.first_rag.commands import excerpt, with_question

LAMBDA = "What does a lambda expression yield?"


@pytest.fixture
def built(cli, docs, tmp_path, runs):
    """The manual's index, made by the command."""
    folder = tmp_path / "index"
    code, out, error = cli("build", "--docs", docs, "--index", folder, "--encoder", "random")
    assert code == 0, error
    assert "6 documents, 6 nodes, 384 dimensions by random" in out
    (entry,) = read_report(runs / "stage1" / "first_rag" / "latest-build")["data"]
    assert entry["name"] == str(docs) and entry["bytes"] == sum(path.stat().st_size for path in docs.iterdir())
    return folder


def test_build_and_ask_a_folder_of_ones_own(cli, built):
    """Catches: an answer without its source, or from another folder's documents."""
    code, out, error = cli("ask", "What does the kettle hold?", "--index", built, "--threshold", 0.3)
    assert code == 0, error
    lines = out.splitlines()
    assert lines[0] == "The kettle holds two litres. [1]"
    assert lines[2].startswith("[1] kettle.md  (cosine ")
    assert "switches itself off" in out and lines[-1].startswith("evidence 0.")


def test_ask_something_else(cli, built):
    """Catches: an invented answer where the documents have none."""
    code, out, _ = cli("ask", "Who painted the Mona Lisa?", "--index", built)
    assert code == 0 and out.startswith("No evidence:") and "[1]" not in out


def test_smoke_preset_from_nothing(cli, runs):
    """Catches: a default that needs --docs, an example that the default corpus does not answer."""
    code, _, error = cli("build", "--preset", "smoke")
    assert code == 0, error
    report = read_report(runs / "stage1" / "first_rag" / "latest-build")
    assert report["metrics"]["documents"]["value"] > 70 and report["next"].endswith(f'ask "{LAMBDA}"')
    code, out, error = cli("ask", "--threshold", 0)
    assert code == 0, error
    assert out.startswith(f"{LAMBDA}\n") and "yields a function object. [1]" in out


@pytest.mark.parametrize("mode", ["extract", "compact"])
def test_trace_writes_a_tree_and_a_page(cli, built, runs, endpoint, mode, tmp_path):
    """Catches: a page that is not written, not listed, or lacks what the tree has."""
    words = ["--index", built, "--threshold", 0, "--mode", mode, "--retriever", "vector"]
    words += ["--llm", "endpoint", "--api-base", endpoint.url, "--model", "tiny"]
    code, out, error = cli("trace", "What does the kettle hold?", *words)
    assert code == 0, error
    folder = runs / "stage1" / "first_rag" / "latest-trace"
    page = (folder / "trace.html").read_text(encoding="utf-8")
    steps = ["SimpleVectorStore.query", "EvidenceGate._postprocess_nodes"] + ["Endpoint.chat"] * (mode == "compact")
    assert all(step in out and step in page for step in steps)
    assert "core/indices/vector_store/retrievers/retriever.py:" in out
    assert [entry["kind"] for entry in read_report(folder)["artefacts"]] == ["trace"]
    code, _, error = cli("trace", "What does the kettle hold?", *words, "--output", tmp_path / "mine.html")
    assert code == 0 and "SimpleVectorStore.query" in (tmp_path / "mine.html").read_text(encoding="utf-8")


def test_modes_counts_the_models_calls(cli, built, endpoint, runs):
    """Catches: four rows of one mode; a gate that keeps the model from being asked."""
    words = ["--index", built, "--llm", "endpoint", "--api-base", endpoint.url, "--model", "tiny"]
    code, out, error = cli("modes", "Who painted the Mona Lisa?", *words)
    assert code == 0, error
    metrics = read_report(runs / "stage1" / "first_rag" / "latest-modes")["metrics"]
    counts = {name.removeprefix("calls_"): entry["value"] for name, entry in metrics.items()}
    assert counts == {"compact": 1, "refine": 3, "tree_summarize": 1, "accumulate": 3}
    assert len(endpoint.requests) == 8 and "Response 1:" in out


@pytest.mark.assets
def test_evaluate(cli, runs, endpoint):
    """Catches: a figure missing from the report, a table without the model's rows, an index that is not kept."""
    endpoint.text = "I am sure that it was Napoleon."
    words = ["--llm", "endpoint", "--api-base", endpoint.url, "--model", "tiny", "--llm-questions", 3]
    code, out, error = cli("evaluate", "--preset", "smoke", *words)
    assert code == 0, error
    folder = runs / "stage1" / "first_rag" / "latest-evaluate"
    metrics = read_report(folder)["metrics"]
    assert metrics["same_after_reload"]["value"] == 1.0
    assert metrics["mrr_fusion"]["value"] > 0.5 > metrics["mrr_vector"]["value"]  # BM25 knows what random does not
    assert metrics["llm_invents"]["value"] == 1.0 and metrics["llm_invents_guarded"]["value"] == 0.0
    assert {"hit_rate_3", "hit_rate_10", "citation_holds", "passage_holds", "refused_far", "answered"} <= set(metrics)
    rows = json.loads((folder / "evaluation.json").read_text())
    assert [row["retriever"] for row in rows["retrieval"]] == ["vector", "fusion"]
    assert [row["answers"] for row in rows["answers"]][2:] == ["compact", "compact, bare"]
    lines = [json.loads(line) for line in (folder / "llm_answers.jsonl").read_text().splitlines()]
    assert len(lines) == 6 and all(line["model"] == endpoint.text for line in lines)
    assert (folder / "evidence.png").read_bytes().startswith(b"\x89PNG") and (folder / "trace.html").is_file()
    assert "random order" in out and cli("ask", "Who?", "--index", folder / "index", "--threshold", 0)[0] == 0


@pytest.mark.parametrize("preset", ["smoke", "cpu", "study", "gpu"])
def test_every_preset_of_make_is_known(preset):
    """Catches: `make stage1 PRESET=smoke` that stops at this lab."""
    from stage1_foundations.first_rag.__main__ import COMMANDS

    presets = {command.name: command.presets for command in COMMANDS}
    assert preset in presets["build"] and preset in presets["evaluate"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "--docs", "nowhere"], "there is no folder nowhere"),
        (["build", "--encoder", "minilmm"], "no encoder is called 'minilmm'"),
        (["build", "--overlap", "200"], "an overlap of 200 in chunks of 200 tokens"),
        (["ask", "What is this?"], "there is no index"),
        (["trace"], "there is no index"),
        (["ask", "What", "is", "this?"], "no quotation marks"),
        (["evaluate", "--articles", "100"], "--articles 100 of 48"),
        (["ask", "Why?", "--mode", "compcat"], "--mode cannot be 'compcat'"),
    ],
)
@pytest.mark.assets
def test_bad_input_is_two_lines(cli, words, message):
    """Catches: a traceback."""
    code, _, error = cli(*words)
    lines = error.splitlines()
    assert code == 2 and len(lines) == 2 and message in lines[0] and lines[1].startswith("  try: "), error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the question is empty"),
        (["why " * 301], "the question has 301 words"),
        (["Why?", "--top-k", "0"], "--top-k 0"),
        (["Why?", "--encoder", "e5"], "was made by random, not by e5"),
        (["Why?", "--mode", "compact", "--llm", "endpoint"], "without an address"),
    ],
)
@pytest.mark.assets
def test_bad_questions_are_two_lines(cli, built, words, message):
    """Catches: an example question asked of the learner's own documents; a traceback."""
    code, _, error = cli("ask", *words, "--index", built)
    lines = error.splitlines()
    assert code == 2 and len(lines) == 2 and message in lines[0], error


def test_a_failed_build_leaves_no_index(cli, docs, tmp_path):
    """Catches: half an index after an unreadable file."""
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    code, _, error = cli("build", "--docs", docs, "--index", tmp_path / "index", "--encoder", "random")
    assert code == 2 and "broken.pdf cannot be read" in error
    assert not (tmp_path / "index").exists()
    words = ["--docs", docs, "--index", tmp_path / "index", "--encoder", "random", "--skip-unreadable"]
    code, out, error = cli("build", *words)
    assert code == 0 and "skipped: broken.pdf" in error and "6 documents" in out


def test_with_question():
    """Catches: options taken for questions."""
    assert with_question(["ask", "Why?", "--top-k", "2"]) == ["ask", "--question", "Why?", "--top-k", "2"]
    for words in (["ask", "--help"], ["build", "x"], ["trace"], []):
        assert with_question(words) == words
    with pytest.raises(LabError, match="quotation marks"):
        with_question(["trace", "Why", "not?"])


def test_excerpt_shows_the_quote():
    """Catches: a source whose shown part lacks the sentence that was quoted from it."""
    text = "Begin. " + "filler words " * 80 + "The\n kettle holds two litres. " + "more words " * 80
    shown = excerpt(text, "The kettle holds two litres.")
    assert "The kettle holds two litres." in shown and shown.startswith("... ") and shown.endswith(" ...")
    assert len(shown) < 420 and excerpt("short  text", "text") == "short text"


def test_what_became_of_service_context(index, embedding):
    """Catches: the README's word on ServiceContext going stale: its constructor raises, Settings took its place."""
    from stage1_foundations.first_rag.rag import Rag, RagConfig

    with pytest.raises(ValueError, match="Settings"):
        ServiceContext.from_defaults()
    Rag(index, embedding, RagConfig())
    assert Settings.embed_model is embedding
