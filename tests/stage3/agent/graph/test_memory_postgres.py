"""The same conversations in a real PostgreSQL, started for these tests; skipped where there is none."""

import asyncio
from dataclasses import replace

import pytest
from graph_stand_ins import Talk, open_agent, orders_like, writes
from postgres_server import postgres_server

from labkit.errors import LabError
from stage3_agents_llmops.agent import memory
from stage3_agents_llmops.agent.memory import open_checkpointer, prune, threads
from stage3_agents_llmops.agent.shop import Shop


@pytest.fixture(scope="module")
def database():
    pytest.importorskip("langgraph.checkpoint.postgres")
    pytest.importorskip("psycopg_pool")
    with postgres_server() as url:
        yield f"{url}/postgres"


def test_a_conversation_is_kept_and_confirmed_there(settings, database):
    there = replace(settings, database_url=database)
    customer, order = orders_like(Shop(settings.shop), lambda o: o.status == "placed" and o.total_cents <= 20000)[0]

    async def first():
        async with open_agent(there) as agent:
            return await Talk(agent, customer, "pg1").say(f"cancel {order.order_id}")

    async def second():
        async with open_agent(there) as agent:
            assert not await agent.unfinished("pg1")
            return await Talk(agent, customer, "pg1").say("yes")

    assert asyncio.run(first()).interrupt
    assert "cancelled" in asyncio.run(second()).text
    assert [row["tool"] for row in writes(settings.shop)] == ["cancel_order"]
    assert not settings.checkpoints.exists(), "nothing went to SQLite instead"


def test_the_retention_job_works_there(settings, database):
    there = replace(settings, database_url=database)

    async def work():
        async with open_agent(there) as agent:
            for number in range(6):
                await Talk(agent, "C1001", "pg2").say(f"hello {number}")
        async with open_checkpointer(there) as saver:
            async with saver.conn.connection() as connection:
                query = "SELECT COUNT(*) AS n FROM checkpoints WHERE thread_id = 'pg2'"
                before = (await (await connection.execute(query)).fetchone())["n"]
            result = await prune(saver, keep=1)
            async with saver.conn.connection() as connection:
                after = (await (await connection.execute(query)).fetchone())["n"]
        async with open_agent(there) as agent:
            snapshot = await agent.snapshot("pg2")
            reply = await Talk(agent, "C1001", "pg2").say("hello again")
        async with open_checkpointer(there) as saver:
            await prune(saver, older_than_days=0)
            left = await threads(saver)
        return before, result, after, snapshot, reply, left

    before, result, after, snapshot, reply, left = asyncio.run(work())
    assert before == there.keep_checkpoints and after == 1 and result.checkpoints_dropped >= 2
    assert len(snapshot["messages"]) == 12 and reply.reason == "answered" and left == {}


def test_no_personal_data_gets_there(settings, database):
    there = replace(settings, database_url=database)

    async def work():
        async with open_agent(there) as agent:
            await Talk(agent, "C1001", "pg3").say("the zither is rude, I complain, call 13812345678")
        async with open_checkpointer(there) as saver, saver.conn.connection() as connection:
            rows = []
            for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
                rows += await (await connection.execute(f"SELECT * FROM {table}")).fetchall()
            return str(rows)

    kept = asyncio.run(work())
    assert "zither" in kept and "13812345678" not in kept


def test_an_unreachable_server_is_one_clear_line_without_the_password(settings):
    pytest.importorskip("psycopg_pool")

    async def work():
        async with open_checkpointer(replace(settings, database_url="postgresql://me:secret@127.0.0.1:1/x")):
            pass

    with pytest.raises(LabError) as caught:
        asyncio.run(work())
    assert "does not answer" in caught.value.message and "secret" not in caught.value.message


def test_a_missing_module_is_one_clear_line(settings, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "langgraph.checkpoint.postgres.aio", None)

    async def work():
        async with memory.open_checkpointer(replace(settings, database_url="postgresql://x/y")):
            pass

    with pytest.raises(LabError, match="module that is missing"):
        asyncio.run(work())
