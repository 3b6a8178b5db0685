"""Simulated customers whose true effects are known: an analysis that does not find them is wrong.

Each customer is patient or not, rich or not, easy or hard to help; the arms change only what EFFECTS says. One row a
conversation and experiment goes into a `runs` table like that of the monitoring lab, one exposure into the log.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.progress import progress
from stage3_agents_llmops.experiments.assignment import Assignment, Experiments
from stage3_agents_llmops.experiments.exposure_log import Exposure, ExposureLog

COLUMNS = ("unit", "arm", "experiment", "resolved", "handed_over", "messages", "seconds", "spend", "spend_before")
SECONDS_PER_MESSAGE = 1.2
START = 1_750_000_000.0  # the first customer's time, in seconds since 1970


@dataclass(frozen=True)
class Change:
    """What an arm changes: chances and spend by addition, seconds by a factor."""

    resolved: float = 0.0
    handed_over: float = 0.0
    spend: float = 0.0
    slower: float = 1.0


EFFECTS: Mapping[tuple[str, str], Change] = {
    ("rerank", "treatment"): Change(resolved=0.06, slower=1.03),
    ("short-prompt", "treatment"): Change(handed_over=0.06, slower=0.95),
    ("hint", "treatment"): Change(spend=2.0),
}  # warm-tone, session-tone, deep-search: nothing at all


def simulate_customers(
    experiments: Experiments, customers: int, log_path: Path, runs_path: Path, seed: int = 1,
    effects: Mapping[tuple[str, str], Change] = EFFECTS,
) -> int:  # fmt: skip
    """Send customers through the experiments; writes exposures and the table `runs`, and returns its rows."""
    draw = np.random.default_rng(seed)
    rows, exposures = [], []
    for number in progress(range(customers), description="customers"):
        attributes = {"language": "zh" if draw.random() < 0.4 else "en", "orders": int(draw.poisson(2))}
        assignment = experiments.assign({"user": f"u-{number}", "session": f"s-{number}"}, attributes)
        conversations = _conversations(draw, change_of(assignment, effects))
        for chosen in assignment.arms.values():
            exposures.append(
                Exposure(chosen.experiment, chosen.unit_id, chosen.arm, chosen.unit, START + number)
            )
            rows += [(chosen.unit_id, chosen.arm, chosen.experiment, *row) for row in conversations]
    with ExposureLog(log_path) as log:
        log.add(exposures)
    write_runs(runs_path, rows)
    return len(rows)


def change_of(assignment: Assignment, effects: Mapping[tuple[str, str], Change]) -> Change:
    """All changes of an assignment together."""
    changes = [effects.get((chosen.experiment, chosen.arm), Change()) for chosen in assignment.arms.values()]
    slower = float(np.prod([change.slower for change in changes]))
    return Change(*(sum(getattr(change, name) for change in changes) for name in ("resolved", "handed_over", "spend")),
                  slower)  # fmt: skip


def _conversations(draw: np.random.Generator, change: Change) -> list[tuple[float, ...]]:
    """A customer's conversations: resolved, handed over, messages, seconds, spend, spend before."""
    count = 1 + draw.poisson(0.6)
    patience, pace, wealth = draw.gamma(2.0, 1.5), draw.lognormal(0, 0.35), draw.lognormal(3, 0.6)
    resolved = draw.random() < draw.beta(12, 6) * 0.9 + change.resolved  # 0.6 on average
    handed_over = draw.random() < 0.08 + change.handed_over
    rows = []
    for place in range(count):
        last, messages = place == count - 1, 1 + draw.poisson(patience)
        seconds = SECONDS_PER_MESSAGE * pace * change.slower * draw.gamma(4 * messages, 0.25)
        spend = max(0.0, wealth * draw.lognormal(0, 0.3) / count) + (change.spend if last else 0.0)
        before = wealth * 1.0
        rows.append((float(resolved and last), float(handed_over and last), messages, seconds, spend, before))
    return rows


def write_runs(path: Path, rows: list[tuple]) -> None:
    """A `runs` table with one row a conversation and experiment."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE IF EXISTS runs")
        db.execute(f"CREATE TABLE runs ({', '.join(COLUMNS)})")
        db.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * len(COLUMNS))})", rows)
        db.execute("CREATE INDEX runs_by_unit ON runs (experiment, unit)")
