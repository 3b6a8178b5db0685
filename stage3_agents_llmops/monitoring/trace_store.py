"""Where spans go: always into SQLite beside the table of runs, and on to MLflow when it is there.

What MLflow has not taken stays marked and is sent later (`traces --send`), so a lost MLflow costs no trace. A span is
kept in OTLP's own form (protobuf), which every tracing server understands.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from labkit.errors import LabError
from stage3_agents_llmops.monitoring.otlp import span_message, values_of_span

SCHEMA = """
CREATE TABLE IF NOT EXISTS spans (
    trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL, start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL, status TEXT NOT NULL, attributes TEXT NOT NULL, events TEXT NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0, message BLOB NOT NULL, PRIMARY KEY (trace_id, span_id)
)
"""
Send = Callable[[Sequence[SpanMessage]], bool]


class TraceStore(SpanExporter):
    """Spans in SQLite.

    Args:
        send: hands spans on, and says whether they were taken; None: they stay here.

    Raises:
        LabError: the file cannot be opened.
    """

    def __init__(self, path: str | Path, send: Send | None = None) -> None:
        self.path, self.send = Path(path), send
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise LabError(f"{path} cannot hold traces: {error}", "another file, or remove that one") from None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep spans, then hand them on."""
        messages = [span_message(span) for span in spans]
        try:
            self.add(messages)
            self.forward(messages)
        except LabError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def add(self, messages: Sequence[SpanMessage]) -> None:
        """Keep spans; one that is there already stays as it is.

        Raises:
            LabError: the file cannot be written.
        """
        rows = []
        for message in messages:
            known = values_of_span(message)
            rows.append((
                message.trace_id.hex(), message.span_id.hex(), message.parent_span_id.hex() or None, message.name,
                message.start_time_unix_nano, message.end_time_unix_nano, known["status"],
                json.dumps(known["attributes"], ensure_ascii=False), json.dumps(known["events"], ensure_ascii=False),
                message.SerializeToString(),
            ))  # fmt: skip
        self._write("INSERT OR IGNORE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)", rows)

    def forward(self, messages: Sequence[SpanMessage]) -> bool:
        """Hand spans on and note that they were taken."""
        if self.send is None or not messages or not self.send(messages):
            return False
        self._write("UPDATE spans SET sent = 1 WHERE trace_id = ? AND span_id = ?",
                    [(message.trace_id.hex(), message.span_id.hex()) for message in messages])  # fmt: skip
        return True

    def send_rest(self, at_once: int = 500) -> int:
        """Send what was not taken when it was new; returns how many spans, and stops at the first refusal."""
        count = 0
        while rows := self._read("SELECT message FROM spans WHERE NOT sent LIMIT ?", (at_once,)):
            messages = [SpanMessage.FromString(row[0]) for row in rows]
            if not self.forward(messages):
                break
            count += len(messages)
        return count

    def unsent(self) -> int:
        """Spans that nobody has taken yet."""
        return self._read("SELECT COUNT(*) FROM spans WHERE NOT sent")[0][0]

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """A trace's spans, the first one first."""
        names = ("span_id", "parent_id", "name", "start_ns", "end_ns", "status", "attributes", "events")
        rows = self._read(f"SELECT {', '.join(names)} FROM spans WHERE trace_id = ? "
                          "ORDER BY parent_id IS NOT NULL, start_ns, end_ns DESC",
                          (trace_id,))  # fmt: skip
        return [
            {**dict(zip(names, row, strict=True)), "attributes": json.loads(row[6]), "events": json.loads(row[7])}
            for row in rows
        ]

    def roots(self, count: int) -> list[dict[str, Any]]:
        """The newest traces' first spans, the newest first."""
        names = ("trace_id", "name", "start_ns", "end_ns", "status", "attributes")
        rows = self._read(f"SELECT {', '.join(names)} FROM spans WHERE parent_id IS NULL ORDER BY start_ns DESC "
                          "LIMIT ?", (count,))  # fmt: skip
        return [{**dict(zip(names, row, strict=True)), "attributes": json.loads(row[5])} for row in rows]

    def _write(self, statement: str, rows: Sequence[tuple]) -> None:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise LabError(f"{self.path} cannot be written: {error}", "is the disk full? then again") from None

    def _read(self, statement: str, values: tuple = ()) -> list[tuple]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def shutdown(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()  # the last one that closes folds the write-ahead log into the file
