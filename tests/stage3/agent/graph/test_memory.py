"""Checkpoints: resumable, pruned, closed, and unable to hold code."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from graph_stand_ins import Talk, open_agent, orders_like

from labkit.errors import LabError
from stage3_agents_llmops.agent.memory import checkpoint_time, open_checkpointer, prune, strict_serializer, threads
from stage3_agents_llmops.agent.settings import AgentSettings
from stage3_agents_llmops.agent.shop import Shop


def count(settings, table="checkpoints"):
    connection = sqlite3.connect(settings.checkpoints)
    try:
        return connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
    finally:
        connection.close()


async def talk_for(settings, turns, thread="t1"):
    async with open_agent(settings) as agent:
        talk = Talk(agent, "C1001", thread)
        for number in range(turns):
            await talk.say(f"hello number {number}")


def test_a_conversation_goes_on_in_another_process_life(settings):
    customer, order = orders_like(Shop(settings.shop), lambda o: o.status == "placed" and o.total_cents <= 20000)[0]

    async def first():
        async with open_agent(settings) as agent:
            return await Talk(agent, customer).say(f"cancel {order.order_id}")

    async def second():
        async with open_agent(settings) as agent:
            snapshot = await agent.snapshot("t1")
            return snapshot, await Talk(agent, customer).say("yes")

    asked = asyncio.run(first())
    snapshot, done = asyncio.run(second())
    assert snapshot["proposal"] == asked.interrupt and snapshot["turn"] == 1
    assert [message["role"] for message in snapshot["messages"]] == ["customer", "agent"]
    assert "cancelled" in done.text


def test_an_unused_conversation_is_empty(settings):
    async def run():
        async with open_agent(settings) as agent:
            return await agent.snapshot("nobody"), await agent.unfinished("nobody")

    snapshot, unfinished = asyncio.run(run())
    assert snapshot["messages"] == [] and snapshot["turn"] == 0 and not unfinished


def test_a_long_conversation_keeps_a_few_checkpoints_and_all_its_messages(settings):
    asyncio.run(talk_for(settings, 12))
    assert count(settings) == settings.keep_checkpoints

    async def messages():
        async with open_agent(settings) as agent:
            return (await agent.snapshot("t1"))["messages"]

    assert len(asyncio.run(messages())) == 24


def test_without_pruning_the_file_grows_much_faster(settings, tmp_path, monkeypatch):
    """The control, and the reason: every checkpoint holds the whole state."""
    asyncio.run(talk_for(settings, 12))

    async def nothing(*arguments):
        return 0

    monkeypatch.setattr("stage3_agents_llmops.agent.customer_service_agent.prune_thread", nothing)
    grown = AgentSettings(shop=settings.shop, state_dir=tmp_path / "grown")
    asyncio.run(talk_for(grown, 12))
    assert count(grown) > 12 * count(settings)


def test_the_retention_job_drops_old_conversations_and_gives_the_space_back(settings):
    async def run():
        for number in range(6):
            await talk_for(settings, 3, f"t{number}")
        async with open_checkpointer(settings) as saver:
            later = datetime.now(UTC) + timedelta(days=40)
            kept = await prune(saver, keep=1, older_than_days=60, now=later)
            names = await threads(saver)
            dropped = await prune(saver, keep=1, older_than_days=30, now=later)
            return kept, names, dropped, await threads(saver)

    kept, names, dropped, left = asyncio.run(run())
    assert kept.threads_dropped == 0 and kept.checkpoints_dropped == 6 * (settings.keep_checkpoints - 1)
    assert sorted(names) == [f"t{number}" for number in range(6)]
    assert dropped.threads_dropped == 6 and left == {}
    assert dropped.size_after < kept.size_after < kept.size_before
    assert count(settings) == count(settings, "writes") == 0


def test_what_was_dropped_cannot_be_read_in_the_file_any_more(settings):
    async def run():
        async with open_agent(settings) as agent:
            await Talk(agent, "C1001").say("the xylophone is rude, I complain")
        async with open_checkpointer(settings) as saver:
            before = b"".join(path.read_bytes() for path in settings.state_dir.glob("checkpoints.sqlite*"))
            await prune(saver, older_than_days=0, now=datetime.now(UTC) + timedelta(seconds=5))
            return before, b"".join(path.read_bytes() for path in settings.state_dir.glob("checkpoints.sqlite*"))

    before, after = asyncio.run(run())
    assert b"xylophone" in before and b"xylophone" not in after


def test_a_waiting_proposal_survives_the_retention_job(settings):
    customer, order = orders_like(Shop(settings.shop), lambda o: o.status == "placed" and o.total_cents <= 20000)[0]

    async def run():
        async with open_agent(settings) as agent:
            await Talk(agent, customer).say(f"cancel {order.order_id}")
        async with open_checkpointer(settings) as saver:
            await prune(saver, keep=1)
        async with open_agent(settings) as agent:
            return await Talk(agent, customer).say("yes")

    asyncio.run(run())
    assert Shop(settings.shop).order(customer, order.order_id).status == "cancelled"


def test_keeping_nothing_is_refused(settings):
    async def run():
        async with open_checkpointer(settings) as saver:
            await prune(saver, keep=0)

    with pytest.raises(LabError, match="resumed"):
        asyncio.run(run())


def test_a_checkpoint_revives_plain_data_and_no_code(tmp_path):
    class Harmless:
        pass

    serializer = strict_serializer()
    kind, data = serializer.dumps_typed({"a": [1, "b", None]})
    assert serializer.loads_typed((kind, data)) == {"a": [1, "b", None]}
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    from stage3_agents_llmops.agent.events import Decision

    foreign = JsonPlusSerializer().dumps_typed(Decision("P1", True))
    assert not isinstance(serializer.loads_typed(foreign), Decision)


def test_a_file_that_is_no_database_is_one_clear_line(settings):
    settings.state_dir.mkdir()
    settings.checkpoints.write_bytes(b"not a database, but long enough to be read as one" * 100)

    async def run():
        async with open_checkpointer(settings):
            pass

    with pytest.raises(LabError, match="cannot be used"):
        asyncio.run(run())


def test_the_time_of_a_checkpoint_is_in_its_id(settings):
    before = datetime.now(UTC).timestamp()
    asyncio.run(talk_for(settings, 1))

    async def newest():
        async with open_checkpointer(settings) as saver:
            return await threads(saver)

    touched = asyncio.run(newest())["t1"]
    assert before - 1 <= touched <= datetime.now(UTC).timestamp() + 1
    assert checkpoint_time("") == 0.0
