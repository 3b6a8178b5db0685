"""Rows of runs made up for a test."""

from typing import Any

from stage3_agents_llmops.monitoring import RunRecord

NOW = 1_800_000_000.0
_made = iter(range(10**9))


def run_of(**fields: Any) -> RunRecord:
    """A run that was answered in 0.4 s, but for the fields given."""
    usual = {"run_id": f"run_{next(_made)}", "release": "good", "arm": "stable", "started": NOW, "duration_s": 0.4,
             "first_token_s": 0.2, "first_event_s": 0.01, "query_chars": 20, "intent": "order_status"}  # fmt: skip
    return RunRecord(**usual | fields)


def runs_over(seconds: float, count: int, end: float = NOW, **fields: Any) -> list[RunRecord]:
    """`count` runs that end evenly over the seconds before `end`; a callable field is called with the run's number."""
    made = []
    for number in range(count):
        known = {name: value(number) if callable(value) else value for name, value in fields.items()}
        took = known.get("duration_s", 0.4) or 0.0
        made.append(run_of(started=end - seconds + seconds * (number + 0.5) / count - took, **known))
    return made
