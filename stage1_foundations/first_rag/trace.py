"""Every step of a query, recorded with LlamaIndex's own instrumentation.

LlamaIndex marks its steps with `@dispatcher.span` and reports what happens inside them as events. A span handler and
an event handler, hung onto the root dispatcher, see all of it:

    with record() as spans:
        engine.query("What does assert do?")
    roots = span_tree(spans)

Two things to know. The dispatcher swallows whatever a handler raises, so a handler with a bug records nothing and
says nothing. And some of the most instructive steps carry no span (the vector store's search, the document store's
look-up, the packing of the prompt): `record` adds spans to them while it lasts.
"""

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import llama_index.core
import numpy as np
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.instrumentation import DISPATCHER_SPAN_DECORATED_ATTR, get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores.simple import SimpleVectorStore
from pydantic import Field

from stage1_foundations.first_rag.retriever import FusionRetriever

LIBRARY = Path(llama_index.core.__file__).parents[1]
LAB = Path(__file__).parents[2]
LONGEST = 4000  # characters of an input or output that are kept
# steps without a span of their own
SILENT_STEPS = [
    (VectorIndexRetriever, "_build_vector_store_query"),
    (SimpleVectorStore, "query"),
    (BaseDocumentStore, "get_nodes"),
    (FusionRetriever, "_lexical_scores"),
    (PromptHelper, "repack"),
]


class TracedSpan(BaseSpan):
    """One step: what went in, what came out, when (seconds of `time.perf_counter`), and what it reported."""

    name: str
    place: str = ""
    started: float
    finished: float | None = None
    inputs: dict[str, str] = Field(default_factory=dict)
    output: str = ""
    error: str = ""
    events: list[tuple[str, str]] = Field(default_factory=list)
    children: list["TracedSpan"] = Field(default_factory=list)

    @property
    def milliseconds(self) -> float:
        """How long it took, the steps inside it included."""
        return 1000 * ((self.finished or self.started) - self.started)


