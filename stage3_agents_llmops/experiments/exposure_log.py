"""Who really saw it: one row for a unit and an experiment, written when the arm is used, not when it is computed.

    log = ExposureLog("runs/exposures.sqlite")
    log.expose(experiments.assign({"user": "u-17"}))                   all its experiments
    log.expose(assignment, "rerank")                                   only the one whose parameter was read

Whoever analyses all that were assigned dilutes the effect with people who never met it. The row is there when `expose`
returns: SQLite with a write-ahead log, so `kill -9` afterwards loses nothing, and several processes may write at once.

The key is unit, experiment *and arm*: a unit that appears in two arms leaves two rows, which `multiple_exposures` sees.
With the arm outside the key the second row would vanish, and with it the only trace of a broken assignment.
"""

import csv
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError
from stage3_agents_llmops.experiments.assignment import Assignment

SCHEMA = """
CREATE TABLE IF NOT EXISTS exposures (
    experiment TEXT NOT NULL, unit TEXT NOT NULL, arm TEXT NOT NULL, kind TEXT NOT NULL, time REAL NOT NULL,
    PRIMARY KEY (experiment, unit, arm)
) WITHOUT ROWID
"""
WAIT = 30.0  # seconds for another process's write to end
REMEMBERED = 200_000  # exposures a process keeps in mind, so that a customer's next message costs no write


class Exposure(NamedTuple):
    """One row: `unit` is the id, `kind` what it is the id of."""

    experiment: str
    unit: str
    arm: str
    kind: str
    time: float


class ExposureLog:
    """Append-only, idempotent, safe for threads and processes."""

    def __init__(self, path: str | Path) -> None:
        """Open or make the file.

        Raises:
            LabError: it is no SQLite database, or cannot be made there.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        self._seen: set[tuple[str, str, str]] = set()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # survives a kill; FULL would survive a power cut as well
            self._db.execute(SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise LabError(f"{path} cannot hold exposures: {error}", "another file, or remove that one") from None

    def expose(self, assignment: Assignment, experiment: str | None = None, suffix: str = "") -> int:
        """Log an assignment's experiments, or one of them; returns how many rows were new. Testers are left out.

        Args:
            suffix: appended to the experiment's name. When *weights* are ramped, units do move (into the growing arm):
                each step is then an experiment of its own, "rollout-v7.step-2".

        Raises:
            LabError: the file could not be written; nothing of this call is in it.
        """
        return self.add(self._rows(assignment, experiment, suffix))

    def knows(self, assignment: Assignment, experiment: str | None = None, suffix: str = "") -> bool:
        """Whether `expose` would find nothing new, as far as memory goes: then nobody needs to wait for the disk."""
        return all(row[:3] in self._seen for row in self._rows(assignment, experiment, suffix))

    def _rows(self, assignment: Assignment, experiment: str | None, suffix: str) -> list[Exposure]:
        now = time.time()
        return [Exposure(each.experiment + suffix, each.unit_id, each.arm, each.unit, now)
                for each in assignment.arms.values()
                if experiment in (None, each.experiment) and not each.forced]  # fmt: skip

    def add(self, exposures: Iterable[Exposure]) -> int:
        """Log rows in one transaction; returns how many were new."""
        with self._lock:
            rows = [row for row in exposures if row[:3] not in self._seen]
            if not rows:
                return 0
            try:
                new = self._insert(rows)
            except sqlite3.Error as error:
                raise LabError(f"{self.path} cannot be written: {error}", "is the disk full? then again") from None
            if len(self._seen) > REMEMBERED:
                self._seen.clear()
            self._seen.update(row[:3] for row in rows)
            return new

    def _insert(self, rows: list[Exposure]) -> int:
        before = self._db.total_changes
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT OR IGNORE INTO exposures VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return self._db.total_changes - before

    def __iter__(self) -> Iterator[Exposure]:
        yield from self.rows()

    def rows(self, experiment: str | None = None) -> list[Exposure]:
        """All rows, or those of one experiment, the oldest first."""
        with self._lock:
            which, values = ("", ()) if experiment is None else (" WHERE experiment = ?", (experiment,))
            found = self._db.execute(f"SELECT * FROM exposures{which} ORDER BY time", values).fetchall()
        return [Exposure(*row) for row in found]

    def close(self) -> None:
        """Close the file; what was logged stays."""
        self._db.close()

    def __enter__(self) -> "ExposureLog":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_exposures(path: str | Path, experiment: str | None = None) -> list[Exposure]:
    """Exposures from a log of this module, or from CSV or JSONL with its columns (`kind` and `time` may be missing).

    Raises:
        LabError: the file is missing, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"there are no exposures at {path}", "--exposures FILE (.sqlite, .csv or .jsonl)")
    if path.suffix not in (".csv", ".jsonl"):
        with ExposureLog(path) as log:
            return log.rows(experiment)
    text = path.read_text(encoding="utf-8-sig")
    try:
        records = list(csv.DictReader(text.splitlines())) if path.suffix == ".csv" else [
            json.loads(line) for line in text.splitlines() if line.strip()
        ]  # fmt: skip
        rows = [
            Exposure(row["experiment"], str(row["unit"]), row["arm"], row.get("kind") or "user",
                     float(row.get("time") or 0))
            for row in records
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise LabError(f"{path} holds no exposures: {reason}", "columns experiment, unit, arm") from None
    return [row for row in rows if experiment in (None, row.experiment)]
