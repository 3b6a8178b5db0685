"""A run that is stopped asks no model any more, in every node of every agent, and leaves the conversation in order."""

import asyncio

import pytest
from graph_stand_ins import KeywordUnderstander, SmallKnowledge, Talk, a_customer, open_agent, writes

from stage3_agents_llmops.agent import run_context
from stage3_agents_llmops.agent.drawing import graph_topology
from stage3_agents_llmops.agent.graph import AGENT_GRAPHS
from stage3_agents_llmops.agent.shop import Shop

NODES = [node["id"] for node in graph_topology()["nodes"] if node["id"] not in ("start", "end", *AGENT_GRAPHS)]


def messages(settings):
    """Messages that reach every node; True agrees to the proposal."""
    customer, order, back = a_customer(Shop(settings.shop))
    return customer, [
        f"cancel {order.order_id}",
        True,
        f"return {back.order_id}, it is broken",
        "no",
        f"exchange {back.order_id}, it is broken",
        "no",
        "is the gaming mouse waterproof?",
        "I want to complain, the courier was rude",
        "how many days do I have?",
        "I want a human",
    ]


@pytest.fixture
def stop_at(monkeypatch):
    """Cancels the task of the run when a node begins, and then waits, as a slow model would."""
    wanted = {}

    def tell(type, **data):
        real(type, **data)
        if type == "node" and data["phase"] == "start" and data["name"] == wanted.get("node"):
            wanted["hit"] = True
            wanted["task"].cancel()

    real = run_context.tell
    monkeypatch.setattr(run_context, "tell", tell)
    return wanted


@pytest.mark.parametrize("name", NODES)
def test_a_run_stopped_in_a_node_ends_there(settings, stop_at, name):
    async def run():
        understander, knowledge = KeywordUnderstander(), SmallKnowledge()
        customer, script = messages(settings)
        async with open_agent(settings, understander=understander, knowledge=knowledge) as agent:
            talk = Talk(agent, customer)
            for said in script:
                stop_at["node"] = name
                stop_at["task"] = asyncio.create_task(talk.decide(True) if said is True else talk.say(said))
                await asyncio.wait([stop_at["task"]])
                if stop_at.get("hit"):
                    break
            assert stop_at.get("hit"), f"no message reached {name}"
            stop_at["node"] = None
            with pytest.raises(asyncio.CancelledError):
                await stop_at["task"]
            calls = understander.calls + knowledge.calls
            await asyncio.sleep(0.05)
            assert understander.calls + knowledge.calls == calls, "a model was asked after the stop"
            assert not await agent.unfinished("t1")
            snapshot = await agent.snapshot("t1")
            assert snapshot["proposal"] is None
            reply = await talk.say("hello")
            assert reply.reason == "answered" and "Hello" in reply.text and reply.interrupt is None

    asyncio.run(run())


QUESTION = "How many days do I have?"


def test_a_run_stopped_while_models_think_is_over_at_once_and_asks_no_other(settings):
    class Slow(KeywordUnderstander):
        cancelled = 0

        async def understand(self, text, language=None):
            self.calls += 1
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

    async def run():
        slow, knowledge = Slow(), SmallKnowledge()
        async with open_agent(settings, understander=slow, knowledge=knowledge) as agent:
            task = asyncio.create_task(Talk(agent, "C1001").say(QUESTION))
            async with asyncio.timeout(10):
                while not slow.calls:
                    await asyncio.sleep(0.01)
            began = asyncio.get_running_loop().time()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.get_running_loop().time() - began < 1.0
            await asyncio.sleep(0.1)
            assert (slow.calls, slow.cancelled, knowledge.calls) == (1, 1, 0)

    asyncio.run(run())


def test_without_the_stop_the_next_model_would_be_asked(settings):
    """The control: an undisturbed run goes from the understanding to the help centre."""

    async def run():
        understander, knowledge = KeywordUnderstander(), SmallKnowledge()
        async with open_agent(settings, understander=understander, knowledge=knowledge) as agent:
            await Talk(agent, "C1001").say(QUESTION)
            assert (understander.calls, knowledge.calls) == (1, 1)

    asyncio.run(run())


def test_what_was_written_before_the_stop_is_said(settings, stop_at):
    async def run():
        customer, script = messages(settings)
        async with open_agent(settings) as agent:
            talk = Talk(agent, customer)
            await talk.say(script[0])
            stop_at["node"] = "generate"
            stop_at["task"] = asyncio.create_task(talk.decide(True))
            await asyncio.wait([stop_at["task"]])
            stop_at["node"] = None
            snapshot = await agent.snapshot("t1")
            assert "already been done" in snapshot["messages"][-1]["text"]
            assert [row["tool"] for row in writes(settings.shop)] == ["cancel_order"]

    asyncio.run(run())


def test_a_reader_that_goes_away_stops_the_run(settings):
    async def run():
        async with open_agent(settings) as agent:
            stream = agent.stream(thread_id="t1", customer_id="C1001", message="where is my order?")
            async for event in stream:
                if event.type == "intent":
                    break
            await stream.aclose()
            assert not await agent.unfinished("t1")
            assert (await Talk(agent, "C1001").say("hello")).reason == "answered"

    asyncio.run(run())
