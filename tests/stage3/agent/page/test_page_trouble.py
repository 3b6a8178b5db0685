"""What the page does when the service misbehaves: broken lines, refusals, lost answers, hostile texts."""

import pytest
from stand_in import answer

HOSTILE = "</p><script>window.owned = 1</script><img src=x onerror='window.owned = 2'>"


@pytest.fixture
def customer(stand_in, open_page, visitor):
    """A customer of the service that misbehaves."""
    return visitor(open_page(stand_in.url, locale="en-US"))


def streams(stand_in) -> list[dict[str, str]]:
    """The headers of every request for a run's events."""
    return [headers for method, path, headers in stand_in.seen if path.endswith("/events")]


def test_tokens_are_shown_as_they_come_and_spoken_once(customer, stand_in):
    """Catches: an answer that appears only when it is whole, and a screen reader that is told every token."""
    page = customer.page
    stand_in.hold, stand_in.script = True, [answer("one two three four five")]
    page.evaluate("""() => { window.spoken = []; const live = document.getElementById('live');
        new MutationObserver(() => spoken.push(live.textContent)).observe(live, {childList: true, subtree: true}); }""")
    customer.begin("count")
    customer.wait("() => document.querySelector('.message.agent .waiting')")
    stand_in.let("r1", 14)
    customer.reads("one two three")
    assert page.locator(".graph .node.visited").count() == 5
    assert page.locator("#stop").is_visible()
    stand_in.let("r1", 99)
    customer.done()
    assert customer.answer().strip() == "one two three four five"
    assert page.evaluate("spoken") == ["The assistant is answering.", "Answer: one two three four five "]
    live = "[...document.querySelectorAll('[aria-live], [role=log], [role=status], [role=alert]')]"
    assert page.evaluate(f"{live}.every((region) => !region.contains(document.getElementById('messages')))")


@pytest.mark.parametrize("cut", [3, 13])
def test_a_line_that_breaks_is_taken_up_where_it_broke(customer, stand_in, cut):
    """Catches: events lost or told twice after a cut, and a reader that starts over."""
    stand_in.break_after, stand_in.script = cut, [answer("The lamp is on its way to you.")]
    customer.say("Where is it?")
    assert customer.answer().strip() == "The lamp is on its way to you."
    assert customer.page.locator("#panel-steps li").count() == 5
    cursors = [int(headers.get("last-event-id", 0)) for headers in streams(stand_in)]
    total = len(stand_in.runs["r1"].log)
    assert cursors == list(range(0, total, cut))


def test_an_expired_cursor_loads_the_snapshot(customer, stand_in):
    """Catches: half an answer that stays on the page because its beginning is no longer held."""
    stand_in.hold, stand_in.script = True, [answer("All of this text is kept.")]
    customer.begin("Tell me")
    stand_in.let("r1", 13)
    customer.wait("() => document.querySelector('.message.agent .text')?.textContent.includes('All of')")
    stand_in.oldest, stand_in.break_after = 16, 14
    stand_in.let("r1", 99)
    customer.done()
    customer.reads("All of this text is kept.")
    assert customer.page.locator(".message.agent").count() == 1


def test_a_resumed_run_words_its_answer_anew(customer, stand_in):
    """Catches: the beginning of the answer twice, after the service was restarted in the middle."""
    whole = answer("The refund is on its way.")
    stand_in.script = [[*whole[:-3], ("start", {"resumed": True}), *whole[11:]]]
    customer.say("Where is my refund?")
    assert customer.answer().strip() == "The refund is on its way."


def test_a_lost_answer_to_a_message_does_not_send_it_twice(customer, stand_in):
    """Catches: a second run because the first one's id never arrived."""
    stand_in.lose_answers = 1
    customer.say("Cancel my order")
    keys = [headers["idempotency-key"] for _, path, headers in stand_in.seen if path.endswith("/runs")]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert len(stand_in.runs) == 1
    assert customer.page.locator(".message.customer").count() == 1


