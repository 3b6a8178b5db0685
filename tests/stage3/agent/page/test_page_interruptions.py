"""The page on the real service while a run is stopped, and while the service is killed and comes back."""

import time

import pytest


@pytest.fixture
def customer(slow_service, slow_model, open_page, visitor):
    """A customer whose run hangs, for some seconds, in the language model."""
    slow_model.asked.clear()
    return visitor(open_page(slow_service.url, locale="en-US"))


def test_escape_stops_a_run_and_keeps_what_is_being_typed(customer, slow_service, slow_model):
    """Catches: a stop button that only hides the answer, and an Escape that clears the box."""
    name, order = slow_service.order("shipped")
    customer.be(name)
    page = customer.page
    customer.begin(f"Where is {order}?")
    page.wait_for_selector("#stop:visible")
    assert slow_model.asked.wait(30)
    page.fill("#message", "another question")
    page.press("#message", "Enter")
    assert "Still answering" in page.inner_text("#notice")
    began = time.monotonic()
    page.press("#message", "Escape")
    customer.done()
    assert time.monotonic() - began < 10
    assert "Stopped." in page.locator(".message.agent").last.inner_text()
    assert page.inner_text("#panel-now .state") == "stopped"
    assert page.input_value("#message") == "another question"


def test_the_page_comes_back_by_itself_when_the_service_does(customer, slow_service, slow_model, shots):
    """Catches: a reload that the customer has to think of, an answer that is lost with the process, or told twice."""
    name, order = slow_service.order("delivered")
    customer.be(name)
    page = customer.page
    customer.begin(f"Where is {order}?")
    page.wait_for_selector("#stop:visible")
    assert slow_model.asked.wait(30)
    slow_service.kill()
    page.wait_for_selector("#connection[data-state=waiting]")
    assert "Reconnecting" in page.inner_text("#connection")
    page.fill("#message", "typed while nobody was there")
    page.screenshot(path=shots / "reconnecting.png")
    slow_service.start()
    page.wait_for_selector("#connection[data-state=open]")
    customer.done()
    assert order in customer.answer()
    assert page.locator(".message.customer").count() == 1
    assert page.locator(".message.agent").count() == 1
    half = len(customer.answer()) // 2
    assert customer.answer()[:half].strip() != customer.answer()[half:].strip()
    assert page.input_value("#message") == "typed while nobody was there"
