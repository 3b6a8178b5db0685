"""The policy, rule by rule, and that the words say what the code does. Each test names the bug that it catches."""

import re
from datetime import date, timedelta
from pathlib import Path

import pytest

from data.shop import create_shop, open_shop
from stage3_agents_llmops.agent.shop import ItemView, OrderView, ShipmentView, Shop, check_tool
from stage3_agents_llmops.agent.shop.policy import FAULT_DAYS, HUMAN_ABOVE_CENTS, RETURN_DAYS, RULES, return_ruling

TODAY = date(2026, 11, 20)
POLICY = Path(create_shop.__code__.co_filename).with_name("policy.en.md")


def bought(days_ago: int | None, status: str = "delivered", item_status: str = "ordered") -> tuple[OrderView, ItemView]:
    """An order of one item that was delivered so many days ago."""
    item = ItemView("KM204817-1", "p1", "desk lamp", "台灯", 1, 2900, item_status)
    day = None if days_ago is None else (TODAY - timedelta(days_ago)).isoformat()
    parcel = ShipmentView("Blue Parcel", "BP1", "delivered", "2026-08-01", "2026-08-03", day)
    return OrderView("KM204817", status, "2026-08-01", "1 Way", 2900, "USD", (item,), parcel, (), ()), item


@pytest.mark.parametrize(
    ("days_ago", "reason", "returnable", "rule"),
    [
        (0, "changed_mind", True, None),
        (30, "changed_mind", True, None),  # the last day counts
        (31, "changed_mind", True, "R5"),
        (31, "damaged", True, None),
        (60, "wrong_item", True, None),
        (61, "missing_parts", True, "R6"),
        (31, "wrong_size", True, "R5"),
        (2, "changed_mind", False, "R7"),
        (2, "missing_parts", False, "R7"),
        (40, "damaged", False, None),
        (90, "price", False, "R7"),  # hygiene is asked before time
        (None, "damaged", True, "R4"),
    ],
)
def test_return_ruling(days_ago, reason, returnable, rule):
    """Catches: a day too many or too few, the longer time for the wrong reasons, rules asked in another order."""
    days = FAULT_DAYS if reason in ("damaged", "wrong_item", "missing_parts") else RETURN_DAYS
    assert return_ruling(TODAY, *bought(days_ago), returnable, reason) == (rule, days)


@pytest.mark.parametrize("taken", ["returning", "exchanging", "cancelled"])
def test_an_item_goes_back_once(taken):
    """Catches: a second refund for the same item, also where another rule would forbid it, too."""
    assert return_ruling(TODAY, *bought(90, item_status=taken), True, "damaged")[0] == "R8"


def test_what_is_under_way_cannot_go_back():
    """Catches: a return of a parcel that is on its way, which has a shipment and no delivery."""
    assert return_ruling(TODAY, *bought(None, status="shipped"), True, "damaged")[0] == "R4"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop(create_shop(tmp_path_factory.mktemp("shop") / "shop.sqlite", seed=3, customers=40, orders=160))


def some(shop: Shop, wanted) -> tuple[str, OrderView]:
    """A customer, and an order of theirs that is wanted."""
    ids = (f"C{number}" for number in range(1001, 1041))
    return next((one, order) for one in ids for order in shop.orders(one) if wanted(order))


@pytest.mark.parametrize("status", ["placed", "packed", "shipped", "delivered", "cancelled"])
def test_before_and_after_it_leaves(shop, status):
    """Catches: R2, R3, R4 or R14 bound to the wrong states."""
    customer, order = some(shop, lambda each: each.status == status and each.total_cents <= HUMAN_ABOVE_CENTS)
    here = {"order_id": order.order_id}
    early = status in ("placed", "packed")
    assert check_tool(shop, "cancel_order", customer, here).allowed == early
    assert check_tool(shop, "change_address", customer, here | {"address": "5 New Road, Leeds"}).allowed == early
    assert check_tool(shop, "send_invoice", customer, here).allowed == (status != "cancelled")


def test_the_money_limit_is_for_a_person(shop):
    """Catches: R10 off by a cent, or only for one of the two ways to get money back."""
    dear, order = some(shop, lambda each: each.status == "packed" and each.total_cents > HUMAN_ABOVE_CENTS)
    refused = check_tool(shop, "cancel_order", dear, {"order_id": order.order_id})
    assert (refused.allowed, refused.rule, refused.facts["needs_human"]) == (False, "R10", True)
    with open_shop(shop.path) as connection:
        connection.execute("UPDATE orders SET total_cents = ? WHERE order_id = ?", (HUMAN_ABOVE_CENTS, order.order_id))
    connection.close()
    assert check_tool(shop, "cancel_order", dear, {"order_id": order.order_id}).allowed


def test_somebody_elses_order_does_not_exist(shop):
    """Catches: an answer that tells a stranger that the number is real."""
    owner, order = some(shop, lambda each: each.status == "placed")
    stranger = "C1001" if owner != "C1001" else "C1002"
    theirs, none = (check_tool(shop, "cancel_order", stranger, {"order_id": id}) for id in (order.order_id, "KM000000"))
    assert theirs.rule == none.rule == "R1"
    assert theirs.facts["problem"].replace(order.order_id, "#") == none.facts["problem"].replace("KM000000", "#")


def test_the_words_have_the_rules_and_figures_of_the_code():
    """Catches: a policy document that promises 14 days where the code allows 30, and a rule that has no words."""
    for language in ("en", "zh"):
        text = POLICY.with_name(f"policy.{language}.md").read_text(encoding="utf-8")
        assert set(re.findall(r"\*\*(R\d+)\*\*", text)) == set(RULES)
        rule = dict(re.findall(r"\*\*(R\d+)\*\*(.*?)(?=\n- \*\*R|\n#|\Z)", text, re.DOTALL))
        assert str(RETURN_DAYS) in rule["R5"] and str(FAULT_DAYS) in rule["R6"]
        assert str(RETURN_DAYS) not in rule["R6"], "the control: each figure stands with its own rule"
        assert f"{HUMAN_ABOVE_CENTS / 100:.2f}" in rule["R10"] or f"{HUMAN_ABOVE_CENTS // 100}" in rule["R10"]
