"""What the agents may not conclude from little: a complaint from a low confidence, an answer from another product's
review. Each test names the bug that it catches."""

import asyncio
from dataclasses import replace

from graph_stand_ins import KeywordUnderstander, Talk, open_agent, orders_like, writes

from stage3_agents_llmops.agent.shop import Shop


def play(settings, customer_id, script, **services):
    """Run an async script with a Talk; returns what it returns."""

    async def run():
        async with open_agent(settings, **services) as agent:
            return await script(Talk(agent, customer_id))

    return asyncio.run(run())


def test_a_review_of_something_else_is_not_quoted(settings):
    """Catches: what somebody wrote about a mouse, as an answer about the desk lamp, or about nothing in particular."""

    async def script(talk):
        return await talk.say("is the desk lamp waterproof?"), await talk.say("waterproof?")

    for reply in play(settings, "C1001", script):
        assert "sink" not in reply.text and not reply.citations


class Doubting(KeywordUnderstander):
    """Takes everything for a complaint, and is not sure."""

    async def understand(self, text, language=None):
        meaning = await super().understand(text, language)
        return replace(meaning, intent="complaint", confidence=0.7, abstain=False, source="classifier")


def test_a_complaint_that_may_be_none_is_asked_about(settings):
    """Catches: a ticket for "the customer has confirmed everything", which nobody asked for."""

    async def script(talk):
        asked = await talk.say("It seems that everything has been confirmed around here")
        before = len(writes(settings.shop, "open_complaint"))
        return asked, before, await talk.say("yes")

    asked, before, done = play(settings, "C1001", script, understander=Doubting())
    assert "Shall I open a complaint" in asked.text and before == 0 and "number T" in done.text
    (row,) = writes(settings.shop, "open_complaint")
    assert "everything has been confirmed" in row["arguments_json"]


def test_a_corrected_number_is_no_complaint(settings):
    """Catches: "sorry, I mistyped" filed as a complaint about the order that was mistyped."""
    customer, order = orders_like(Shop(settings.shop), lambda order: order.status == "shipped")[0]

    async def script(talk):
        return await talk.say(f"Sorry, I mistyped, it's {order.order_id}.")

    assert order.order_id in play(settings, customer, script, understander=Doubting()).text
    assert not writes(settings.shop)
