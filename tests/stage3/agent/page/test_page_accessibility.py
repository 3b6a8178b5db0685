"""The page for everybody: names, contrast, keyboard, small screens, dark rooms, no motion. audit.js is the checker."""

from pathlib import Path

import pytest
from stand_in import answer

AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")
PASSAGE = {
    "number": 1,
    "id": "returns",
    "title": "Returning an item",
    "text": "Within 30 days of delivery.",
    "kind": "help",
}
PATH = ("guard", "classify", "supervisor", "refund_agent", "generate", "check")
RICH = [
    *answer("You can send it back [1]. Shall I?", PATH)[:-1],
    (
        "intent",
        {"intent": "return_item", "confidence": 0.93, "abstain": False, "source": "classifier", "request": 1, "of": 2},
    ),
    (
        "intent",
        {"intent": "invoice", "confidence": 0.31, "abstain": True, "source": "classifier", "request": 2, "of": 2},
    ),
    ("slots", {"slots": {"order_id": "KM204817", "reason": "damaged"}, "asked": "product"}),
    ("handoff", {"from": "supervisor", "to": "refund_agent", "count": 1}),
    (
        "tool",
        {"name": "order", "arguments": {"order_id": "KM204817"}, "phase": "call", "sensitive": False, "write": False},
    ),
    (
        "tool",
        {"name": "order", "phase": "result", "ok": True, "message_code": "found", "result": {"status": "delivered"}},
    ),
    (
        "tool",
        {
            "name": "return_item",
            "arguments": {"order_id": "KM204817"},
            "phase": "call",
            "sensitive": True,
            "write": True,
        },
    ),
    ("tool", {"name": "return_item", "phase": "result", "ok": False, "message_code": "unconfirmed"}),
    ("guardrail", {"stage": "pii", "finding": "phone", "action": "masked"}),
    ("citation", PASSAGE),
    (
        "interrupt",
        {
            "proposal_id": "p1",
            "tool": "return_item",
            "title": "Return an item",
            "summary": "The lamp of KM204817",
            "arguments": {"order_id": "KM204817", "reason": "damaged"},
        },
    ),
    ("human", {"ticket_id": "T1", "position": 2}),
    ("end", {"reason": "waiting", "text": "You can send it back [1]. Shall I?"}),
]


@pytest.fixture
def rich_page(stand_in, open_page, visitor):
    """rich_page(**context options): a page on which everything that exists is shown once."""

    def show(**options):
        customer = visitor(open_page(stand_in.url, **options))
        stand_in.script = [answer("Good morning."), RICH]
        customer.say("Hello")
        customer.say("It arrived broken")
        customer.page.wait_for_timeout(100)
        for details in customer.page.locator("details").all():
            details.evaluate("details => details.open = true")
        return customer.page

    return show


@pytest.mark.parametrize(
    ("width", "height", "scheme", "locale"),
    [
        (1280, 800, "light", "en-US"),
        (1280, 800, "dark", "zh-CN"),
        (900, 700, "light", "zh-CN"),
        (360, 740, "dark", "en-US"),
        (360, 740, "light", "zh-CN"),
    ],
)
def test_the_audit_finds_nothing(rich_page, scheme, locale, width, height, shots):
    """Catches: unnamed controls, faint text, targets too small for a thumb, a page that scrolls sideways."""
    page = rich_page(color_scheme=scheme, locale=locale, width=width, height=height)
    page.screenshot(path=shots / f"chat-{width}-{scheme}-{locale[:2]}.png")
    assert page.evaluate(AUDIT) == []
    for opener in ("#open-rail", "#open-panel"):
        if page.locator(opener).is_visible():
            page.click(opener)
            page.wait_for_timeout(200)
            page.screenshot(path=shots / f"drawer{opener[1:]}-{width}-{scheme}-{locale[:2]}.png")
            assert page.evaluate(AUDIT) == []
            page.keyboard.press("Escape")


