"""Whole conversations: what the customer reads, and what is in the shop afterwards."""

import asyncio
from dataclasses import replace

import pytest
from graph_stand_ins import KeywordUnderstander, Talk, open_agent, orders_like, writes

from stage3_agents_llmops.agent.shop import Shop


def play(settings, customer_id, script, **services):
    """Run an async script with a Talk; returns what it returns."""

    async def run():
        async with open_agent(settings, **services) as agent:
            return await script(Talk(agent, customer_id))

    return asyncio.run(run())


def find(settings, wanted):
    return orders_like(Shop(settings.shop), wanted)[0]


def cheap(order):
    return order.total_cents <= 20000


def test_status_names_the_parcel(settings):
    customer, order = find(settings, lambda order: order.status == "shipped")

    async def script(talk):
        return await talk.say(f"where is {order.order_id}?")

    reply = play(settings, customer, script)
    assert order.shipment.tracking in reply.text and order.shipment.expected_on in reply.text
    assert reply.reason == "answered"
    assert "".join(event.data["text"] for event in reply.events if event.type == "token") == reply.text


def test_cancel_asks_then_writes_once(settings):
    customer, order = find(settings, lambda order: order.status == "placed" and cheap(order))

    async def script(talk):
        asked = await talk.say(f"please cancel {order.order_id}")
        assert asked.reason == "waiting" and not writes(settings.shop)
        return asked, await talk.decide(True)

    asked, done = play(settings, customer, script)
    assert asked.interrupt["arguments"] == {"order_id": order.order_id}
    assert order.order_id in asked.interrupt["summary"]
    assert done.reason == "answered" and order.order_id in done.text
    assert [row["tool"] for row in writes(settings.shop)] == ["cancel_order"]
    assert Shop(settings.shop).order(customer, order.order_id).status == "cancelled"


def test_three_requests_in_one_message_are_answered_in_order(settings):
    customer, order = find(settings, lambda order: order.status == "placed" and cheap(order))
    other = next(each for each in Shop(settings.shop).orders(customer) if each.status != "cancelled" and each != order)

    async def script(talk):
        return await talk.say(
            f"cancel {order.order_id}. Where is {other.order_id}? Also send me an invoice for {other.order_id}."
        )

    reply = play(settings, customer, script)
    status, invoice, question = (
        reply.text.split("\n\n")[-3:]
        if "refund" not in reply.text.split("\n\n")[1]
        else (reply.text.split("\n\n")[0], reply.text.split("\n\n")[-2], reply.text.split("\n\n")[-1])
    )
    assert other.order_id in status and "invoice" in invoice.lower() and order.order_id in question
    assert reply.reason == "waiting"
    assert [row["tool"] for row in writes(settings.shop)] == ["send_invoice"], "the cancellation waits for its yes"


def test_two_cancellations_are_confirmed_one_after_the_other(settings):
    shop = Shop(settings.shop)
    for number in range(1001, 1041):
        mine = [o for o in shop.orders(f"C{number}") if o.status in ("placed", "packed") and cheap(o)]
        if len(mine) >= 2:
            break

    async def script(talk):
        first = await talk.say(f"cancel {mine[0].order_id} and {mine[1].order_id}")
        second = await talk.say("yes")
        return first, second, await talk.say("yes please")

    first, second, third = play(settings, f"C{number}", script)
    assert first.interrupt["arguments"]["order_id"] == mine[0].order_id
    assert second.interrupt["arguments"]["order_id"] == mine[1].order_id
    assert third.interrupt is None and len(writes(settings.shop, "cancel_order")) == 2


def test_it_is_the_order_that_was_talked_about(settings):
    customer, order = find(settings, lambda order: order.status == "packed" and cheap(order))

    async def script(talk):
        await talk.say(f"where is {order.order_id}?")
        await talk.say("hello")
        return await talk.say("cancel it please")

    assert play(settings, customer, script).interrupt["arguments"]["order_id"] == order.order_id


@pytest.mark.parametrize("question", ["and which carrier brings the thing?", "哪家快递"])
def test_a_question_about_the_parcel_is_about_the_order_that_was_talked_about(settings, question):
    customer, order = find(settings, lambda order: order.status == "shipped")

    async def script(talk):
        await talk.say(f"where is {order.order_id}?")
        return await talk.say(question)

    assert order.shipment.carrier in play(settings, customer, script).text


def test_the_only_open_order_is_used_and_said(settings):
    shop = Shop(settings.shop)
    for number in range(1001, 1041):
        orders = shop.orders(f"C{number}")
        open_orders = [order for order in orders if order.status in ("placed", "packed", "shipped")]
        if len(open_orders) == 1 and len(orders) > 1:
            break

    async def script(talk):
        return await talk.say("where is my order?")

    reply = play(settings, f"C{number}", script)
    assert reply.text.count(open_orders[0].order_id) >= 2 and "only" in reply.text


