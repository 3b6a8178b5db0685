"""Loops end: agents that pass a request around, and a graph that never comes to an end."""

import asyncio
from dataclasses import replace

from graph_stand_ins import Talk, open_agent, orders_like, writes

from stage3_agents_llmops.agent.graph import build_graph
from stage3_agents_llmops.agent.settings import AgentSettings
from stage3_agents_llmops.agent.shop import Shop
from stage3_agents_llmops.agent.supervisor import may_handoff
from stage3_agents_llmops.agent.worklist import hand_over


async def to_refunds(state):
    return hand_over(state, "refund_agent")


async def to_orders(state):
    return hand_over(state, "order_agent")


def say(settings, message, agents):
    async def run():
        async with open_agent(settings) as agent:
            agent.graph = build_graph(agent.checkpointer, agents=agents)
            talk = Talk(agent, "C1001")
            return await talk.say(message), await talk.say("hello"), await agent.unfinished("t1")

    return asyncio.run(run())


def test_agents_that_pass_a_request_around_end_with_a_person(settings):
    reply, after, unfinished = say(
        settings, "where is my order?", {"order_agent": to_refunds, "refund_agent": to_orders}
    )
    passed = [event.data for event in reply.events if event.type == "handoff"]
    assert reply.reason == "human" and len(passed) == 1 + settings.max_handoffs + 1
    assert passed[-1]["to"] == "human_handoff" and writes(settings.shop, "request_human")
    assert not unfinished and after.text


def test_without_the_handoff_limit_the_recursion_limit_ends_it(settings):
    loose = replace(settings, max_handoffs=10_000)
    reply, after, unfinished = say(loose, "where is my order?", {"order_agent": to_refunds, "refund_agent": to_orders})
    assert reply.reason == "failed" and [e.data["code"] for e in reply.events if e.type == "error"] == ["loop"]
    assert "nothing has been changed" in reply.text
    assert not unfinished and after.reason == "answered", "the conversation goes on"
    steps = [event for event in reply.events if event.type == "node" and event.data["phase"] == "start"]
    assert len(steps) <= settings.recursion_limit


def test_the_recursion_limit_is_enough_for_the_longest_message(settings):
    """Four requests, each with a write or a handoff: the sum in the settings' docstring."""
    shop = Shop(settings.shop)
    customer, order = orders_like(shop, lambda o: o.status == "placed" and o.total_cents <= 20000)[0]

    async def run():
        async with open_agent(settings) as agent:
            return await Talk(agent, customer).say(
                f"return {order.order_id}, I changed my mind. Also an invoice for {order.order_id}. "
                f"Also I complain about the rude courier. Also where is {order.order_id}?"
            )

    reply = asyncio.run(run())
    assert reply.reason == "waiting" and len([e for e in reply.events if e.type == "intent"]) == 4
    assert sorted(row["tool"] for row in writes(settings.shop)) == ["open_complaint", "send_invoice"]


def test_may_handoff_counts_and_never_goes_in_a_circle_of_one():
    assert may_handoff(0, 4, "order_agent", "refund_agent") and may_handoff(3, 4, "order_agent", "refund_agent")
    assert not may_handoff(4, 4, "order_agent", "refund_agent")
    assert not may_handoff(0, 4, "order_agent", "order_agent")
    assert may_handoff(99, 4, "order_agent", "human_handoff")


def test_the_default_limits_fit_each_other():
    limits = AgentSettings(shop="x", state_dir="y")
    assert limits.recursion_limit >= 3 + 3 * limits.max_requests + 2 * limits.max_handoffs + 3