HARMS = [  # what is done to the page, and what the audit must then say
    ("document.getElementById('send').textContent = ''", "no accessible name: button#send"),
    ("document.querySelector('.text').style.color = '#b0b0b0'", "contrast"),
    ("document.getElementById('customer').id = 'other'", "no accessible name: select"),
    ("document.querySelector('.cite').style.cssText = 'min-height:10px;height:10px'", "target"),
    ("document.querySelector('.text').style.cssText = 'width:3000px;max-width:none'", "sticks out"),
    ("document.documentElement.lang = ''", "lang: "),
    ("document.querySelector('h1').remove()", "not exactly one h1"),
    ("document.querySelector('.graph').removeAttribute('aria-label')", "a picture"),
    ("document.getElementById('live').id = 'message'", "id twice"),
    ("document.getElementById('new').tabIndex = 3", "positive tabindex"),
]


def test_the_audit_finds_what_is_wrong(rich_page):
    """Catches: an audit that is blind. Its negative controls, one harm upon the other."""
    page = rich_page(locale="en-US")
    for harm, finding in HARMS:
        assert not [problem for problem in page.evaluate(AUDIT) if finding in problem]
        page.evaluate(harm)
        assert [problem for problem in page.evaluate(AUDIT) if finding in problem], harm


def test_the_keyboard_reaches_everything_in_the_order_of_the_eyes(rich_page):
    """Catches: a control that only a mouse reaches, a focus that jumps or cannot be seen."""
    page = rich_page(locale="en-US")
    page.reload()
    page.wait_for_selector(".confirmation")
    page.wait_for_selector("#panel-tools .tool")
    stops = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stop = page.evaluate("""() => { const node = document.activeElement; const style = getComputedStyle(node);
            const frame = node.closest('.composer') && getComputedStyle(node.closest('.composer'));
            return [node.id || node.className || node.textContent.trim(),
                    style.outlineStyle !== 'none' || (frame !== null && frame.outlineStyle !== 'none')]; }""")
        if page.evaluate("document.activeElement === document.body"):
            break  # past the last one
        stops.append(stop)
    names = [name for name, _ in stops]
    assert names[0] == "skip"
    assert all(outlined for _, outlined in stops), stops
    order = ["skip", "customer", "new", "scroller", "cite", "primary", "message", "send", "earlier"]
    assert [name for name in names if name in order] == order
    missed = page.evaluate("""() => [...document.querySelectorAll('button:enabled, a, select, textarea, summary')]
        .filter((node) => node.checkVisibility() && node.tabIndex < 0).map((node) => node.id)""")
    assert missed == []


def test_the_skip_link_leads_to_the_box(stand_in, open_page):
    """Catches: twenty presses of Tab before the first word can be typed."""
    page = open_page(stand_in.url, locale="en-US")
    page.keyboard.press("Tab")
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "message"


def test_a_drawer_takes_the_focus_keeps_it_and_gives_it_back(stand_in, open_page):
    """Catches: a drawer behind which the keyboard wanders about unseen."""
    page = open_page(stand_in.url, width=360, height=740, locale="en-US")
    page.focus("#open-panel")
    page.keyboard.press("Enter")
    assert page.get_attribute("#open-panel", "aria-expanded") == "true"
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('#panel, body > *')?.id ?? 'panel'") == "panel"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "open-panel"
    assert page.get_attribute("#open-panel", "aria-expanded") == "false"


def test_who_wants_no_motion_gets_none(stand_in, open_page, visitor):
    """Catches: a pulse that somebody asked the browser to leave out."""
    customer = visitor(open_page(stand_in.url, locale="en-US", reduced_motion="reduce"))
    stand_in.hold, stand_in.script = True, [answer("later")]
    customer.begin("hello")
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    customer.wait("() => document.querySelector('.pulse')")
    assert customer.page.evaluate(moving) == 0
    customer.page.emulate_media(reduced_motion="no-preference")
    customer.wait(f"() => {moving} > 0")
    stand_in.let("r1", 99)
    customer.done()


def test_the_operators_page_passes_the_audit(stand_in, open_page):
    """Catches: care for customers only."""
    for width, height in ((1280, 800), (360, 740)):
        assert open_page(stand_in.url + "/static/operator.html", width, height, locale="en-US").evaluate(AUDIT) == []
