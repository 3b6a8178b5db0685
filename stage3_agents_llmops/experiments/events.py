"""Metric events by unit: what each customer did, from a `runs` table in SQLite or from a CSV file.

One row an event (a run, a conversation) with the columns unit, arm, experiment and one for each quantity. The
database sums by unit: the unit was randomised, so the unit is what is counted. A quantity may be missing (NULL, an
empty field): nobody pressed a thumb.
"""

import csv
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.cli import nearest
from labkit.errors import LabError

KEYS = ("unit", "arm", "experiment")


@dataclass(frozen=True)
class UnitValues:
    """For every unit that has events: its arms in them, and for each column the sum, the count and the largest."""

    units: list[str]
    arms: list[set[str]]
    sums: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    largest: dict[str, np.ndarray]


def read_events(path: str | Path, experiment: str, columns: Sequence[str], table: str = "runs") -> UnitValues:
    """Sum an experiment's events by unit.

    Raises:
        LabError: no such file, table or column, something that is no number, or no event of that experiment.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"there are no events at {path}", "--events FILE (.csv, or SQLite with a table runs)")
    with closing(_csv_table(path, table) if path.suffix == ".csv" else sqlite3.connect(path)) as db:
        try:
            known = [row[1] for row in db.execute(f"PRAGMA table_info({quoted(table)})")]
        except sqlite3.DatabaseError as error:
            raise LabError(f"{path} is no SQLite database: {error}", "a .sqlite or a .csv file") from None
        if not known:
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
            best = nearest(table, tables)
            raise LabError(f"{path} has no table {table}", f"--table {best}" if best else "a database with runs")
        for column in (*KEYS, *columns):
            if column not in known:
                best = nearest(column, known)
                raise LabError(f"{path} has no column {column}", best or f"one of: {', '.join(known)}")
        rows = _by_unit(db, table, experiment, columns)
        if not rows:
            names = [row[0] for row in db.execute(f"SELECT DISTINCT experiment FROM {quoted(table)} LIMIT 20")]
            best = nearest(experiment, [str(name) for name in names])
            raise LabError(f"{path} has no events of experiment {experiment}", f"--experiment {best or names}")
    return _values(path, rows, columns)


def _by_unit(db: sqlite3.Connection, table: str, experiment: str, columns: Sequence[str]) -> list[tuple]:
    parts = ["CAST(unit AS TEXT)", "GROUP_CONCAT(DISTINCT arm)"]
    for column in columns:
        name = quoted(column)
        text = f"SUM(typeof({name}) = 'text' AND {name} <> '')"
        parts += [f"SUM({name})", f"SUM({name} IS NOT NULL AND {name} <> '')", f"MAX({name})", text]
    whole = "experiment = ? AND unit IS NOT NULL AND arm IS NOT NULL"
    query = f"SELECT {', '.join(parts)} FROM {quoted(table)} WHERE {whole} GROUP BY unit ORDER BY unit"
    return db.execute(query, (experiment,)).fetchall()


def _values(path: Path, rows: list[tuple], columns: Sequence[str]) -> UnitValues:
    parts: list[dict[str, np.ndarray]] = [{}, {}, {}]
    for place, column in enumerate(columns):
        values = [row[2 + 4 * place : 6 + 4 * place] for row in rows]
        if any(text for *_, text in values):
            raise LabError(f"column {column} of {path} holds text that is no number", "numbers, 0 and 1 for yes or no")
        for part, index in zip(parts, range(3), strict=True):
            part[column] = np.array([value[index] or 0 for value in values], float)
    return UnitValues([row[0] for row in rows], [set(row[1].split(",")) for row in rows], *parts)


def quoted(name: str) -> str:
    """A name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _csv_table(path: Path, table: str) -> sqlite3.Connection:
    """A CSV file as a table in memory; what reads as a number becomes one, an empty field NULL."""
    db = sqlite3.connect(":memory:")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if not header:
            raise LabError(f"{path} is empty", f"a header with {', '.join(KEYS)} and the metrics' columns")
        rows = [row for row in reader if row]
    if any(len(row) != len(header) for row in rows):
        line = 2 + next(place for place, row in enumerate(rows) if len(row) != len(header))
        raise LabError(f"line {line} of {path} has another number of fields than the header", "mend that line")
    kinds = ", ".join(quoted(name) + (" TEXT" if name in KEYS else " NUMERIC") for name in header)
    db.execute(f"CREATE TABLE {quoted(table)} ({kinds})")
    marks = ", ".join("?" * len(header))
    db.executemany(
        f"INSERT INTO {quoted(table)} VALUES ({marks})", [[value if value else None for value in row] for row in rows]
    )
    return db
