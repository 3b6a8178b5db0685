"""Runs that have not ended, on the disk: a gateway that was killed goes on reading them and writes their rows.

The customers' tokens are among it, because reading a run takes its owner's; only the file's owner can read it. A row is
there from the moment a backend has accepted a run to its end.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.errors import LabError

FILE = "open_runs.sqlite"


class OpenRuns:
    """The file. What cannot be written is not remembered; no customer waits for it."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = wal", "synchronous = off", "secure_delete = on"):  # survives kill -9
                self._db.execute(f"pragma {pragma}")
            self._db.execute("create table if not exists open_runs (run_id text primary key, run text not null)")
        except (sqlite3.Error, OSError) as error:
            raise LabError(f"{path} cannot be used: {error}", f"rm {path}*") from None

    def add(self, run_id: str, run: Mapping[str, Any]) -> None:
        """A run has begun."""
        self._write("insert or replace into open_runs values (?, ?)", run_id, json.dumps(run))

    def remove(self, run_id: str) -> None:
        """A run is over."""
        self._write("delete from open_runs where run_id = ?", run_id)

    def all(self) -> list[dict[str, Any]]:
        """What a gateway before this one has left."""
        with self._lock:
            return [json.loads(row[0]) for row in self._db.execute("select run from open_runs order by rowid")]

    def _write(self, statement: str, *values: str) -> None:
        with self._lock:
            try:
                self._db.execute(statement, values)
            except sqlite3.Error:
                return

    def close(self) -> None:
        """Close the file."""
        self._db.close()
