"""Each test names the bug that it catches."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import llama_index.core
import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.vector_stores.simple import SimpleVectorStore
from rich.console import Console

from stage1_foundations.first_rag.corpus import make_document
from stage1_foundations.first_rag.index_folder import build_index, split_documents
from stage1_foundations.first_rag.rag import Rag, RagConfig
from stage1_foundations.first_rag.trace import TracedSpan, record, span_tree
from stage1_foundations.first_rag.trace_page import html_page, note_on, one_line, terminal_tree, total_steps

QUESTION = "How much does the kettle hold?"
ROOTS = [Path(llama_index.core.__file__).parents[1], Path(__file__).resolve().parents[3]]


@pytest.fixture
def rag(index, embedding, scripted):
    """LlamaIndex's own parts: vector retriever and compact."""
    options = RagConfig(retriever="vector", mode="compact", threshold=0.0)
    return Rag(index, embedding, options, llm=scripted("The kettle holds two litres."))


def test_every_step_of_a_query_in_its_order(rag):
    """Catches: a step that LlamaIndex does not instrument and that we forgot, or that changed its name in an update."""
    with record() as spans:
        rag.ask(QUESTION)
    names = [span.name for span in spans]
    assert names == [
        "RetrieverQueryEngine.query", "RetrieverQueryEngine._query", "VectorIndexRetriever.retrieve",
        "VectorIndexRetriever._retrieve", "LabEmbedding.get_query_embedding", "LabEmbedding._get_query_embedding",
        "VectorIndexRetriever._build_vector_store_query", "SimpleVectorStore.query", "SimpleDocumentStore.get_nodes",
        "EvidenceGate._postprocess_nodes", "CompactAndRefine.synthesize", "CompactAndRefine.get_response",
        "PromptHelper.repack", "TokenTextSplitter.split_text", "Refine.get_response", "PromptHelper.repack",
        "TokenTextSplitter.split_text", "DefaultRefineProgram.__call__", "ScriptedLLM.predict", "ScriptedLLM.complete",
    ]  # fmt: skip


def test_inputs_outputs_and_times(rag):
    """Catches: a step without its result, one that never ends, a child that takes longer than its parent."""
    with record() as spans:
        rag.ask(QUESTION)
    by_name = {span.name: span for span in spans}
    assert QUESTION in by_name["RetrieverQueryEngine.query"].inputs["str_or_query_bundle"]
    assert by_name["VectorIndexRetriever._retrieve"].output.startswith("3 nodes: ")
    assert by_name["LabEmbedding.get_query_embedding"].output == "384 numbers, length 1.000"
    assert by_name["VectorIndexRetriever._build_vector_store_query"].output.startswith("top 3 among ")
    assert re.match(r"\w+#\d+ -?\d\.\d{3}, ", by_name["SimpleVectorStore.query"].output)
    assert "holds two litres" in by_name["ScriptedLLM.complete"].output
    assert all(span.finished and not span.error for span in spans)
    for span in spans:
        for child in span.children:
            assert span.started <= child.started <= child.finished <= span.finished
    (root,) = span_tree(spans)
    assert total_steps([root]) == len(spans)
    assert sum(child.milliseconds for child in root.children) <= root.milliseconds


def test_events_hang_on_their_steps(rag):
    """Catches: an event handler with a bug, which the dispatcher swallows: then there are no events, and no error."""
    with record() as spans:
        rag.ask(QUESTION)
    events = {(span.name, event) for span in spans for event, _ in span.events}
    assert ("RetrieverQueryEngine.query", "QueryStartEvent") in events
    assert ("VectorIndexRetriever.retrieve", "RetrievalEndEvent") in events
    assert ("LabEmbedding.get_query_embedding", "EmbeddingEndEvent") in events
    assert ("CompactAndRefine.synthesize", "SynthesizeEndEvent") in events
    assert ("ScriptedLLM.complete", "LLMCompletionEndEvent") in events


def test_places_point_at_the_code_that_runs(rag):
    """Catches: a reader sent to a decorator, or to the method of a child class that only calls its parent's."""
    with record() as spans:
        rag.ask(QUESTION)
    for span in spans:
        file, _, line = span.place.rpartition(":")
        path = next(root / file for root in ROOTS if (root / file).is_file())
        lines = path.read_text(encoding="utf-8").splitlines()[int(line) - 1 :]
        first = next(text for text in lines if text.strip().startswith(("def ", "async def ")))
        assert f"def {span.name.rpartition('.')[2]}(" in first, span.place


@pytest.mark.parametrize("mode", ["extract", "refine", "tree_summarize", "accumulate"])
def test_recording_changes_no_answer(index, embedding, scripted, mode):
    """Catches: a span that eats a result, in any mode."""
    llm = scripted("The kettle holds two litres.")
    rag = Rag(index, embedding, RagConfig(mode=mode, threshold=0.0), llm=llm)
    plain = rag.ask(QUESTION)
    with record() as spans:
        assert rag.ask(QUESTION) == plain
    names = {span.name for span in spans}
    assert {"FusionRetriever._retrieve", "FusionRetriever._lexical_scores"} <= names


