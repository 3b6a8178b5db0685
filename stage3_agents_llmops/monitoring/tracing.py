"""A trace for every run: gateway, agent, its nodes, tools, retrieval and model calls, by OpenTelemetry.

    tracer = RunTracer(TraceStore("traces.sqlite"))
    headers = {"traceparent": tracer.traceparent(ids := tracer.new_ids())}      # for the service that answers
    tracer.trace(record, events, span_id=ids.span_id)                          # record.trace_id joins it to `runs`

    POST /threads/{thread_id}/runs           the gateway
    └ invoke_agent customer-service          the service: release, tokens; intents, guardrails, citations as events
      └ supervisor.classify, ...             a node of the graph, as long as it took
        ├ retrieval help_centre              the passages' ids and the best score
        ├ execute_tool return_item           the tool's name and outcome, never its arguments
        └ chat MODEL                         tokens

Names and attributes are OpenTelemetry's for generative AI (semantic-conventions-genai; status: development). Questions,
answers and arguments are personal; they are left out unless `content` is asked for, and masked even then.
"""

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, set_span_in_context

from stage3_agents_llmops.monitoring.run_record import ERRORS, RunRecord, Seen

AGENT, PROVIDER = "customer-service", "course"
SOURCES = {"search_help": "help_centre", "search_product": "product_reviews"}
NOTED = {  # events that become events of the agent's span: their fields that are kept, none of which holds a text
    "intent": ("intent", "confidence", "abstain", "source", "request", "of"),
    "guardrail": ("stage", "action"),
    "citation": ("number", "id", "kind"),
    "handoff": ("from", "to", "count"),
    "interrupt": ("tool",),
    "human": ("position",),
}


@dataclass(frozen=True)
class TraceIds:
    """Ids of a trace and of its first span, as 32 and 16 hexadecimal digits (W3C Trace Context)."""

    trace_id: str
    span_id: str


class GivenIds(threading.local, RandomIdGenerator):
    """Random ids, but for this thread's next span, which gets the ids that a header has promised."""

    promised: TraceIds | None = None

    def generate_trace_id(self) -> int:
        return int(self.promised.trace_id, 16) if self.promised else super().generate_trace_id()

    def generate_span_id(self) -> int:
        promised, self.promised = self.promised, None
        return int(promised.span_id, 16) if promised else super().generate_span_id()


class RunTracer:
    """Makes traces of runs that are over and hands them to an exporter, in a thread of its own.

    Args:
        exporter: where spans go; one that fails loses spans, never a customer's answer.
        content: put questions and answers into the traces, masked.
        mask: takes personal data out of a text; None: the agents' own filter.
    """

    def __init__(
        self, exporter: SpanExporter, content: bool = False, mask: Callable[[str], str] | None = None,
        delay: float = 1.0,
    ) -> None:  # fmt: skip
        self.content, self.mask, self.ids = content, mask or masked, GivenIds()
        resource = Resource({"service.name": AGENT, "service.namespace": PROVIDER})
        self.provider = TracerProvider(
            resource=resource, id_generator=self.ids, shutdown_on_exit=False, sampler=ALWAYS_ON
        )
        self.provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000 * delay))
        self.tracer = self.provider.get_tracer("stage3_agents_llmops.monitoring")

    @staticmethod
    def new_ids() -> TraceIds:
        """Ids for a run that begins."""
        return TraceIds(secrets.token_hex(16), secrets.token_hex(8))

    @staticmethod
    def traceparent(ids: TraceIds) -> str:
        """The header that hands the trace on (W3C Trace Context): version, ids, sampled."""
        return f"00-{ids.trace_id}-{ids.span_id}-01"

    def trace(
        self, record: RunRecord, events: Sequence[Seen], span_id: str | None = None, query: str = "", answer: str = ""
    ) -> str:
        """Make the trace of a run that is over; returns its id.

        Args:
            record: its row. Where it has no trace_id the trace gets one of its own.
            span_id: of the first span, as the traceparent header gave it.
            query, answer: used only where the tracer was opened with `content`.
        """
        ids = TraceIds(record.trace_id or secrets.token_hex(16), span_id or secrets.token_hex(8))
        telling = Telling(self, record)
        with telling.span("POST /threads/{thread_id}/runs", 0.0, None, SpanKind.SERVER, ids=ids) as root:
            root.set_attributes(gateway_attributes(record))
            with telling.span(f"invoke_agent {AGENT}", 0.0, root, SpanKind.CLIENT) as agent:
                agent.set_attributes(agent_attributes(record))
                if self.content:
                    agent.set_attributes(self._texts(query, answer))
                telling.tell(events, agent)
                for span in (agent, root) if record.status in ERRORS else ():
                    span.set_status(StatusCode.ERROR, record.error or record.status)
        return ids.trace_id

    def _texts(self, query: str, answer: str) -> dict[str, str]:
        def message(role: str, text: str) -> str:
            return json.dumps(
                [{"role": role, "parts": [{"type": "text", "content": self.mask(text)}]}], ensure_ascii=False
            )

        return {gen_ai.GEN_AI_INPUT_MESSAGES: message("user", query),
                gen_ai.GEN_AI_OUTPUT_MESSAGES: message("assistant", answer)}  # fmt: skip

    def flush(self, seconds: float = 10.0) -> bool:
        """Wait until the exporter has everything."""
        return self.provider.force_flush(int(1000 * seconds))

    def close(self) -> None:
        """Export what waits, and stop."""
        self.provider.shutdown()


