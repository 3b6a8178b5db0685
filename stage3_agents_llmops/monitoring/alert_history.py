"""Which alerts there were: every one that has fired, from when to when, kept in a file over restarts."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stage3_agents_llmops.monitoring.alerting import Alert

KEPT = 500  # alerts


class AlertHistory:
    """The alerts that fired, the newest last, with JSON lines on disk.

    A line is written when an alert begins and again when it ends; the last line of an alert counts. A disk that is full
    must not stop the monitoring: then the history is in memory only.

    Args:
        path: the file; None: in memory only.
        others: a file of the same form that another process writes (the pipeline's verdicts about a canary); its
            alerts are listed among these.
    """

    def __init__(self, path: Path | None, others: Path | None = None) -> None:
        self.path, self.others, self.unwritten = path, others, 0
        self._entries = read_entries(path)
        self._theirs, self._size = read_entries(None), -1

    def add(self, alerts: Sequence[Alert], thresholds: dict[str, float], now: float) -> None:
        """Note alerts that began to fire or were resolved."""
        for alert in alerts:
            began = alert.fired if alert.fired is not None else alert.since
            entry = {
                "name": alert.name, "family": alert.family, "severity": alert.severity,
                "release": alert.release, "subject": alert.subject, "state": alert.state, "since": began,
                "until": now if alert.state == "resolved" else None, "value": alert.value, "n": alert.n,
                "threshold": thresholds[alert.name], "text": alert.text, "text_zh": alert.text_zh,
            }  # fmt: skip
            self._keep(entry)
            self._write(entry)

    def close_others(self, alerts: Sequence[Alert], now: float) -> None:
        """After a restart: what the file calls firing and what is not firing any more was resolved meanwhile."""
        firing = {(alert.name, alert.subject) for alert in alerts}
        for entry in self._entries.values():
            if entry["state"] == "firing" and (entry["name"], entry["subject"]) not in firing:
                entry |= {"state": "resolved", "until": now}
                self._write(entry)

    def entries(self) -> list[dict[str, Any]]:
        """The newest first."""
        size = self.others.stat().st_size if self.others is not None and self.others.is_file() else 0
        if size != self._size:
            self._size, self._theirs = size, read_entries(self.others)
        return sorted([*self._entries.values(), *self._theirs.values()], key=lambda entry: -entry["since"])

    def _keep(self, entry: dict[str, Any]) -> None:
        self._entries[key_of(entry)] = entry
        while len(self._entries) > KEPT:
            del self._entries[next(iter(self._entries))]

    def _write(self, entry: dict[str, Any]) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, (json.dumps(entry, ensure_ascii=False) + "\n").encode())
            finally:
                os.close(handle)
        except OSError:
            self.unwritten += 1


def key_of(entry: dict[str, Any]) -> tuple[str, str, float]:
    """What makes two lines tell of the same alert."""
    return entry["name"], entry.get("subject") or "", float(entry["since"])


def read_entries(path: Path | None) -> dict[tuple[str, str, float], dict[str, Any]]:
    """The alerts of a file; a line that a killed process has cut off is left out."""
    found: dict[tuple[str, str, float], dict[str, Any]] = {}
    if path is not None and path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                found[key_of(entry)] = entry
    return found