def test_a_message_sent_into_the_void_is_delivered_once_when_the_service_is_back(customer, stand_in):
    """Catches: a message that is swallowed, one that arrives twice, and a box that is emptied too early."""
    page = customer.page
    customer.say("Hello")
    stand_in.server.stop()
    customer.begin("Where is my order?")
    page.wait_for_selector("#notice:visible")
    assert "as soon as it is back" in page.inner_text("#notice")
    assert page.inner_text("#connection").startswith("Connection lost. Reconnecting")
    assert page.input_value("#message") == "Where is my order?"
    stand_in.server.start()
    customer.done()
    assert page.input_value("#message") == ""
    assert page.locator("#notice").is_hidden()
    assert stand_in.said("t1") == ["Hello", "Where is my order?"]


def test_a_message_waiting_for_the_service_can_be_taken_back(customer, stand_in):
    """Catches: words that are sent although the customer has stopped them or written others."""
    page = customer.page
    customer.say("Hello")
    stand_in.server.stop()
    customer.begin("Cancel everything")
    page.wait_for_selector("#notice:visible")
    page.press("#message", "Escape")
    page.wait_for_selector("#send:visible")
    assert page.input_value("#message") == "Cancel everything"
    stand_in.server.start()
    page.wait_for_selector("#connection[data-state=open]")
    page.wait_for_timeout(500)
    assert len(stand_in.runs) == 1


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (429, {"retry-after": "7"}, "busy. Try again in 7 s"),
        (413, {}, "too long"),
        (422, {}, "no control characters. without them"),
        (500, {}, "no control characters"),
    ],
)
def test_a_refused_message_stays_in_the_box(customer, stand_in, status, headers, words):
    """Catches: typed text that is gone with the refusal, and a refusal that nobody explains."""
    page = customer.page
    stand_in.refuse = (status, {"error": "no control characters", "try": "without them"}, headers)
    page.fill("#message", "a long letter\nof two lines")
    page.press("#message", "Enter")
    page.wait_for_selector("#notice:visible")
    assert words in page.inner_text("#notice")
    assert page.input_value("#message") == "a long letter\nof two lines"
    assert page.locator(".message").count() == 0
    stand_in.refuse = None
    customer.say("a long letter\nof two lines")
    assert page.locator("#notice").is_hidden()


def test_a_run_begun_in_another_tab_is_followed_and_the_text_kept(customer, stand_in, visitor):
    """Catches: a second tab that gets stuck on 409, or loses what was typed there."""
    page = customer.page
    customer.say("first")
    second = page.context.new_page()
    second.goto(stand_in.url)
    second.click("#threads button")
    second.wait_for_selector(".message.agent")
    stand_in.hold, stand_in.script = True, [answer("from the other tab")]
    other = visitor(second)
    other.begin("second")
    second.wait_for_selector("#stop:visible")
    stand_in.refuse = (409, {"error": "a run is going on", "try": "wait for it"}, {})
    page.bring_to_front()
    page.fill("#message", "third")
    page.press("#message", "Enter")
    page.wait_for_selector("#notice:visible")
    stand_in.let("r2", 99)
    customer.reads("from the other tab")
    page.wait_for_selector("#send:visible")
    assert page.input_value("#message") == "third"


def test_a_conversation_that_is_gone_becomes_a_new_one(customer, stand_in):
    """Catches: a page that is stuck for ever on a conversation which the service no longer has."""
    customer.say("hello")
    stand_in.threads.clear()
    customer.page.reload()
    customer.page.wait_for_selector("#notice:visible")
    assert customer.page.locator("#welcome").is_visible()
    assert "no longer exists" in customer.page.inner_text("#notice")
    customer.say("hello again")
    assert customer.page.locator(".message.customer").count() == 1