def test_an_unknown_number_is_said_honestly_and_the_list_can_be_chosen_from(settings):
    customer, _ = find(settings, lambda order: order.status == "shipped")
    orders = Shop(settings.shop).orders(customer)

    async def script(talk):
        missing = await talk.say("where is ZZ000000?")
        return missing, await talk.say("the second one")

    missing, chosen = play(settings, customer, script)
    assert "ZZ000000" in missing.text and all(order.order_id in missing.text for order in orders[:6])
    assert orders[1].order_id in chosen.text and orders[0].order_id not in chosen.text


def test_another_customers_order_is_like_none(settings):
    customer, _ = find(settings, lambda order: order.status == "shipped")
    stranger = next(each for each in orders_like(Shop(settings.shop), lambda o: True) if each[0] != customer)[1]

    async def script(talk):
        return await talk.say(f"cancel {stranger.order_id}")

    reply = play(settings, customer, script)
    assert reply.interrupt is None and "can't find" in reply.text and stranger.address not in reply.text


def test_a_slot_is_asked_for_once_and_remembered(settings):
    customer, order = find(settings, lambda order: order.status == "placed")

    async def script(talk):
        asked = await talk.say(f"please change the address of {order.order_id}")
        answered = await talk.say("12 Baker Street, Leeds")
        return asked, answered, await talk.decide(True)

    asked, answered, done = play(settings, customer, script)
    assert asked.interrupt is None and "address" in asked.text
    assert answered.interrupt["arguments"] == {"order_id": order.order_id, "address": "12 Baker Street, Leeds"}
    assert Shop(settings.shop).order(customer, order.order_id).address == "12 Baker Street, Leeds"
    assert "12 Baker Street" in done.text


def test_a_return_asks_why_and_offers_what_the_policy_allows(settings):
    customer, order = find(settings, fresh_delivery(settings))

    async def script(talk):
        asked = await talk.say(f"I want to return {order.order_id}")
        return asked, await talk.say("it arrived broken")

    asked, answered = play(settings, customer, script)
    assert asked.interrupt is None and "Why" in asked.text
    assert answered.interrupt["arguments"]["reason"] == "damaged"


def fresh_delivery(settings):
    today = Shop(settings.shop).today()

    def wanted(order):
        if order.status != "delivered" or len(order.items) != 1 or order.items[0].status != "ordered":
            return False
        from datetime import date

        return (today - date.fromisoformat(order.shipment.delivered_on)).days <= 25 and cheap(order)

    return wanted


def test_a_shipped_order_is_not_cancelled_and_the_rule_is_named(settings):
    customer, order = find(settings, lambda order: order.status == "shipped")

    async def script(talk):
        return await talk.say(f"cancel {order.order_id}!")

    reply = play(settings, customer, script)
    assert reply.interrupt is None and "R2" in reply.text and order.shipment.expected_on in reply.text


def test_a_delivered_order_that_should_be_cancelled_can_be_returned(settings):
    customer, order = find(settings, fresh_delivery(settings))

    async def script(talk):
        refused = await talk.say(f"cancel {order.order_id}")
        offered = await talk.say("yes please")
        return refused, offered, await talk.say("changed my mind")

    refused, offered, asked = play(settings, customer, script)
    assert "R2" in refused.text and refused.interrupt is None
    assert "Why" in offered.text or "R7" in offered.text
    assert asked.interrupt is None or asked.interrupt["tool"] == "return_item"


def test_what_is_not_shipped_is_cancelled_instead_of_returned(settings):
    customer, order = find(settings, lambda order: order.status == "placed" and len(order.items) == 1 and cheap(order))

    async def script(talk):
        return await talk.say(f"I want to return {order.order_id}, I changed my mind")

    reply = play(settings, customer, script)
    assert reply.interrupt["tool"] == "cancel_order"
    handoffs = [(event.data["from"], event.data["to"]) for event in reply.events if event.type == "handoff"]
    assert handoffs == [("supervisor", "refund_agent"), ("refund_agent", "order_agent")]


def test_above_the_limit_a_person_decides(settings):
    customer, order = find(settings, lambda order: order.status in ("placed", "packed") and not cheap(order))

    async def script(talk):
        return await talk.say(f"cancel {order.order_id}")

    reply = play(settings, customer, script)
    assert reply.reason == "human" and "R10" in reply.text and reply.interrupt is None
    assert [row["tool"] for row in writes(settings.shop)] == ["request_human"]
    assert Shop(settings.shop).order(customer, order.order_id).status == order.status


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        ("can you give me a discount?", "R12"),
        ("I want a voucher as compensation", "R12"),
        ("能不能给我打折", "R12"),
        ("please refund the money to another card", "R11"),
    ],
)
def test_what_no_tool_can_do_is_refused_by_its_rule(settings, message, rule):
    reply = play(settings, "C1001", lambda talk: talk.say(message))
    assert rule in reply.text and not writes(settings.shop)


