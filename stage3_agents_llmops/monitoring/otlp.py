"""Spans in OTLP's form, and to MLflow: over HTTP to a server's /v1/traces, or straight into its database.

The exporter packages of OpenTelemetry would do the first half; the course needs only the messages, which
opentelemetry-proto has, and one POST.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.trace import ReadableSpan

from labkit.errors import LabError

EXPERIMENT = "customer-service"
STATUSES = {0: "unset", 1: "ok", 2: "error"}
TIMEOUT = 5.0  # seconds


def span_message(span: ReadableSpan) -> SpanMessage:
    """A finished span as OTLP's message."""
    context = span.get_span_context()
    message = SpanMessage(
        trace_id=context.trace_id.to_bytes(16, "big"), span_id=context.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent.span_id.to_bytes(8, "big") if span.parent else b"", name=span.name,
        kind=span.kind.value + 1, start_time_unix_nano=span.start_time, end_time_unix_nano=span.end_time,
        attributes=key_values(span.attributes or {}),
        status=Status(code=span.status.status_code.value, message=span.status.description or ""),
    )  # fmt: skip
    for event in span.events:
        message.events.add(
            name=event.name, time_unix_nano=event.timestamp, attributes=key_values(event.attributes or {})
        )
    return message


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes as OTLP's messages."""
    return [KeyValue(key=name, value=any_value(value)) for name, value in attributes.items()]


def any_value(value: Any) -> AnyValue:
    """A value as OTLP's message: text, truth, whole number, number, or a list of them."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list | tuple):
        return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in value]))
    return AnyValue(string_value=str(value))


def plain(value: AnyValue) -> Any:
    """The value of OTLP's message."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def values_of_span(message: SpanMessage) -> dict[str, Any]:
    """status, attributes and events of a span's message, as plain values."""
    return {
        "status": STATUSES[message.status.code],
        "attributes": {each.key: plain(each.value) for each in message.attributes},
        "events": [
            {"name": event.name, "at_ns": event.time_unix_nano,
             **{each.key: plain(each.value) for each in event.attributes}}
            for event in message.events
        ],
    }  # fmt: skip


def request(messages: Sequence[SpanMessage], service: str) -> ExportTraceServiceRequest:
    """What is posted to /v1/traces."""
    body = ExportTraceServiceRequest()
    spans = body.resource_spans.add()
    spans.resource.attributes.extend(key_values({"service.name": service}))
    spans.scope_spans.add().spans.extend(messages)
    return body


class MlflowServer:
    """Sends spans to an MLflow server (OTLP over HTTP; MLflow 3.6 and later)."""

    def __init__(self, url: str, experiment: str = EXPERIMENT) -> None:
        self.url, self.experiment = url.rstrip("/"), experiment
        self.http = httpx.Client(timeout=TIMEOUT, trust_env=False)
        self._id: str | None = None

    def __call__(self, messages: Sequence[SpanMessage]) -> bool:
        """Whether the server took them."""
        try:
            self._id = self._id or self._experiment_id()
            headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": self._id}
            body = request(messages, self.experiment).SerializeToString()
            return self.http.post(f"{self.url}/v1/traces", content=body, headers=headers).is_success
        except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
            return False

    def _experiment_id(self) -> str:
        api = f"{self.url}/api/2.0/mlflow/experiments"
        found = self.http.get(f"{api}/get-by-name", params={"experiment_name": self.experiment})
        if found.status_code == 404:
            return self.http.post(f"{api}/create", json={"name": self.experiment}).json()["experiment_id"]
        return found.raise_for_status().json()["experiment"]["experiment_id"]


class MlflowDatabase:
    """Writes spans into MLflow's database, as its server would: sqlite:///mlflow.db, postgresql://..."""

    def __init__(self, uri: str, experiment: str = EXPERIMENT) -> None:
        self.uri, self.experiment = uri, experiment
        self._id: str | None = None

    def __call__(self, messages: Sequence[SpanMessage]) -> bool:
        """Whether they were written."""
        from mlflow import MlflowClient
        from mlflow.entities import Span
        from mlflow.exceptions import MlflowException
        from mlflow.tracing.client import TracingClient

        try:
            if self._id is None:
                client = MlflowClient(self.uri)
                found = client.get_experiment_by_name(self.experiment)
                self._id = found.experiment_id if found else client.create_experiment(self.experiment, self._files())
            TracingClient(self.uri).log_spans(self._id, [Span.from_otel_proto(message) for message in messages])
        except (MlflowException, OSError):
            return False
        return True

    def _files(self) -> str | None:
        """Where MLflow keeps files: beside a SQLite database, not in whatever folder is the current one."""
        path = self.uri.removeprefix("sqlite:///")
        return None if path == self.uri else str(Path(path).absolute().with_name("mlflow-files"))


def mlflow_sender(uri: str, experiment: str = EXPERIMENT) -> MlflowServer | MlflowDatabase:
    """What sends spans to a tracking URI.

    Raises:
        LabError: neither a server nor a database.
    """
    if uri.startswith(("http://", "https://")):
        return MlflowServer(uri, experiment)
    if uri.startswith(("sqlite:///", "postgresql")):
        return MlflowDatabase(uri, experiment)
    raise LabError(f"{uri} is no MLflow that takes traces", "http://127.0.0.1:5000 or sqlite:///mlflow.db")
