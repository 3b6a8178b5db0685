"""What the service itself keeps: threads and whose they are, runs, what runs told, and feedback.

One SQLite file in the state folder, used from one thread of its own, so that a slow disk never stops the event loop.
Texts that customers wrote come here only with their personal data masked.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from labkit.errors import LabError

T = TypeVar("T")
SCHEMA = """
create table if not exists threads (
    thread_id text primary key, customer_id text not null, language text, title text not null default '',
    created_at real not null, updated_at real not null);
create index if not exists threads_of on threads (customer_id, updated_at);
create table if not exists runs (
    run_id text primary key, thread_id text not null references threads, customer_id text not null,
    message text, message_run integer not null, proposal_id text, approve integer, request_key text, request_mac text,
    turn integer,
    status text not null default 'running', reason text, last_seq integer not null default 0,
    instance text not null default '',
    attempts integer not null default 1,
    created_at real not null, ended_at real);
create unique index if not exists one_run_at_once on runs (thread_id) where status = 'running';
create unique index if not exists one_run_a_key on runs (thread_id, request_key) where request_key is not null;
create index if not exists runs_of on runs (thread_id, turn);
create table if not exists events (
    run_id text not null references runs, seq integer not null, type text not null, data text not null,
    primary key (run_id, seq)) without rowid;
create table if not exists feedback (
    run_id text primary key references runs, score integer not null, comment text, at real not null);
"""
ENDED_WELL = ("answered", "waiting", "human")
EventRow = tuple[str, int, str, str]  # run_id, seq, type, data as JSON


class ServiceDatabase:
    """The file, and the one thread that uses it: `await database.call(run_row, run_id)`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="service-database")
        try:
            self.connection = self.thread.submit(connect, path).result()
        except sqlite3.DatabaseError as error:
            self.thread.shutdown()
            raise LabError(f"{path} cannot be used: {error}", f"move it away: mv {path} {path}.old") from None

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run `function(connection, *arguments)` in one transaction on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._transact, function, arguments)

    def _transact(self, function: Callable[..., T], arguments: tuple) -> T:
        with self.connection:
            return function(self.connection, *arguments)

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self.thread.submit(self.connection.close).result()
        self.thread.shutdown()


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the file. What a commit wrote survives kill -9; the log is flushed at checkpoints (WAL)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode=wal", "synchronous=normal", "foreign_keys=on", "secure_delete=on"):
        connection.execute(f"pragma {pragma}")
    connection.executescript(SCHEMA)
    if "instance" not in {row["name"] for row in connection.execute("pragma table_info(runs)")}:
        connection.execute("alter table runs add column instance text not null default ''")  # a file of before
    return connection


def rows(connection: sqlite3.Connection, sql: str, *values: Any) -> list[dict[str, Any]]:
    """What a query finds, as dictionaries."""
    return [dict(row) for row in connection.execute(sql, values)]


def first(connection: sqlite3.Connection, sql: str, *values: Any) -> dict[str, Any] | None:
    """The first that a query finds."""
    row = connection.execute(sql, values).fetchone()
    return None if row is None else dict(row)


def insert(connection: sqlite3.Connection, table: str, values: dict[str, Any]) -> None:
    """Add a row; table and columns are this module's callers' own words, never a client's."""
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"insert into {table} ({names}) values ({marks})", tuple(values.values()))


def thread_row(connection: sqlite3.Connection, thread_id: str) -> dict[str, Any] | None:
    """A thread."""
    return first(connection, "select * from threads where thread_id = ?", thread_id)


def threads_of(connection: sqlite3.Connection, customer_id: str) -> list[dict[str, Any]]:
    """A customer's threads, the last used first."""
    return rows(
        connection, "select * from threads where customer_id = ? order by updated_at desc, rowid desc", customer_id
    )


def run_row(connection: sqlite3.Connection, run_id: str) -> dict[str, Any] | None:
    """A run."""
    return first(connection, "select * from runs where run_id = ?", run_id)


def run_with_key(connection: sqlite3.Connection, thread_id: str, key: str) -> dict[str, Any] | None:
    """The run that an Idempotency-Key already made."""
    return first(connection, "select * from runs where thread_id = ? and request_key = ?", thread_id, key)


def unfinished_runs(connection: sqlite3.Connection, instance: str) -> list[dict[str, Any]]:
    """Runs that an instance left behind, the oldest first."""
    sql = "select runs.*, language from runs join threads using (thread_id) where status = 'running' and instance = ?"
    return rows(connection, f"{sql} order by runs.created_at", instance)


def other_instances(connection: sqlite3.Connection, instance: str) -> list[str]:
    """Instances but this one that have runs which have not ended."""
    sql = "select distinct instance from runs where status = 'running' and instance != ?"
    return [row["instance"] for row in rows(connection, sql, instance)]


