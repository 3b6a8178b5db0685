"""The log and its frames: what a cursor has missed, what it cannot know, and what happens when the disk is full."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from stage3_agents_llmops.agent.service.database import ServiceDatabase, insert, run_row
from stage3_agents_llmops.agent.service.event_log import EventWriter, Logged, Reader, RunLog, events_after
from stage3_agents_llmops.agent.service.sse import sse_frame
from stage3_agents_llmops.agent.service.sse_client import FrameParser, Received


def held(first: int, last: int) -> list[Logged]:
    return [Logged.of(seq, "token", "{}") for seq in range(first, last + 1)]


@pytest.mark.parametrize(
    ("first", "last", "cursor", "missed"),
    [
        (1, 5, 0, [1, 2, 3, 4, 5]),
        (1, 5, 3, [4, 5]),
        (1, 5, 5, []),
        (1, 5, 6, None),  # past the newest
        (3, 5, 2, [3, 4, 5]),
        (3, 5, 1, None),  # 2 is no longer held
        (3, 5, 0, None),
        (1, 0, 0, []),  # nothing was told yet
        (1, 0, 1, None),
    ],
)
def test_what_a_cursor_has_missed(first: int, last: int, cursor: int, missed: list[int] | None) -> None:
    events = events_after(held(first, last), cursor)
    assert (None if events is None else [event.seq for event in events]) == missed


def parse(frames: bytes) -> list[Received]:
    parser = FrameParser()
    return [event for line in frames.decode().split("\n") if (event := parser.line(line))]


def test_a_frame_is_fields_and_an_empty_line() -> None:
    assert sse_frame("token", '{"text": "hi"}', id=7) == b'id: 7\nevent: token\ndata: {"text": "hi"}\n\n'
    assert sse_frame("resync", "{}", retry=1000) == b"event: resync\ndata: {}\nretry: 1000\n\n"


def test_a_frame_carries_every_line_of_its_data() -> None:
    assert sse_frame("note", "a\r\nb\rc\nd") == b"event: note\ndata: a\ndata: b\ndata: c\ndata: d\n\n"


def test_a_type_cannot_smuggle_in_fields() -> None:
    with pytest.raises(ValueError, match="one line"):
        sse_frame("token\nid: 99", "{}")


@given(some.dictionaries(some.text(), some.text()), some.integers(1, 10**9))
def test_any_data_comes_back_as_it_was(data: dict[str, str], id: int) -> None:
    assert parse(sse_frame("token", json.dumps(data), id=id)) == [Received("token", data, id)]


def a_run(database: ServiceDatabase, run_id: str) -> None:
    def add(connection: sqlite3.Connection) -> None:
        now = {"created_at": 1.0}
        insert(connection, "threads", {"thread_id": run_id, "customer_id": "C1", "updated_at": 1.0, **now})
        row = {"run_id": run_id, "thread_id": run_id, "customer_id": "C1", "message_run": 1, **now}
        insert(connection, "runs", row)

    database._transact(add, ())


@pytest.fixture
def database(tmp_path: Path) -> Any:
    database = ServiceDatabase(tmp_path / "service.sqlite")
    yield database
    database.close()


async def read(database: ServiceDatabase, log: RunLog, cursor: int | None) -> list[Received]:
    frames = [frame async for frame in Reader(database, log, cursor, heartbeat=0.05).frames()]
    return parse(b"".join(frames))


def test_many_runs_at_once_keep_their_order_and_are_stored_before_they_are_seen(database: Any) -> None:
    async def go() -> None:
        writer, logs = EventWriter(database), [RunLog(f"r{number}") for number in range(20)]
        for log in logs:
            a_run(database, log.run_id)

        async def tell(log: RunLog) -> None:
            for number in range(30):
                seq = await writer.append(log, "token", {"text": str(number)})
                row = await database.call(run_row, log.run_id)
                assert row["last_seq"] >= seq
            await writer.append(log, "end", {"reason": "answered", "text": ""})

        await asyncio.gather(*map(tell, logs))
        for log in logs:
            events = await read(database, log, 0)
            assert [event.seq for event in events] == list(range(1, 32))
            assert [event.data["text"] for event in events[:-1]] == [str(number) for number in range(30)]

    asyncio.run(go())


def test_what_memory_no_longer_holds_comes_from_the_database(database: Any) -> None:
    async def go() -> list[Received]:
        writer, log = EventWriter(database), RunLog("r", held_events=10)
        a_run(database, "r")
        for number in range(500):
            await writer.append(log, "token", {"text": str(number)})
        await writer.append(log, "end", {"reason": "answered", "text": ""})
        assert len(log.held) <= 13
        return await read(database, log, 3)

    assert [event.seq for event in asyncio.run(go())] == list(range(4, 502))


def test_an_expired_cursor_gets_resync_and_goes_on_with_what_is_left(database: Any) -> None:
    def forget(connection: sqlite3.Connection) -> None:
        connection.execute("delete from events where seq <= 6")

    async def go(cursor: int | None) -> list[Received]:
        writer, log = EventWriter(database), RunLog(f"r{cursor}", held_events=10)
        a_run(database, log.run_id)
        for number in range(9):
            await writer.append(log, "token", {"text": str(number)})
        await writer.append(log, "end", {"reason": "answered", "text": ""})
        await database.call(forget)
        return await read(database, RunLogFrom(log), cursor)

    def RunLogFrom(log: RunLog) -> RunLog:  # as the next process has it
        later = RunLog(log.run_id, log.last_seq)
        later.closed = True
        return later

    for cursor in (2, 99, None):
        events = asyncio.run(go(cursor))
        assert [event.type for event in events] == ["resync", "token", "token", "token", "end"]
        assert events[0].data == {"oldest": 7, "reason": "expired"}
        assert [event.id for event in events] == [6, 7, 8, 9, 10]
    assert [event.seq for event in asyncio.run(go(8))] == [9, 10]


def test_a_full_disk_costs_replay_and_not_the_answer(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> list[Received]:
        counts: list[int] = []
        writer, log = EventWriter(database, counts.append), RunLog("r")

        async def full(*arguments: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(database, "call", full)
            await writer.append(log, "token", {"text": "a"})
            assert "full" in writer.failed
            await writer.append(log, "end", {"reason": "answered", "text": "a"})
        assert counts == [1, 1]
        return await read(database, log, 0)

    assert [event.type for event in asyncio.run(go())] == ["token", "end"]


def test_a_reader_that_waits_hears_a_heartbeat_and_then_the_event(database: Any) -> None:
    async def go() -> bytes:
        writer, log = EventWriter(database), RunLog("r")
        a_run(database, "r")
        frames = []

        async def collect() -> None:
            frames.extend([frame async for frame in Reader(database, log, 0, heartbeat=0.05).frames()])

        reading = asyncio.create_task(collect())
        await asyncio.sleep(0.4)
        await writer.append(log, "end", {"reason": "answered", "text": ""})
        await asyncio.wait_for(reading, 5)
        return b"".join(frames)

    stream = asyncio.run(go())
    assert stream.count(b": ping\n\n") >= 3
    assert [event.type for event in parse(stream)] == ["end"]


def test_line_ends_of_unicode_do_not_break_a_frame(database: Any) -> None:
    async def go() -> list[Received]:
        writer, log = EventWriter(database), RunLog("r")
        a_run(database, "r")
        await writer.append(log, "token", {"text": "a\u2028b\x85c\ud800"})
        await writer.append(log, "end", {"reason": "answered", "text": ""})
        frames = b"".join([frame async for frame in Reader(database, log, 0, 1).frames()])
        parser = FrameParser()
        return [event for line in frames.decode().splitlines() if (event := parser.line(line))]

    assert asyncio.run(go())[0].data["text"] == "a\u2028b\x85c?"
