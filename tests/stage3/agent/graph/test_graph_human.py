"""To a person and back."""

import asyncio

import pytest
from graph_stand_ins import Talk, open_agent, orders_like, writes

from labkit.errors import LabError
from stage3_agents_llmops.agent.shop import Shop


def play(settings, script, customer="C1001"):
    async def run():
        async with open_agent(settings) as agent:
            return await script(Talk(agent, customer))

    return asyncio.run(run())


def test_who_asks_gets_a_place_in_the_queue(settings):
    async def script(talk):
        first = await Talk(talk.agent, "C1002", "t2").say("I want to talk to a human")
        return first, await talk.say("人工客服")

    first, second = play(settings, script)
    places = [event.data["position"] for reply in (first, second) for event in reply.events if event.type == "human"]
    assert places == [1, 2] and first.reason == second.reason == "human" and "第 2 位" in second.text


def test_asking_again_does_not_queue_twice(settings):
    async def script(talk):
        return await talk.say("human please"), await talk.say("I want a person!")

    play(settings, script)
    assert len(Shop(settings.shop).human_queue()) == 1


def test_while_waiting_the_agents_still_help(settings):
    customer, order = orders_like(Shop(settings.shop), lambda o: o.status == "packed")[0]

    async def script(talk):
        await talk.say("human please")
        return await talk.say(f"where is {order.order_id}?")

    assert order.order_id in play(settings, script, customer).text


def test_from_the_operators_first_word_on_the_agents_are_silent_until_the_release(settings):
    async def script(talk):
        await talk.say("human please")
        taken = await talk.agent.operator_reply("t1", "Hi, this is Ann. Call me at 13812345678.")
        ticket = Shop(settings.shop).human_queue()[0]["status"]
        silent = await talk.say("cancel all my orders")
        await talk.agent.operator_reply("t1", "All done.")
        released = await talk.agent.release("t1")
        return taken, ticket, silent, released, await talk.say("hello")

    taken, ticket, silent, released, after = play(settings, script)
    assert taken["messages"][-1]["role"] == "human" and "13812345678" not in taken["messages"][-1]["text"]
    assert ticket == "taken" and silent.text == "" and silent.reason == "human" and silent.interrupt is None
    roles = [message["role"] for message in released["messages"]]
    assert roles[-3:] == ["human", "customer", "human"] and released["human"] is False
    assert after.reason == "answered" and "Hello" in after.text
    assert Shop(settings.shop).human_queue() == []
    assert [row["tool"] for row in writes(settings.shop) if row["actor"] == "agent"] == ["request_human"]


def test_an_operator_who_steps_in_withdraws_an_open_proposal(settings):
    customer, order = orders_like(Shop(settings.shop), lambda o: o.status == "placed" and o.total_cents <= 20000)[0]

    async def script(talk):
        await talk.say(f"cancel {order.order_id}")
        snapshot = await talk.agent.operator_reply("t1", "Wait a moment please.")
        return snapshot, await talk.say("yes")

    snapshot, reply = play(settings, script, customer)
    assert snapshot["proposal"] is None and reply.text == ""
    assert Shop(settings.shop).order(customer, order.order_id).status == "placed"


@pytest.mark.parametrize(("thread", "text"), [("nobody", "hello"), ("t1", "   ")])
def test_an_operator_cannot_write_into_nothing_or_nothing(settings, thread, text):
    async def script(talk):
        await talk.say("human please")
        with pytest.raises(LabError):
            await talk.agent.operator_reply(thread, text)

    play(settings, script)
