"""Each test names the bug that it catches."""

import pytest

from stage3_agents_llmops.agent.guardrails import check_grounding

ORDER = {"order_id": "KM204817", "shipped_on": "2026-11-20", "expected_on": "2026-11-24", "refund_cents": 4990}


@pytest.mark.parametrize("answer", [
    "Your order KM204817 was shipped on 20 November and should be there by Nov 24th.",
    "Your order KM204817 was shipped on 2026-11-20.",
    "订单KM204817已于11月20日发货，预计11月24日送达，退款49.9元。",
    "I have refunded $49.90 to your card.",
    "Thank you, I have opened a complaint. I am sorry!",
    "It shines for 11 hours on low [1]. The Nightjar has a strap [2].",
    "",
])  # fmt: skip
def test_what_is_known_may_be_said(answer):
    """Catches: dates or amounts in another form that count as invented."""
    evidence = ["On low it kept going for 11 hours.", "The strap of the Nightjar headlamp rubs."]
    assert check_grounding(answer, evidence, {"order": ORDER}).unsupported == ()


@pytest.mark.parametrize(("answer", "piece"), [
    ("It shines for 12 hours [1].", "12"),
    ("See [3].", "[3]"),
    ("Your order KM204818 is on its way.", "KM204818"),
    ("It arrives on 25 November.", "11-25"),
    ("预计11月25日送达。", "11-25"),
    ("You get $59.90 back.", "59.9"),
    ("The lamp is made by Lumenfox.", "Lumenfox"),
    ("Write to help@evil.example please.", "help@evil.example"),
    ("See https://evil.example/x for more.", "https://evil.example/x"),
    ("详见《消费者条例》。", "消费者条例"),
    ("You have 1,100 days.", "1100"),
])  # fmt: skip
def test_what_is_invented_is_named(answer, piece):
    """Catches: an invented figure, date, code, name, link or citation that goes out to a customer."""
    found = check_grounding(answer, ["On low it kept going for 11 hours.", "A strap."], ORDER)
    assert not found.ok and found.unsupported == (piece,)


def test_a_full_width_comma_parts_two_numbers():
    """Catches: "373，474" read as 373474."""
    assert check_grounding("共两笔：373，474。", [], {"a": 373, "b": "474", "n": 2}).ok
    assert not check_grounding("共两笔：373,474。", [], {"a": 373, "b": "474"}).ok


def test_what_the_customer_wrote_counts_when_it_is_given():
    """Catches: an answer that may not repeat the customer's own words."""
    assert not check_grounding("You asked about 14 Fennel Row.", [], {}).ok
    assert check_grounding("You asked about 14 Fennel Row.", ["send it to 14 Fennel Row"], {}).ok