def masked(text: str) -> str:
    """The agents' filter for personal data."""
    from stage3_agents_llmops.agent.guardrails.pii import mask_pii

    return mask_pii(text).text


def gateway_attributes(record: RunRecord) -> dict[str, Any]:
    """What the gateway knows: the request, the arm, the row."""
    return {
        "http.request.method": "POST", "http.route": "/threads/{thread_id}/runs",
        gen_ai.GEN_AI_CONVERSATION_ID: record.thread_id, "shop.run_id": record.run_id, "shop.arm": record.arm,
        "shop.release": record.release, "shop.instance": record.instance, "shop.status": record.status,
        "shop.probe": record.probe,
    }  # fmt: skip


def agent_attributes(record: RunRecord) -> dict[str, Any]:
    """A span of an agent's invocation."""
    attributes = {
        gen_ai.GEN_AI_OPERATION_NAME: "invoke_agent", gen_ai.GEN_AI_PROVIDER_NAME: PROVIDER,
        gen_ai.GEN_AI_AGENT_NAME: AGENT, gen_ai.GEN_AI_AGENT_VERSION: record.release,
        gen_ai.GEN_AI_CONVERSATION_ID: record.thread_id, gen_ai.GEN_AI_USAGE_INPUT_TOKENS: record.input_tokens,
        gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: record.output_tokens,
        gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: record.first_token_s,
        "error.type": record.error or (record.status if record.status in ERRORS else None),
    }  # fmt: skip
    return {name: value for name, value in attributes.items() if value is not None}