def test_nothing_stays_behind(rag):
    """Catches: handlers that pile up with each recording; silent steps that are silent again the second time."""
    dispatcher = get_dispatcher()
    before = list(dispatcher.span_handlers), list(dispatcher.event_handlers), SimpleVectorStore.__dict__["query"]
    counts = []
    for _ in range(3):
        with record() as spans:
            rag.ask(QUESTION)
        counts.append(len(spans))
    assert counts == [20, 20, 20]
    after = list(dispatcher.span_handlers), list(dispatcher.event_handlers), SimpleVectorStore.__dict__["query"]
    assert after == before


def test_a_step_that_fails_says_why(rag, monkeypatch):
    """Catches: a failed step that looks unfinished, and wrappers left on when a query raises."""

    def fail(*args: object) -> None:
        raise RuntimeError("no vectors today")

    monkeypatch.setattr(type(rag.embedding), "_get_query_embedding", fail)
    original = SimpleVectorStore.__dict__["query"]
    with pytest.raises(RuntimeError), record() as spans:
        rag.ask(QUESTION)
    assert SimpleVectorStore.__dict__["query"] is original
    failed = [span for span in spans if span.error]
    assert failed and all(span.error == "RuntimeError: no vectors today" for span in failed)
    assert "no vectors today" in html_page(QUESTION, "", span_tree(spans))


def span(name: str, parent: str | None, started: float) -> TracedSpan:
    return TracedSpan(id_=name, parent_id=parent, name=name, started=started, finished=started + 1)


def test_span_tree_by_hand():
    """Catches: children in the order of their end, a lost step whose parent is unknown, children that double."""
    spans = [span("c", "a", 3), span("a", None, 1), span("b", "a", 2), span("d", "gone", 4), span("e", "b", 2.5)]
    for _ in range(2):
        roots = span_tree(spans)
        assert [root.name for root in roots] == ["a", "d"]
        assert [child.name for child in roots[0].children] == ["b", "c"]
        assert [child.name for child in roots[0].children[0].children] == ["e"]


class Balance(HTMLParser):
    """Counts elements and refuses tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_holds_every_step_and_no_foreign_markup(embedding):
    """Catches: a document that puts a script into the page, a tree whose nesting is broken, a page that loads files."""
    evil = make_document("evil", "The kettle <script>alert(1)</script> holds </details> two litres & more.")
    index = build_index(split_documents([evil], embedding, 100, 0), embedding)
    question = "Does the <b>kettle</b> hold litres?"
    with record() as spans:
        answer = Rag(index, embedding, RagConfig(threshold=0.0)).ask(question)
    page = html_page(question, answer.text, span_tree(spans))
    parser = Balance()
    parser.feed(page)
    assert parser.open == [] and parser.seen.count("details") == len(spans)
    assert "script" not in parser.seen and "b" not in parser.seen and "link" not in parser.seen
    assert "&lt;script&gt;alert(1)" in page and "http" not in page


def test_tree_fits_the_terminal(rag):
    """Catches: lines that wrap and break the tree's trunk; square brackets of a document taken for markup."""
    with record() as spans:
        rag.ask("How much [red]does[/] the kettle hold?")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal_tree(QUESTION, span_tree(spans), 100))
    text = console.export_text()
    assert "[red]does[/] the kettle" in text
    assert all(re.match(r"[│├└─ ]*\S", line) for line in text.splitlines())
    assert len(text.splitlines()) == 1 + sum(line_count(span) for span in spans)


def line_count(span: TracedSpan) -> int:
    return 1 + bool(note_on(span.name)) + bool(span.place) + sum(map(bool, span.inputs.values())) + bool(span.output)


def test_one_line():
    """Catches: text cut below zero width deep in the tree."""
    assert one_line("a\n b", 40) == "a b"
    assert one_line("x" * 50, 30) == "x" * 27 + "..."
    assert len(one_line("x" * 50, -8)) == 20


READ_ALONG = {
    "base.py": {
        120: "node_ids=list(", 126: "def _get_node_with_embedding(", 219: "def _add_nodes_to_index(",
        234: "if not self._vector_store.stores_text", 286: "def build_index_from_nodes(",
    },
    "retrievers/retriever.py": {104: "def _retrieve(", 130: "def _build_vector_store_query("},
}  # fmt: skip


@pytest.mark.skipif(llama_index.core.__version__ != "0.14.25", reason="the README's line numbers are of 0.14.25")
@pytest.mark.parametrize("name", READ_ALONG)
def test_the_guided_reading_points_at_the_right_lines(name):
    """Catches: a lock that moved on while the README's line numbers stayed."""
    folder = Path(llama_index.core.__file__).parent / "indices" / "vector_store"
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    for number, text in READ_ALONG[name].items():
        assert text in lines[number - 1]
