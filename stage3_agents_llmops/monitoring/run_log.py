"""The table `runs`: one row a run, in SQLite. The dashboard, the metrics, the alerts and the canary all read it.

    log = RunLog("runs/stage3/monitoring/runs.sqlite")
    log.add(record_from_events(events, run_id=..., started=..., release="ab12...", arm="canary"))
    log.update(run_id, feedback=1)
    summarise(log.window(release="ab12...", since=time.time() - 300, probes=False))

Several processes write at once (write-ahead log, one short transaction a row); a row is there when `add` returns and
survives `kill -9`.
"""

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.monitoring.run_record import FIELDS, FLAGS, RunRecord

KINDS = {"float": "REAL", "int": "INTEGER", "bool": "INTEGER", "str": "TEXT"}
ENDED = "started + COALESCE(duration_s, 0)"
LONGEST_RUN = 3600.0  # seconds
WAIT = 30.0  # seconds for another process's write to end
LATER = ("citation_clicks", "feedback", "resolved", "retrieval_hit", "wrong", "status", "error", "unsafe")


def _schema() -> str:
    """A column a field, of the type that the record declares."""
    kinds = {name: KINDS[str(getattr(hint, "__args__", (hint,))[0].__name__)]
             for name, hint in RunRecord.__annotations__.items()}  # fmt: skip
    columns = ", ".join(f"{name} {kinds[name]}{' PRIMARY KEY' if name == 'run_id' else ''}" for name in FIELDS)
    return f"CREATE TABLE IF NOT EXISTS runs ({columns})"


class RunLog:
    """The rows of one file. Threads and processes may share it.

    Raises:
        LabError: the file cannot be opened, or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # survives a kill; FULL would survive a power cut as well
            self._db.execute(_schema())
            self._db.execute("CREATE INDEX IF NOT EXISTS runs_started ON runs (started)")
            self._db.execute(f"SELECT {', '.join(FIELDS)} FROM runs LIMIT 1")
        except (sqlite3.Error, OSError) as error:
            raise LabError(f"{path} cannot hold runs: {error}", "another file, or remove that one") from None

    def add(self, *records: RunRecord) -> int:
        """Write rows; returns how many were new. A run that has a row keeps it: change it with `update`.

        Raises:
            LabError: the file could not be written; nothing of this call is in it.
        """
        marks = ", ".join("?" * len(FIELDS))
        return self._write(f"INSERT OR IGNORE INTO runs VALUES ({marks})", [astuple(each) for each in records])

    def update(self, run_id: str, **changes: Any) -> bool:
        """Set what is known only later: feedback, resolved, retrieval_hit, ...; False when there is no such run.

        Raises:
            ValueError: a field that does not change later, or a value that it cannot have.
            LabError: the file could not be written.
        """
        if unknown := sorted(set(changes) - set(LATER)):
            raise ValueError(f"{', '.join(unknown)} cannot change later; {', '.join(LATER)} can")
        replace(RunRecord(run_id=run_id), **changes)  # the values are checked there
        names = ", ".join(f"{name} = ?" for name in changes)
        return bool(changes) and self._write(
            f"UPDATE runs SET {names} WHERE run_id = ?", [(*changes.values(), run_id)]
        ) > 0  # fmt: skip

    def click(self, run_id: str) -> bool:
        """Count one more click on a citation; False when there is no such run."""
        return self._write("UPDATE runs SET citation_clicks = citation_clicks + 1 WHERE run_id = ?", [(run_id,)]) > 0

    def _write(self, statement: str, rows: Iterable[tuple]) -> int:
        with self._lock:
            before = self._db.total_changes
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise LabError(f"{self.path} cannot be written: {error}", "is the disk full? then again") from None
            return self._db.total_changes - before

    def window(
        self, release: str | None = None, arm: str | None = None, since: float | None = None,
        until: float | None = None, probes: bool | None = None, ended_after: float | None = None,
    ) -> list[RunRecord]:  # fmt: skip
        """Runs that started at or after `since` and before `until`, the oldest first; None is no condition.

        Args:
            probes: True for labelled probes only, False for customers only.
            ended_after: only runs that ended later than this, however early they began (an hour at most).
        """
        wanted = [("release = ?", release), ("arm = ?", arm), ("started >= ?", since), ("started < ?", until),
                  ("probe = ?", probes), (f"{ENDED} > ?", ended_after)]  # fmt: skip
        if ended_after is not None:
            wanted.append(("started > ?", ended_after - LONGEST_RUN))  # has an index
        used = [(condition, value) for condition, value in wanted if value is not None]
        where = f" WHERE {' AND '.join(condition for condition, _ in used)}" if used else ""
        return self._read(f"{where} ORDER BY started, rowid", tuple(value for _, value in used))

    def ends(self, count: int, newest: bool = True, until: float | None = None) -> list[RunRecord]:
        """Customers' newest (or oldest) runs that started before `until`, the oldest of them first."""
        condition, values = (" AND started < ?", (until,)) if until is not None else ("", ())
        order = "DESC" if newest else "ASC"
        found = self._read(f" WHERE NOT probe{condition} ORDER BY started {order}, rowid {order} LIMIT ?",
                           (*values, count))  # fmt: skip
        return found[::-1] if newest else found

    def get(self, run_id: str) -> RunRecord | None:
        """One run's row."""
        found = self._read(" WHERE run_id = ?", (run_id,))
        return found[0] if found else None

    def _read(self, conditions: str, values: tuple) -> list[RunRecord]:
        return [record_of(row) for row in self.query(f"SELECT {', '.join(FIELDS)} FROM runs{conditions}", values)]

    def query(self, statement: str, values: tuple = ()) -> list[tuple]:
        """Rows of a SELECT, for figures that the database adds up faster.

        Raises:
            LabError: the file is gone, locked or damaged.
        """
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise LabError(f"{self.path} cannot be read: {error}", "another file, or remove that one") from None

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._db.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def record_of(row: tuple) -> RunRecord:
    """A row as a record: SQLite keeps flags as 0 and 1. It was checked when it was written."""
    record = object.__new__(RunRecord)
    record.__dict__.update(zip(FIELDS, row, strict=True))
    for name in FLAGS:
        if record.__dict__[name] is not None:
            record.__dict__[name] = bool(record.__dict__[name])
    return record
