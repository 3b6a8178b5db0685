"""Each test names the bug that it catches."""

import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from labkit.errors import LabError
from stage3_agents_llmops.agent.events import Event
from stage3_agents_llmops.monitoring import RunLog, Seen, record_from_events
from stage3_agents_llmops.monitoring.otlp import MlflowServer, mlflow_sender
from stage3_agents_llmops.monitoring.trace_store import TraceStore
from stage3_agents_llmops.monitoring.tracing import RunTracer, TraceIds
from stage3_agents_llmops.monitoring.traffic import Behaviour, telling

SECRET = "my number is 138 1234 5678"
TOOL = {"name": "return_item", "arguments": {"address": "SECRETSTREET 5"}, "sensitive": True, "write": True}
SEARCH = {"name": "search_help", "arguments": {"question": SECRET}, "sensitive": False, "write": False}


def told(*events: tuple[str, dict]) -> list[Seen]:
    """Events, a tenth of a second apart; each is one that the agents may tell."""
    return [Seen(Event(type, data).type, data, round(0.1 * place, 1)) for place, (type, data) in enumerate(events)]


def node(name: str, phase: str, agent: str = "supervisor") -> tuple[str, dict]:
    return "node", {"name": name, "agent": agent, "phase": phase, "ms": 0.0}


