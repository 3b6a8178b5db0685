"""Where conversations are kept: LangGraph's checkpointers, opened safely, and a retention job of our own.

A checkpoint after every step makes a conversation resumable, and its file grow: each one holds the whole state, so
forty turns take forty times the space of forty messages. SQLite's saver has no `prune`. What a resumed run needs is the
newest checkpoint; `prune` keeps the newest few of a thread, and drops threads that nobody has touched for long.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from labkit.errors import LabError
from stage3_agents_llmops.agent.settings import AgentSettings

GREGORIAN = 0x01B21DD213814000  # ticks of 100 ns between 1582-10-15, where UUID times begin, and 1970


@dataclass(frozen=True)
class Retention:
    """What a retention job did. Sizes in bytes; of SQLite with its write-ahead log."""

    threads_dropped: int
    checkpoints_dropped: int
    size_before: int
    size_after: int


def strict_serializer() -> JsonPlusSerializer:
    """A serializer that revives plain data only: LangGraph's default would revive any Python type that a checkpoint
    names, so whoever can write the file could run code."""
    return JsonPlusSerializer(allowed_msgpack_modules=None)


@asynccontextmanager
async def open_checkpointer(settings: AgentSettings) -> AsyncIterator[Any]:
    """PostgreSQL where a database_url is set, else SQLite in the state folder. Closed at the end of the block.

    Raises:
        LabError: the module for PostgreSQL is missing, the database does not answer, or the file is no database.
    """
    opened = open_postgres(settings.database_url) if settings.database_url else open_sqlite(settings.checkpoints)
    async with opened as saver:
        yield saver


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[Any]:
    """Write-ahead log, and a commit that survives the end of the process without waiting for the disk."""
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    path.parent.mkdir(parents=True, exist_ok=True)
    connection = await aiosqlite.connect(path)
    try:
        saver = AsyncSqliteSaver(connection, serde=strict_serializer())
        try:
            await saver.setup()
            await connection.execute("PRAGMA synchronous=NORMAL")
            await connection.execute("PRAGMA busy_timeout=10000")
        except aiosqlite.DatabaseError as error:
            raise LabError(f"{path} cannot be used: {error}", "remove it, or another --state") from None
        yield saver
    finally:
        await connection.close()


@asynccontextmanager
async def open_postgres(url: str) -> AsyncIterator[Any]:
    """A small pool of connections, because a service with one writer and many threads must not queue behind one."""
    try:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg import AsyncConnection, OperationalError
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool, PoolTimeout
    except ImportError as error:
        raise LabError(f"PostgreSQL needs a module that is missing: {error.name}", "make setup STAGE=3") from None
    arguments = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row, "connect_timeout": 5}
    pool = AsyncConnectionPool(url, min_size=1, max_size=8, open=False, kwargs=arguments, timeout=8)
    try:
        await (
            await AsyncConnection.connect(url, **arguments)
        ).close()  # the pool would try again for its whole timeout
        await pool.open(wait=True, timeout=8)
        saver = AsyncPostgresSaver(pool, serde=strict_serializer())
        await saver.setup()
    except (PoolTimeout, OperationalError) as error:
        await pool.close()
        raise LabError(f"the database at {hidden(url)} does not answer ({type(error).__name__})",
                       "start it, or leave database_url out to use SQLite") from None  # fmt: skip
    try:
        yield saver
    finally:
        await pool.close()


def hidden(url: str) -> str:
    """The address without its password."""
    return url.rsplit("@", 1)[-1].removeprefix("postgresql://")


def checkpoint_time(checkpoint_id: str) -> float:
    """When a checkpoint was made, in seconds since 1970.

    Its id is a UUID of version 6 (RFC 9562, 5.6): the 60 bits of the time, the high ones first, around the version.
    """
    if not checkpoint_id:
        return 0.0
    number = uuid.UUID(checkpoint_id).int
    return ((number >> 80 << 12 | number >> 64 & 0xFFF) - GREGORIAN) / 1e7


async def size_of(saver: Any) -> int:
    """Bytes that the checkpoints take."""
    if hasattr(saver, "conn") and hasattr(saver.conn, "execute_fetchall"):
        async with saver.lock:
            files = await saver.conn.execute_fetchall("PRAGMA database_list")
        path = Path(files[0][2])
        return sum(part.stat().st_size for end in ("", "-wal") if (part := path.with_name(path.name + end)).exists())
    tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    query = "SELECT " + " + ".join(f"pg_total_relation_size('{table}')" for table in tables) + " AS bytes"
    async with saver.conn.connection() as connection:
        return (await (await connection.execute(query)).fetchone())["bytes"]


async def prune_thread(saver: Any, thread_id: str, keep: int) -> int:
    """Remove all but the newest checkpoints of a thread; how many."""
    if hasattr(saver.conn, "execute_fetchall"):
        return await prune_sqlite_thread(saver, thread_id, keep)
    return await prune_postgres_thread(saver, thread_id, keep)


OLD = (
    "thread_id = ? AND checkpoint_id NOT IN (SELECT checkpoint_id FROM checkpoints WHERE thread_id = ? "
    "ORDER BY checkpoint_id DESC LIMIT ?)"
)


async def prune_sqlite_thread(saver: Any, thread_id: str, keep: int) -> int:
    """In one transaction: a writer that dies in it leaves everything."""
    async with saver.lock:
        found = await saver.conn.execute(f"DELETE FROM checkpoints WHERE {OLD}", (thread_id, thread_id, keep))
        await saver.conn.execute(f"DELETE FROM writes WHERE {OLD}", (thread_id, thread_id, keep))
        await saver.conn.commit()
        return found.rowcount


async def prune_postgres_thread(saver: Any, thread_id: str, keep: int) -> int:
    """The same; a blob goes when no checkpoint that is left names its version."""
    old = OLD.replace("?", "%s")
    blobs = (
        "DELETE FROM checkpoint_blobs AS blob WHERE thread_id = %s AND NOT EXISTS (SELECT 1 FROM checkpoints AS kept "
        "WHERE kept.thread_id = blob.thread_id AND kept.checkpoint_ns = blob.checkpoint_ns "
        "AND kept.checkpoint -> 'channel_versions' ->> blob.channel = blob.version)"
    )
    async with saver.conn.connection() as connection, connection.transaction():
        found = await connection.execute(f"DELETE FROM checkpoints WHERE {old}", (thread_id, thread_id, keep))
        await connection.execute(f"DELETE FROM checkpoint_writes WHERE {old}", (thread_id, thread_id, keep))
        await connection.execute(blobs, (thread_id,))
        return found.rowcount


async def threads(saver: Any) -> dict[str, float]:
    """Thread -> when it was touched last, in seconds since 1970."""
    query = "SELECT thread_id, MAX(checkpoint_id) AS newest FROM checkpoints GROUP BY thread_id"
    if hasattr(saver.conn, "execute_fetchall"):
        async with saver.lock:
            rows = await saver.conn.execute_fetchall(query)
        return {thread_id: checkpoint_time(newest) for thread_id, newest in rows}
    async with saver.conn.connection() as connection:
        rows = await (await connection.execute(query)).fetchall()
    return {row["thread_id"]: checkpoint_time(row["newest"]) for row in rows}


async def prune(
    saver: Any, keep: int = 3, older_than_days: float | None = 30.0, now: datetime | None = None
) -> Retention:
    """The retention job.

    Args:
        keep: checkpoints of each thread, the newest ones; at least 1.
        older_than_days: threads untouched for longer are dropped; None keeps all.
        now: for tests.

    Raises:
        LabError: keep is below 1.
    """
    if keep < 1:
        raise LabError(f"keep {keep} would drop what a conversation is resumed from", "--keep 1 or more")
    before, moment = await size_of(saver), (now or datetime.now(UTC)).timestamp()
    dropped = checkpoints = 0
    for thread_id, touched in (await threads(saver)).items():
        if older_than_days is not None and moment - touched > older_than_days * 86400:
            await saver.adelete_thread(thread_id)
            dropped += 1
        else:
            checkpoints += await prune_thread(saver, thread_id, keep)
    await reclaim(saver)
    return Retention(dropped, checkpoints, before, await size_of(saver))


async def reclaim(saver: Any) -> None:
    """Give the space back: what was deleted, perhaps because it had to be, must not stay readable in the file."""
    if hasattr(saver.conn, "execute_fetchall"):
        async with saver.lock:
            await saver.conn.commit()
            await saver.conn.execute("VACUUM")
            await saver.conn.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    async with saver.conn.connection() as connection:
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            await connection.execute(f"VACUUM {table}")
