"""The page on the real service, with the eyes, hands and ears of a customer."""

import re

import pytest


@pytest.fixture
def customer(service, open_page, visitor):
    """A customer on the page, English unless told."""
    return visitor(open_page(service.url, locale="en-US"))


def test_an_answer_comes_and_the_panel_tells_how_it_came_about(customer, service):
    """Catches: a panel that stays empty, or shows a path that nobody took."""
    name, order = service.order("shipped")
    customer.be(name)
    page = customer.page
    customer.say(f"Where is my order {order}?")
    assert order in customer.answer()
    assert page.input_value("#message") == ""
    assert page.locator(".message.customer .text").last.inner_text() == f"Where is my order {order}?"
    visited = page.locator(".graph .node.visited text:not(.step)").all_text_contents()
    assert {"Guard", "Classify", "Supervisor", "Orders", "Generate", "Check"} <= set(visited)
    assert not {"Returns", "Act", "Person"} & set(visited)
    assert page.locator(".graph .edge.visited").count() >= 5
    assert page.inner_text("#panel-now strong") == "Orders"
    assert "order status" in page.inner_text("#panel-understanding")
    assert order in page.inner_text("#panel-slots")
    assert page.locator("#panel-tools .tool").count() >= 1
    page.locator("#panel-tools summary").first.click()
    assert "Result" in page.inner_text("#panel-tools")
    figures = page.inner_text("#panel-timing")
    assert re.search(r"First event\s+[\d.]+ m?s", figures)
    assert re.search(r"Whole answer\s+[\d.]+ m?s", figures)
    assert "classifier" in page.inner_text("#panel-models")


def test_a_sensitive_write_waits_for_the_button_and_happens_once(customer, service, shots):
    """Catches: a card that confirms by itself, a button that works twice, and one that does nothing."""
    name, order = service.order("placed")
    customer.be(name)
    page = customer.page
    customer.say(f"Please cancel order {order}, I changed my mind.")
    card = page.locator(".confirmation")
    assert order in card.inner_text()
    assert service.rows("select status from orders where order_id = ?", order) == [("placed",)]
    page.wait_for_timeout(300)
    page.screenshot(path=shots / "confirm.png")
    customer.answers = 1
    card.get_by_role("button", name="Confirm").click()
    customer.done()
    assert service.rows("select status from orders where order_id = ?", order) == [("cancelled",)]
    written = """select c.decision from audit a join confirmations c on c.proposal_id = a.idempotency_key
                 where a.tool = 'cancel_order' and a.arguments_json like ?"""
    assert service.rows(written, f"%{order}%") == [("approved",)]
    assert "You confirmed." in page.locator(".confirmation").inner_text()
    assert page.locator(".confirmation button").count() == 0


def test_declining_and_words_both_answer_the_question(customer, service):
    """Catches: a decline that writes, and a typed "yes" that the open card ignores."""
    name, order = service.order("placed")
    customer.be(name)
    page = customer.page
    customer.say(f"Cancel order {order} please, I changed my mind.")
    customer.answers = 1
    page.locator(".confirmation").get_by_role("button", name="Decline").click()
    customer.done()
    assert service.rows("select status from orders where order_id = ?", order) == [("placed",)]
    customer.say(f"Actually, please do cancel order {order}, I changed my mind.")
    assert page.locator(".confirmation button").count() == 2
    customer.say("yes")
    assert service.rows("select status from orders where order_id = ?", order) == [("cancelled",)]
    assert "in your own words" in page.locator(".confirmation").last.inner_text()


def test_a_reload_loses_nothing(customer, service):
    """Catches: a conversation, an open question or half-typed text that lives only in the tab's memory."""
    name, order = service.order("placed")
    customer.be(name)
    page = customer.page
    customer.say(f"Please cancel {order}, I changed my mind.")
    page.fill("#message", "half a sen")
    page.reload()
    page.wait_for_selector(".confirmation button")
    assert page.input_value("#message") == "half a sen"
    assert page.input_value("#customer") == name
    assert order in page.locator(".message.customer .text").first.inner_text()
    # What the agents did is replayed from the service's log.
    customer.wait("() => document.querySelectorAll('.graph .node.visited').length >= 5")
    assert "cancel an order" in page.inner_text("#panel-understanding")
    page.locator(".confirmation").get_by_role("button", name="Decline").click()
    customer.answers = 1
    customer.done()


def test_a_reload_remembers_who_answered_and_what_was_decided(customer, service):
    """Catches: a reload that keeps the words of a conversation and forgets agents, decisions and thumbs."""
    name, order = service.order("placed")
    customer.be(name)
    page = customer.page
    customer.say(f"Please cancel {order}, I changed my mind.")
    customer.answers = 1
    page.locator(".confirmation").get_by_role("button", name="Decline").click()
    customer.done()
    customer.say(f"Please cancel {order} all the same, I changed my mind.")
    customer.answers = page.locator(".message.agent").count()
    page.locator(".confirmation").last.get_by_role("button", name="Confirm").click()
    customer.done()
    customer.say("Thank you.")
    with page.expect_response(lambda response: "/feedback" in response.url):
        page.get_by_role("button", name="Helpful", exact=True).last.click()

    def told() -> list[list[str]]:
        kept = (".author", ".confirmation .headline", ".confirmation .decided", ".thumbs [aria-pressed=true]")
        return [page.locator(f".message.agent {each}").all_inner_texts() for each in kept]

    before = told()
    assert before[0][0] == "Assistant · Orders" and before[0][-1] == "Assistant"
    assert before[2] == ["You declined.", "You confirmed."] and len(before[3]) == 1
    page.reload()
    page.wait_for_selector(".message.agent")
    customer.wait("() => document.querySelectorAll('.message.agent').length >= 5")
    assert told() == before