def run_of_all_kinds() -> list[Seen]:
    return told(
        ("start", {"thread_id": "th", "turn": 1, "run_id": "r", "understander": "c", "wording": "t", "resumed": False,
                   "schema": 1}),
        node("classify", "start"),
        ("intent", {"intent": "return_item", "confidence": 0.9, "abstain": False, "source": "c", "request": 1,
                    "of": 1}),
        node("classify", "end"),
        node("refund_agent", "start", "refund_agent"),
        node("look_up", "start", "refund_agent"),
        ("tool", {**SEARCH, "phase": "call"}),
        ("tool", {**SEARCH, "phase": "result", "ok": True, "message_code": "found",
                  "result": {"passages": ["en/window"], "confident": True, "score": 0.7}}),
        node("look_up", "end", "refund_agent"),
        ("tool", {**TOOL, "phase": "call"}),
        ("tool", {**TOOL, "phase": "result", "ok": False, "message_code": "too_late", "result": {}}),
        node("refund_agent", "end", "refund_agent"),
        ("usage", {"input_tokens": 70, "output_tokens": 9, "model": "qwen", "ms": 100.0}),
        ("guardrail", {"stage": "pii", "finding": "phone SECRETFINDING", "action": "masked"}),
        ("citation", {"number": 1, "id": "en/window", "title": "SECRETTITLE", "text": "SECRETTEXT", "kind": "help"}),
        ("token", {"text": "SECRETANSWER"}),
        ("end", {"reason": "answered", "text": "SECRETANSWER"}),
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """A store that is closed by its tracer."""
    return TraceStore(tmp_path / "traces.sqlite")


def traced(store: TraceStore, seen: list[Seen], content: bool = False, **fields):
    """The spans of one run, by name, and its row."""
    ids = RunTracer.new_ids()
    row = record_from_events(seen, run_id="r", started=1000.0, query=SECRET, trace_id=ids.trace_id, thread_id="th",
                             release="ab12", arm="canary", **fields)  # fmt: skip
    tracer = RunTracer(store, content=content)
    assert tracer.trace(row, seen, ids.span_id, query=SECRET, answer="SECRETANSWER") == ids.trace_id
    assert tracer.flush()
    return {span["name"]: span for span in store.trace(ids.trace_id)}, row, ids


def test_a_run_becomes_a_tree(store):
    """Catches: a span below the wrong one, times of another clock, a node that is closed twice."""
    spans, _, ids = traced(store, run_of_all_kinds())
    parents = {name: next((other for other, each in spans.items() if each["span_id"] == span["parent_id"]), None)
               for name, span in spans.items()}  # fmt: skip
    agent = "invoke_agent customer-service"
    assert parents == {
        "POST /threads/{thread_id}/runs": None, agent: "POST /threads/{thread_id}/runs",
        "supervisor.classify": agent, "refund_agent.refund_agent": agent,
        "refund_agent.look_up": "refund_agent.refund_agent", "retrieval help_centre": "refund_agent.look_up",
        "execute_tool return_item": "refund_agent.refund_agent", "chat qwen": agent,
    }  # fmt: skip
    times = {name: ((span["start_ns"] / 1e9) - 1000, (span["end_ns"] / 1e9) - 1000) for name, span in spans.items()}
    assert times["supervisor.classify"] == pytest.approx((0.1, 0.3), abs=1e-6)
    assert times["refund_agent.refund_agent"] == pytest.approx((0.4, 1.1), abs=1e-6)
    assert times["retrieval help_centre"] == pytest.approx((0.6, 0.7), abs=1e-6)
    assert times["chat qwen"] == pytest.approx((1.1, 1.2), abs=1e-6)
    assert times[agent] == pytest.approx((0.0, 1.6), abs=1e-6)
    assert spans["POST /threads/{thread_id}/runs"]["span_id"] == ids.span_id


def test_names_are_opentelemetrys(store):
    """Catches: attributes of the lab's own where the convention has a name."""
    spans, row, _ = traced(store, run_of_all_kinds())
    agent = spans["invoke_agent customer-service"]["attributes"]
    assert agent["gen_ai.operation.name"] == "invoke_agent" and agent["gen_ai.agent.version"] == "ab12"
    assert agent["gen_ai.conversation.id"] == "th"
    assert (agent["gen_ai.usage.input_tokens"], agent["gen_ai.usage.output_tokens"]) == (70, 9)
    assert agent["gen_ai.response.time_to_first_chunk"] == row.first_token_s == 1.5
    found = spans["retrieval help_centre"]["attributes"]
    assert found["gen_ai.operation.name"] == "retrieval" and found["gen_ai.data_source.id"] == "help_centre"
    assert found["gen_ai.retrieval.documents"] == '[{"id": "en/window"}]' and found["shop.retrieval_score"] == 0.7
    tool = spans["execute_tool return_item"]
    assert tool["attributes"]["gen_ai.tool.name"] == "return_item" and tool["status"] == "error"
    chat = spans["chat qwen"]["attributes"]
    assert (chat["gen_ai.operation.name"], chat["gen_ai.request.model"]) == ("chat", "qwen")
    root = spans["POST /threads/{thread_id}/runs"]["attributes"]
    assert (root["shop.arm"], root["shop.release"], root["shop.run_id"]) == ("canary", "ab12", "r")
    events = spans["invoke_agent customer-service"]["events"]
    assert [event["name"] for event in events] == ["intent", "guardrail", "citation"]


def test_no_text_is_in_a_trace(store):
    """Catches: a question, an answer, an argument or a finding that is written because nobody thought of it."""
    traced(store, run_of_all_kinds())
    rows = store._read("SELECT name, attributes, events, message FROM spans")
    assert len(rows) == 8
    assert not any(
        "SECRET" in str(column) or b"SECRET" in bytes(str(column), "utf-8") for row in rows for column in row
    )
    assert not any(b"SECRET" in row[3] or b"1234 5678" in row[3] for row in rows)


def test_content_is_masked_where_it_is_asked_for(store):
    """Catches: personal data in traces of those who wanted the questions; and the switch, were it without effect."""
    spans, _, _ = traced(store, run_of_all_kinds(), content=True)
    agent = spans["invoke_agent customer-service"]["attributes"]
    assert "[phone]" in agent["gen_ai.input.messages"] and "1234" not in agent["gen_ai.input.messages"]
    assert "SECRETANSWER" in agent["gen_ai.output.messages"]


def test_a_trace_joins_its_row(store, tmp_path):
    """Catches: a row without a trace, a trace of another run."""
    _, row, ids = traced(store, run_of_all_kinds())
    with RunLog(tmp_path / "runs.sqlite") as log:
        log.add(row)
        trace_id = log.get("r").trace_id
    assert trace_id == ids.trace_id
    assert store.trace(trace_id)[0]["attributes"]["shop.run_id"] == "r"
    assert RunTracer.traceparent(TraceIds("ab" * 16, "cd" * 8)) == f"00-{'ab' * 16}-{'cd' * 8}-01"


def test_a_run_that_broke_off_is_an_error(store):
    """Catches: a node that is never closed and so never exported; a lost run that looks well."""
    seen = told(("start", run_of_all_kinds()[0].data), node("classify", "start"), ("token", {"text": "a"}))
    spans, row, _ = traced(store, seen)
    assert row.status == "lost" and "supervisor.classify" in spans
    assert spans["invoke_agent customer-service"]["status"] == "error"
    assert spans["POST /threads/{thread_id}/runs"]["status"] == "error"
    assert spans["invoke_agent customer-service"]["attributes"]["error.type"] == "lost"


def test_many_threads_trace_at_once(store):
    """Catches: a promised id that another thread's span takes."""
    tracer, promised = RunTracer(store), {}

    def work(number: int) -> None:
        rng = random.Random(number)
        for place in range(15):
            ids = tracer.new_ids()
            promised[ids.trace_id] = ids.span_id
            seen = telling(rng, "return_item", Behaviour())
            row = record_from_events(seen, run_id=f"{number}-{place}", started=1000.0, trace_id=ids.trace_id)
            tracer.trace(row, seen, ids.span_id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert tracer.flush()
    roots = {root["trace_id"]: store.trace(root["trace_id"]) for root in store.roots(100)}
    assert {id: spans[0]["span_id"] for id, spans in roots.items()} == promised
    assert {len(spans) for spans in roots.values()} <= {2, 3}


@pytest.fixture
def collector():
    """A server that reads OTLP as MLflow's does, and can be told to refuse."""
    state = {"status": 200, "spans": [], "headers": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if state["status"] == 200:
                request = ExportTraceServiceRequest.FromString(body)
                state["spans"] += [span for resource in request.resource_spans for scope in resource.scope_spans
                                   for span in scope.spans]  # fmt: skip
                state["headers"].append(dict(self.headers))
            self.send_response(state["status"])
            self.end_headers()

        def do_GET(self) -> None:
            body = b'{"experiment": {"experiment_id": "7"}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state["url"] = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def test_a_lost_mlflow_costs_no_trace(tmp_path, collector):
    """Catches: traces that are gone because MLflow was down when they were new; spans that are sent twice."""
    store = TraceStore(tmp_path / "traces.sqlite", MlflowServer(collector["url"]))
    collector["status"] = 503
    _, _, first = traced(store, run_of_all_kinds())
    assert (store.unsent(), collector["spans"]) == (8, [])
    assert store.send_rest() == 0
    collector["status"] = 200
    _, _, second = traced(store, run_of_all_kinds())
    assert store.unsent() == 8
    assert store.send_rest() == 8 and store.unsent() == 0 and store.send_rest() == 0
    assert len(collector["spans"]) == 16
    assert {span.trace_id.hex() for span in collector["spans"]} == {first.trace_id, second.trace_id}
    assert collector["headers"][0]["x-mlflow-experiment-id"] == "7"
    store.send = MlflowServer("http://127.0.0.1:9")
    traced(store, run_of_all_kinds())
    assert store.unsent() == 8


def test_mlflow_shows_the_trace(tmp_path):
    """Catches: spans that MLflow's own code cannot read; a trace without its tokens or its conversation."""
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = TraceStore(tmp_path / "traces.sqlite", mlflow_sender(uri))
    _, row, ids = traced(store, run_of_all_kinds())
    assert RunTracer(store).flush() and store.unsent() == 0
    trace = mlflow.MlflowClient(uri).get_trace(f"tr-{ids.trace_id}")
    assert {span.name: span.span_type for span in trace.data.spans}["chat qwen"] == "CHAT_MODEL"
    assert len(trace.data.spans) == 8
    assert '"total_tokens": 79' in trace.info.trace_metadata["mlflow.trace.tokenUsage"]
    assert trace.info.trace_metadata["mlflow.trace.session"] == "th"
    assert trace.info.execution_duration == round(1000 * row.duration_s)


def test_another_place_is_said(tmp_path):
    """Catches: a traceback for a tracking URI that takes no traces, and for a file that is none."""
    with pytest.raises(LabError, match="no MLflow"):
        mlflow_sender("./mlruns")
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(LabError, match="cannot hold traces"):
        TraceStore(tmp_path / "text")