class SpanRecorder(BaseSpanHandler[TracedSpan]):
    """Keeps every span in the order of its start."""

    spans: list[TracedSpan] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """Name of the handler."""
        return "SpanRecorder"

    def new_span(
        self, id_: str, bound_args: inspect.BoundArguments, instance: Any = None, parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None, **kwargs: Any,
    ) -> TracedSpan:  # fmt: skip
        """A step begins. Ids look like `SimpleVectorStore.query-1f0c...`."""
        name, place = name_and_place(id_[:-37], instance, running_function())  # without the dash and the UUID
        inputs = {key: describe(value) for key, value in bound_args.arguments.items() if not is_empty(value)}
        span = TracedSpan(
            id_=id_, parent_id=parent_span_id, name=name, place=place, started=time.perf_counter(), inputs=inputs
        )
        self.spans.append(span)
        return span

    def prepare_to_exit_span(
        self, id_: str, bound_args: inspect.BoundArguments, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> TracedSpan | None:
        """A step ends."""
        span = self.open_spans.get(id_)
        if span is not None:
            span.finished = time.perf_counter()
            span.output = describe(result)
        return span

    def prepare_to_drop_span(
        self, id_: str, bound_args: inspect.BoundArguments, instance: Any = None, err: BaseException | None = None,
        **kwargs: Any,
    ) -> TracedSpan | None:  # fmt: skip
        """A step fails."""
        span = self.open_spans.get(id_)
        if span is not None:
            span.finished = time.perf_counter()
            span.error = f"{type(err).__name__}: {err}"
        return span


class EventRecorder(BaseEventHandler):
    """Hangs every event onto the span that was open when it happened."""

    recorder: SpanRecorder

    @classmethod
    def class_name(cls) -> str:
        """Name of the handler."""
        return "EventRecorder"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """An event: its class, and the one field that says most."""
        span = self.recorder.open_spans.get(event.span_id)
        if span is None:
            return
        fields = ("prompt", "response", "output", "template_args", "nodes", "embeddings", "query")
        value = next((getattr(event, name) for name in fields if getattr(event, name, None) is not None), "")
        span.events.append((type(event).__name__, describe(value)))


@contextmanager
def record() -> Iterator[list[TracedSpan]]:
    """Record spans and events until the block ends; the list fills while it runs."""
    dispatcher = get_dispatcher()  # the root: spans and events of all modules travel up to it
    spans = SpanRecorder()
    events = EventRecorder(recorder=spans)
    spans_before, events_before = list(dispatcher.span_handlers), list(dispatcher.event_handlers)
    dispatcher.add_span_handler(spans)
    dispatcher.add_event_handler(events)
    try:
        with spans_for_silent_steps():
            yield spans.spans
    finally:
        dispatcher.span_handlers, dispatcher.event_handlers = spans_before, events_before


@contextmanager
def spans_for_silent_steps() -> Iterator[None]:
    """Give the steps of SILENT_STEPS a span while the block lasts."""
    dispatcher = get_dispatcher(__name__)
    originals = [(owner, name, owner.__dict__[name]) for owner, name in SILENT_STEPS]
    try:
        for owner, name, function in originals:
            setattr(owner, name, dispatcher.span(function))
        yield
    finally:
        for owner, name, function in originals:
            setattr(owner, name, function)
            # the decorator's note to itself; with it left on, the next recording would not wrap the function again
            if hasattr(function, DISPATCHER_SPAN_DECORATED_ATTR):
                delattr(function, DISPATCHER_SPAN_DECORATED_ATTR)


# exercise: first_rag.span_tree
def span_tree(spans: list[TracedSpan]) -> list[TracedSpan]:
    """The spans without a parent, each with its children in the order of their start, and so on down.

    A span whose parent was not recorded is a root.
    """
    by_id = {span.id_: span for span in spans}
    for span in spans:
        span.children = []
    roots = []
    for span in sorted(spans, key=lambda span: span.started):
        parent = by_id.get(span.parent_id or "")
        (roots if parent is None else parent.children).append(span)
    return roots


# end exercise


def model_calls(spans: list[TracedSpan]) -> int:
    """How often the language model was asked. A class that hands on to its parent's method has two spans a call."""
    asking = {span.id_ for span in spans if span.name.endswith((".complete", ".chat"))}
    return sum(span.id_ in asking and span.parent_id not in asking for span in spans)


def running_function() -> Any:
    """The function whose span begins. The dispatcher does not hand it over: it is a local of the decorator."""
    frame = inspect.currentframe()
    while frame is not None:
        if "bound_args" in frame.f_locals and callable(frame.f_locals.get("func")):
            return frame.f_locals["func"]
        frame = frame.f_back
    return None


def name_and_place(name: str, instance: Any, function: Any) -> tuple[str, str]:
    """A step's name, and where its code is: `core/indices/vector_store/retrievers/retriever.py:103`.

    LlamaIndex names a span after the object's class, also where the method of a parent class runs: a CompactAndRefine
    that calls `super().get_response` would appear inside itself. Such a step gets its parent's name.
    """
    code = written_code(function)
    if code is None:
        return name, ""
    method = name.rpartition(".")[2]
    if instance is not None and code is not written_code(getattr(type(instance), method, None)):
        name = code.co_qualname
    path = Path(code.co_filename)
    root = next((root for root in (LIBRARY, LAB) if path.is_relative_to(root)), path.parent)
    return name, f"{path.relative_to(root).as_posix()}:{code.co_firstlineno}"


def written_code(function: Any) -> CodeType | None:
    """The code that stands in the source under the function's name, below all decorators."""
    if function is None:
        return None
    plain = inspect.unwrap(getattr(function, "__func__", function))
    for cell in getattr(plain, "__closure__", None) or ():  # a decorator without functools.wraps
        inner = cell.cell_contents
        if inspect.isfunction(inner) and inner.__name__ == getattr(function, "__name__", ""):
            plain = inner
    return getattr(plain, "__code__", None)


def is_empty(value: Any) -> bool:
    """Whether an argument is not worth a line."""
    return value is None or (isinstance(value, (str, list, tuple, dict)) and len(value) == 0)


def describe(value: Any) -> str:
    """A value in words: nodes with their scores, a vector by its length, a text as it is."""
    if isinstance(value, QueryBundle):
        embedded = f"  (embedded: {len(value.embedding)} numbers)" if value.embedding else ""
        return value.query_str + embedded
    if isinstance(value, BasePromptTemplate):
        return value.get_template()[:LONGEST]
    if isinstance(value, LLM):
        return type(value).__name__
    if isinstance(value, NodeWithScore):
        return f"{value.node.node_id} {value.score:.3f}" if value.score is not None else value.node.node_id
    if isinstance(value, np.ndarray):
        return f"array {value.shape}, largest {value.max():.3f}" if value.size else f"array {value.shape}"
    if isinstance(value, (list, tuple)):
        return _describe_list(list(value))
    if isinstance(value, dict):
        return ", ".join(f"{key}={describe(item)}" for key, item in value.items())[:LONGEST]
    for field in ("similarities", "query_embedding"):  # VectorStoreQueryResult, VectorStoreQuery
        if getattr(value, field, None) is not None:
            return _describe_vector_store(value)
    for field in ("response", "text", "node_id"):  # Response, CompletionResponse, nodes
        text = getattr(value, field, None)
        if isinstance(text, str):
            return text[:LONGEST]
    return str(value)[:LONGEST]


def _describe_list(items: list) -> str:
    if items and all(isinstance(item, (int, float)) for item in items):
        return f"{len(items)} numbers, length {float(np.linalg.norm(items)):.3f}"
    if items and all(isinstance(item, str) for item in items):
        return f"{len(items)} text{'s' * (len(items) > 1)}: " + " | ".join(items)[:LONGEST]
    kind = "nodes" if items and (isinstance(items[0], NodeWithScore) or hasattr(items[0], "node_id")) else "items"
    shown = ", ".join(describe(item) if isinstance(item, NodeWithScore) else _short(item) for item in items[:5])
    count = f"{len(items)} {kind if len(items) > 1 else kind[:-1]}"
    return f"{count}: {shown}" + (", ..." if len(items) > 5 else "") if items else "nothing"


def _short(item: Any) -> str:
    return str(getattr(item, "node_id", None) or describe(item))[:80]


def _describe_vector_store(value: Any) -> str:
    if getattr(value, "query_embedding", None) is not None:
        among = f" among {len(value.node_ids)} nodes" if value.node_ids else ""
        return f"top {value.similarity_top_k}{among}, mode {value.mode.value}, {describe(value.query_embedding)}"
    pairs = zip(value.ids or [], value.similarities, strict=False)
    return ", ".join(f"{node} {score:.3f}" for node, score in pairs)