def take_over(connection: sqlite3.Connection, dead: str, instance: str) -> list[dict[str, Any]]:
    """The unfinished runs of a dead instance become another's."""
    left = unfinished_runs(connection, dead)
    sql = "update runs set instance = ? where status = 'running' and instance = ?"
    connection.execute(sql, (instance, dead))
    return left


def running_runs(connection: sqlite3.Connection, customer_id: str) -> dict[str, dict[str, Any]]:
    """A customer's runs that have not ended, by thread, whichever instance works on them."""
    sql = "select run_id, thread_id, last_seq from runs where status = 'running' and customer_id = ?"
    return {row["thread_id"]: row for row in rows(connection, sql, customer_id)}


def runs_by_turn(connection: sqlite3.Connection, thread_id: str) -> dict[int, str]:
    """Which run made which turn."""
    found = rows(connection, "select turn, run_id from runs where thread_id = ? and turn is not null", thread_id)
    return {row["turn"]: row["run_id"] for row in found}


def thumbs_of(connection: sqlite3.Connection, thread_id: str) -> dict[str, int]:
    """The thumbs of a conversation's runs: 1 or -1."""
    sql = "select run_id, score from feedback join runs using (run_id) where thread_id = ?"
    found = rows(connection, sql, thread_id)
    return {row["run_id"]: row["score"] for row in found}


def add_run(
    connection: sqlite3.Connection, run: dict[str, Any], title: str, first_event: Callable[[int], EventRow]
) -> EventRow | None:  # fmt: skip
    """A new run, with its first event where the turn is certain; the thread's first message becomes its title.

    Args:
        run: its row.
        first_event: makes the event from the turn.

    Returns:
        The event, or None: the last run was no plain message or did not end well, so only the agents know the turn.

    Raises:
        sqlite3.IntegrityError: the thread has a run, or the key has been used.
    """
    sql = "select turn, reason, message_run from runs where thread_id = ? order by created_at desc limit 1"
    last = first(connection, sql, run["thread_id"])
    insert(connection, "runs", run)
    connection.execute(
        "update threads set updated_at = ?, title = case when title = '' then ? else title end where thread_id = ?",
        (run["created_at"], title, run["thread_id"]),
    )
    certain = last is None or (last["message_run"] and last["turn"] and last["reason"] in ENDED_WELL)
    if not certain:
        return None
    event = first_event(1 if last is None else last["turn"] + 1)
    add_events(connection, [event])
    return event


def add_events(connection: sqlite3.Connection, events: Iterable[EventRow]) -> None:
    """What runs told, in one transaction with what follows from it: a `start` knows the turn, an `end` ends the run."""
    events = list(events)
    connection.executemany("insert into events values (?, ?, ?, ?)", events)
    last = {run_id: seq for run_id, seq, _, _ in events}
    connection.executemany("update runs set last_seq = ? where run_id = ?", [(seq, run) for run, seq in last.items()])
    for run_id, _, type, data in events:
        if type == "start":
            turn = json.loads(data)["turn"]
            connection.execute("update runs set turn = ? where run_id = ?", (turn, run_id))
        elif type == "end":  # the text is no longer needed to go on with the run
            sql = "update runs set status = 'ended', reason = ?, ended_at = ?, message = null where run_id = ?"
            connection.execute(sql, (json.loads(data)["reason"], time.time(), run_id))


def count_attempt(connection: sqlite3.Connection, run_id: str) -> None:
    """A run is gone on with by another process."""
    connection.execute("update runs set attempts = attempts + 1 where run_id = ?", (run_id,))


def events_from(connection: sqlite3.Connection, run_id: str, cursor: int, count: int) -> list[dict[str, Any]]:
    """The next events after a cursor."""
    return rows(
        connection, "select seq, type, data from events where run_id = ? and seq > ? order by seq limit ?",
        run_id, cursor, count,
    )  # fmt: skip


def add_feedback(connection: sqlite3.Connection, run_id: str, score: int, comment: str | None) -> None:
    """A thumb up (1) or down (-1); the last one counts."""
    connection.execute(
        "insert into feedback values (?, ?, ?, ?) on conflict (run_id) do update set score = excluded.score, "
        "comment = excluded.comment, at = excluded.at", (run_id, score, comment, time.time()),
    )  # fmt: skip


def forget_events(connection: sqlite3.Connection, before: float) -> int:
    """Give up what runs told that ended before a time, but for the last event of each; returns how many."""
    sql = """delete from events where run_id in (select run_id from runs where status = 'ended' and ended_at < ?)
             and seq < (select last_seq from runs where runs.run_id = events.run_id)"""
    return connection.execute(sql, (before,)).rowcount