def test_thumbs_reach_the_service(customer, service):
    """Catches: thumbs that only change colour."""
    name, order = service.order("delivered")
    customer.be(name)
    page = customer.page
    customer.say(f"Where is {order}?")
    with page.expect_response(lambda response: "/feedback" in response.url) as sent:
        page.get_by_role("button", name="Not helpful").click()
    assert (sent.value.status, sent.value.request.post_data_json) == (204, {"score": -1})
    assert page.get_by_role("button", name="Not helpful").get_attribute("aria-pressed") == "true"
    page.get_by_label("What was wrong?").fill("Too long")
    with page.expect_response(lambda response: "/feedback" in response.url) as sent:
        page.get_by_label("What was wrong?").press("Enter")
    assert (sent.value.status, sent.value.request.post_data_json["comment"]) == (204, "Too long")


def test_a_citation_opens_its_passage(customer):
    """Catches: numbers in brackets that lead nowhere."""
    customer.page.click("#new")
    customer.say("How long do I have to send something back?")
    page = customer.page
    mark = page.locator("button.cite").first
    assert mark.get_attribute("aria-label").startswith("Source 1: ")
    mark.click()
    source = page.locator("details.source[open]")
    assert len(source.locator("p").first.inner_text()) > 40
    assert page.evaluate("document.activeElement.closest('details.source') !== null")


def test_conversations_are_the_customers_own(customer, service):
    """Catches: a list that shows another customer's conversations, and one that cannot be gone back to."""
    first, order = service.order("delivered")
    second, _ = service.order("shipped")
    page = customer.page
    customer.be(first)
    customer.say(f"Where is {order}? It is number one.")
    page.wait_for_selector("#threads button[aria-current=true]")
    customer.be(second)
    assert not page.get_by_role("button", name="It is number one").count()
    customer.be(first)
    page.locator("#threads button").filter(has_text=order).first.click()
    page.wait_for_selector(".message.agent")
    assert "number one" in page.locator(".message.customer").first.inner_text()


def test_markup_stays_text_wherever_it_comes_from(customer):
    """Catches: a message that becomes part of the page."""
    customer.page.click("#new")
    hostile = "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'> **where** is my order?"
    customer.say(hostile)
    page = customer.page
    assert page.locator(".message.customer .text").last.inner_text() == hostile
    page.reload()
    page.wait_for_selector(".message.agent")
    page.wait_for_selector("#threads button")
    assert "<script>" in page.locator(".message.customer .text").last.inner_text()
    assert page.evaluate("window.owned") is None
    assert page.locator("#messages img, #messages script, #threads img").count() == 0


def test_chinese_from_the_first_word_to_the_panel(open_page, visitor, service, shots):
    """Catches: a half-translated page, a lang attribute that lies, and a choice that is forgotten."""
    customer = visitor(open_page(service.url, locale="zh-CN"))
    page = customer.page
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    name, order = service.order("shipped", "zh")
    customer.be(name)
    customer.say(f"{order} 到哪里了？")
    assert order in customer.answer()
    assert re.search(r"[一-鿿]", customer.answer())
    assert "查订单" in page.inner_text("#panel-understanding")
    page.wait_for_timeout(300)
    page.screenshot(path=shots / "chinese.png")
    page.get_by_role("button", name="English").click()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert "order status" in page.inner_text("#panel-understanding")
    page.reload()
    page.wait_for_selector(".message.agent")
    assert page.inner_text("h1") == "Customer service"


def test_enter_sends_shift_enter_does_not_and_an_input_method_keeps_its_enter(customer):
    """Catches: half a Chinese word sent because Enter picked a character."""
    page = customer.page
    page.click("#new")
    page.locator("#message").focus()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert page.input_value("#message") == "one\ntwo"
    page.evaluate("""() => document.getElementById('message').dispatchEvent(
        new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))""")
    page.wait_for_timeout(200)
    assert page.locator(".message").count() == 0
    assert page.input_value("#message") == "one\ntwo"


def test_a_person_takes_over_and_hands_back(customer, service, open_page, shots):
    """Catches: an operator whose words never reach the customer, and a conversation that never comes back."""
    name, _ = service.order("delivered")
    customer.be(name)
    page = customer.page
    customer.say("I want to talk to a person, please.")
    page.wait_for_selector("#human:visible")
    operator = open_page(service.url + "/operator", locale="en-US")
    ticket = operator.locator("#queue button").last
    ticket.click()
    operator.wait_for_selector(".message.customer")
    assert "talk to a person" in operator.locator("#messages").inner_text()
    operator.fill("#reply", "Hello, this is Mia. <b>How</b> can I help?")
    operator.press("#reply", "Enter")
    page.wait_for_selector(".message.human")
    assert page.locator(".message.human .text").inner_text() == "Hello, this is Mia. <b>How</b> can I help?"
    customer.wait("() => document.getElementById('live').textContent.includes('Mia')")
    operator.wait_for_selector(".message.human")
    operator.screenshot(path=shots / "operator.png")
    page.fill("#message", "My lamp is green.")
    page.press("#message", "Enter")
    operator.wait_for_function("() => document.querySelector('#messages').textContent.includes('My lamp is green')")
    page.wait_for_selector("#send:visible")
    operator.get_by_role("button", name="Hand back").click()
    operator.wait_for_function("() => document.querySelector('#answering').hidden")
    page.wait_for_selector("#human", state="hidden")
    assert page.locator(".message.agent .text").last.inner_text() != ""