class Telling:
    """Turns one run's events into spans with the times at which they arrived."""

    def __init__(self, tracer: RunTracer, record: RunRecord) -> None:
        self.tracer, self.record = tracer, record
        self.whole = record.duration_s or 0.0

    def at(self, seconds: float) -> int:
        """Seconds after the request as nanoseconds since 1970."""
        return int((self.record.started + seconds) * 1e9)

    def open(self, name: str, seconds: float, parent: Span | None, kind: SpanKind = SpanKind.INTERNAL) -> Span:
        """A span that began then."""
        context = set_span_in_context(parent or INVALID_SPAN)
        return self.tracer.tracer.start_span(name, context, kind, start_time=self.at(seconds))

    @contextmanager
    def span(
        self, name: str, seconds: float, parent: Span | None, kind: SpanKind, ids: TraceIds | None = None
    ) -> Iterator[Span]:
        """A span that lasts until the run's end."""
        self.tracer.ids.promised = ids
        span = self.open(name, seconds, parent, kind)
        try:
            yield span
        finally:
            span.end(self.at(self.whole))

    # exercise: monitoring.tell
    def tell(self, events: Sequence[Seen], agent: Span) -> None:
        """The events as spans below the agent's, and as events on it.

        A node's span lasts from its start to its end; nodes that begin while another is open are inside it. Tools and
        model calls belong to the node that is open when they are told (the agent where none is), see `tool` and `chat`.
        The event types of NOTED become events of the agent's span, with the fields that NOTED names. A node that never
        ended is closed at the end of the run.
        """
        nodes: list[tuple[tuple[str, str], Span]] = []
        calls: dict[str, float] = {}
        for type, data, seconds in events:
            inside = nodes[-1][1] if nodes else agent
            if type == "node" and data["phase"] == "start":
                nodes.append(((data["agent"], data["name"]), self.open(f"{data['agent']}.{data['name']}", seconds,
                                                                       inside)))  # fmt: skip
            elif type == "node":
                ends = [place for place, (name, _) in enumerate(nodes) if name == (data["agent"], data["name"])]
                for _, span in reversed(nodes[ends[-1] :] if ends else []):
                    span.end(self.at(seconds))
                del nodes[ends[-1] if ends else len(nodes) :]
            elif type == "tool" and data["phase"] == "call":
                calls[data["name"]] = seconds
            elif type == "tool":
                self.tool(data, calls.pop(data["name"], seconds), seconds, inside)
            elif type == "usage":
                self.chat(data, seconds, inside)
            elif type in NOTED:
                kept = {f"shop.{name}": data[name] for name in NOTED[type] if data.get(name) is not None}
                agent.add_event(type, kept, timestamp=self.at(seconds))
        for _, span in reversed(nodes):
            span.end(self.at(self.whole))

    # end exercise

    def tool(self, data: Mapping[str, Any], began: float, ended: float, inside: Span) -> None:
        """A tool's call, or a search."""
        source = SOURCES.get(data["name"])
        name = f"retrieval {source}" if source else f"execute_tool {data['name']}"
        span = self.open(name, began, inside, SpanKind.CLIENT if source else SpanKind.INTERNAL)
        span.set_attribute(gen_ai.GEN_AI_OPERATION_NAME, "retrieval" if source else "execute_tool")
        if source:
            found = data.get("result") or {}
            ids = [{"id": id} for id in found.get("passages", ())]
            span.set_attributes({gen_ai.GEN_AI_DATA_SOURCE_ID: source, gen_ai.GEN_AI_RETRIEVAL_DOCUMENTS:
                                 json.dumps(ids), "shop.retrieval_score": found.get("score", 0.0)})  # fmt: skip
        else:
            span.set_attributes({gen_ai.GEN_AI_TOOL_NAME: data["name"], gen_ai.GEN_AI_TOOL_TYPE: "function",
                                 "shop.tool_write": data["write"], "shop.tool_outcome":
                                 str(data.get("message_code", ""))})  # fmt: skip
        if not data.get("ok", True) and data.get("message_code") not in (None, "not_found"):
            span.set_status(StatusCode.ERROR, str(data["message_code"]))
        span.end(self.at(ended))

    def chat(self, data: Mapping[str, Any], ended: float, inside: Span) -> None:
        """A model's call; its event says how long it took."""
        model = data["model"] or "unknown"
        span = self.open(f"chat {model}", max(0.0, ended - data["ms"] / 1000), inside, SpanKind.CLIENT)
        span.set_attributes({
            gen_ai.GEN_AI_OPERATION_NAME: "chat", gen_ai.GEN_AI_PROVIDER_NAME: "openai",
            gen_ai.GEN_AI_REQUEST_MODEL: model, gen_ai.GEN_AI_USAGE_INPUT_TOKENS: data["input_tokens"] or 0,
            gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: data["output_tokens"] or 0,
        })  # fmt: skip
        span.end(self.at(ended))
