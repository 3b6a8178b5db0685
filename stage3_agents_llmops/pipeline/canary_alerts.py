"""A harmed canary is an alert: the pipeline writes it where the monitoring keeps the others.

The rules of the monitoring look back a minute and want twenty runs; a canary is usually judged sooner, by comparison.
So the verdict itself is written down as an alert, firing from the verdict until no customer meets the candidate, in the
form of monitoring/alert_history.py: JSON lines, of which the last one of an alert counts.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stage3_agents_llmops.pipeline.canary_analysis import Compared

FILE = "canary_alerts.jsonl"
FAMILIES = {
    "errors": "errors", "latency": "latency", "wrong answers": "retrieval", "right article": "retrieval",
    "unhappy": "satisfaction", "handed to a person": "satisfaction", "tokens": "tokens", "unsafe": "safety",
}  # fmt: skip
ZH = {
    "errors": "错误率", "latency": "延迟", "retrieval": "检索准确率", "satisfaction": "满意度", "tokens": "token 用量",
    "safety": "安全",
}  # fmt: skip


def harmed(release: str, compared: Sequence[Compared], unsafe: int, now: float) -> list[dict[str, Any]]:
    """The alerts of a look whose verdict is to abort.

    Args:
        release: the candidate.
        compared: the metrics that are harmed.
        unsafe: unsafe runs of the candidate.
        now: seconds since 1970, on the gateway's clock.
    """
    found = [("unsafe", float(unsafe), unsafe, 0.0)] if unsafe else []
    found += [(each.name, each.canary, each.n_canary, each.baseline) for each in compared]
    return [
        {
            "name": "CanaryHarmed", "family": FAMILIES[name], "severity": "page", "release": release,
            "subject": f"{release} {name}", "state": "firing", "since": now, "until": None, "value": value, "n": n,
            "threshold": threshold, "text": f"{name}: the canary is worse than the baseline",
            "text_zh": f"{ZH[FAMILIES[name]]}：金丝雀版本明显差于基线",
        }
        for name, value, n, threshold in found
    ]  # fmt: skip


def resolved(alerts: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """The same alerts when no customer meets the candidate any more."""
    return [alert | {"state": "resolved", "until": now} for alert in alerts]


def write_alerts(home: Path, alerts: Sequence[dict[str, Any]]) -> None:
    """Append lines; a full disk does not stop a rollback."""
    text = "".join(json.dumps(alert, ensure_ascii=False) + "\n" for alert in alerts)
    with suppress(OSError):
        handle = os.open(home / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)


def read_alerts(home: Path) -> list[dict[str, Any]]:
    """All alerts, each as its last line says."""
    found: dict[tuple[str, str, float], dict[str, Any]] = {}
    with suppress(OSError):
        for line in (home / FILE).read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a line that was cut off
                alert = json.loads(line)
                found[alert["name"], alert["subject"], alert["since"]] = alert
    return list(found.values())