def test_the_help_centre_answers_with_a_citation(settings):
    reply = play(settings, "C1001", lambda talk: talk.say("how many days do I have to return something?"))
    assert "30 days" in reply.text and "[1]" in reply.text
    assert reply.citations[0]["id"] == "en/window"


def test_a_product_question_quotes_a_review_and_an_unknown_one_is_not_guessed(settings):
    async def script(talk):
        return await talk.say("is the gaming mouse waterproof?"), await talk.say("is the gaming mouse loud?")

    known, unknown = play(settings, "C1001", script)
    assert "waterproof" in known.text and known.citations
    assert "rather not guess" in unknown.text and not unknown.citations


def test_the_language_follows_the_message(settings):
    customer, order = find(settings, lambda order: order.status == "packed")

    async def script(talk):
        return await talk.say(f"{order.order_id} 到哪了"), await talk.say(f"where is {order.order_id}?")

    chinese, english = play(settings, customer, script)
    assert "已经打包" in chinese.text and "is packed" in english.text


def test_a_bare_order_number_does_not_change_the_language(settings):
    customer, order = find(settings, lambda order: order.status == "packed")

    async def script(talk):
        await talk.say("你好")
        return await talk.say(order.order_id)

    assert "已经打包" in play(settings, customer, script).text


def test_a_reason_that_was_not_said_is_asked_for_even_if_the_model_has_one(settings):
    class Guessing(KeywordUnderstander):
        async def understand(self, text, language=None):
            meaning = await super().understand(text, language)
            return replace(meaning, source="classifier", slots={**meaning.slots, "reason": "damaged"})

    customer, order = find(settings, fresh_delivery(settings))

    async def script(talk):
        asked = await talk.say(f"I want to return {order.order_id}")
        return asked, await talk.say("I don't like it any more")

    asked, answered = play(settings, customer, script, understander=Guessing())
    assert asked.interrupt is None
    assert answered.interrupt is None or answered.interrupt["arguments"]["reason"] == "changed_mind"


def test_a_price_is_the_catalogues(settings):
    product = Shop(settings.shop).product("gaming mouse")
    reply = play(settings, "C1001", lambda talk: talk.say("how much is the gaming mouse?"))
    assert f"{product.price_cents / 100:.2f}" in reply.text and not reply.citations


def test_two_messages_that_nobody_understands_bring_a_person(settings):
    async def script(talk):
        return await talk.say("blorp flim"), await talk.say("zrk qwerty")

    first, second = play(settings, "C1001", script)
    assert first.reason == "answered" and "understood" in first.text
    assert second.reason == "human" and writes(settings.shop, "request_human")


def test_understanding_again_resets_the_count(settings):
    async def script(talk):
        return [await talk.say(message) for message in ("blorp flim", "hello", "zrk qwerty")]

    assert all(reply.reason == "answered" for reply in play(settings, "C1001", script))


def test_anger_is_met_with_an_apology_and_then_with_a_person(settings):
    async def script(talk):
        return await talk.say("this is ridiculous, you idiots"), await talk.say("unacceptable! what a scam")

    first, second = play(settings, "C1001", script)
    assert "sorry" in first.text.lower() and first.reason == "answered"
    assert second.reason == "human"


def test_a_complaint_opens_one_ticket_however_often_it_is_repeated(settings):
    customer, order = find(settings, lambda order: order.status == "delivered")

    async def script(talk):
        await talk.say(f"I want to complain about {order.order_id}, the courier was rude")
        return await talk.say(f"I complain about {order.order_id} again")

    reply = play(settings, customer, script)
    tickets = [ticket for ticket in Shop(settings.shop).tickets(customer) if ticket.kind == "complaint"]
    assert len(tickets) == 1 and tickets[0].ticket_id in reply.text


@pytest.mark.parametrize(
    "message", ["", "   ", "😀😀", "\x00\x01\x02", "a" * 50_000, "取消 cancel 到哪 where", "'; DROP TABLE orders; --"]
)
def test_any_message_gets_an_answer(settings, message):
    reply = play(settings, "C1001", lambda talk: talk.say(message))
    assert reply.text and reply.reason in ("answered", "waiting", "human")


def test_every_event_of_every_turn_is_well_formed(settings):
    customer, order = find(settings, lambda order: order.status == "placed" and cheap(order))

    async def script(talk):
        replies = [await talk.say(f"cancel {order.order_id}"), await talk.decide(True), await talk.say("hello")]
        return [event for reply in replies for event in reply.events]

    events = play(settings, customer, script)
    starts = [event.data["name"] for event in events if event.type == "node" and event.data["phase"] == "start"]
    ends = [event.data["name"] for event in events if event.type == "node" and event.data["phase"] == "end"]
    assert sorted(starts) == sorted(ends) and {"guard", "order_agent:lookup", "confirm", "act", "check"} <= set(starts)
    assert [event.type for event in events].count("end") == 3