def test_a_failed_run_says_so_and_can_be_tried_again(customer, stand_in):
    """Catches: an error that looks like an answer, or like nothing."""
    failed = [("start", {}), ("error", {"code": "model", "message": "The model did not answer.", "retryable": True}),
              ("end", {"reason": "failed", "text": ""})]  # fmt: skip
    stand_in.script = [failed, answer("Here it is.")]
    customer.say("Where is it?")
    assert "The model did not answer." in customer.page.inner_text(".failure")
    customer.answers = 1
    customer.page.get_by_role("button", name="Try again").click()
    customer.done()
    assert customer.answer().strip() == "Here it is."
    assert stand_in.said("t1") == ["Where is it?"] * 2


def test_markup_in_every_field_that_is_shown_stays_text(customer, stand_in):
    """Catches: the one field of the one event that somebody made HTML of."""
    path = answer(f"{HOSTILE} [1]")
    stand_in.script = [[
        *path[:-1],
        ("intent", {"intent": HOSTILE, "confidence": 0.5, "source": HOSTILE}),
        ("slots", {"slots": {HOSTILE: HOSTILE}, "asked": HOSTILE}),
        ("handoff", {"from": HOSTILE, "to": HOSTILE, "count": 1}),
        ("tool", {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}, "phase": "call"}),
        ("tool", {"name": HOSTILE, "phase": "result", "ok": False, "message_code": HOSTILE, "result": {HOSTILE: [0]}}),
        ("guardrail", {"stage": HOSTILE, "finding": HOSTILE, "action": HOSTILE}),
        ("citation", {"number": 1, "id": HOSTILE, "title": HOSTILE, "text": HOSTILE, "kind": HOSTILE}),
        ("interrupt", {"proposal_id": HOSTILE, "tool": HOSTILE, "title": HOSTILE, "summary": "S" + HOSTILE,
                       "arguments": {HOSTILE: HOSTILE}}),
        ("usage", {"input_tokens": 1, "output_tokens": 1, "model": HOSTILE}),
        ("node", {"name": HOSTILE, "agent": HOSTILE, "phase": "start"}),
        ("end", {"reason": "waiting", "text": HOSTILE}),
    ]]  # fmt: skip
    customer.say(HOSTILE)
    page = customer.page
    for details in page.locator("details").all():
        details.evaluate("details => details.open = true")
    panel = [f"#panel-{name}" for name in ("now", "understanding", "slots", "tools", "guardrails", "models")]
    for place in (*panel, "#messages", ".confirmation", ".sources"):
        assert "<script>" in page.inner_text(place), place
    page.reload()
    page.wait_for_selector(".confirmation")
    assert page.locator("body img:not([src='/static/icon.svg']), body script").count() == 0
    assert page.evaluate("window.owned") is None


def test_inline_scripts_and_html_strings_are_forbidden_by_the_page_itself(customer, open_page):
    """Catches: a policy that allows what it is there to forbid. The negative control of the tests above."""
    open_page.expects_violations = True
    page = customer.page
    attempts = """() => [
        () => { document.body.innerHTML = '<b>x</b>'; },
        () => document.body.setAttribute('onclick', 'window.owned = 3'),
        () => { document.createElement('script').textContent = 'window.owned = 4'; },
    ].map((attempt) => { try { attempt(); return 'allowed'; } catch (error) { return error.name; } })"""
    assert page.evaluate(attempts) == ["TypeError"] * 3
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')") == "blocked"


def test_drafts_belong_to_their_conversation(customer, stand_in):
    """Catches: text typed to one conversation that is sent to another."""
    page = customer.page
    customer.say("first conversation")
    page.fill("#message", "draft of the first")
    page.click("#new")
    assert page.input_value("#message") == ""
    page.fill("#message", "draft of a new one")
    page.click("#threads button")
    page.wait_for_selector(".message.agent")
    assert page.input_value("#message") == "draft of the first"
    page.click("#new")
    assert page.input_value("#message") == "draft of a new one"
