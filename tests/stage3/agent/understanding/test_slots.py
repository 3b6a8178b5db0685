"""Each test names the bug that it catches."""

import time

import pytest

import data
from data.customer_service.schema import SLOTS_OF, same_value
from stage3_agents_llmops.agent.understanding import find_slots, language_of
from stage3_agents_llmops.agent.understanding.slots import find_reason


@pytest.mark.parametrize("language", ["en", "zh"])
def test_slots_of_the_validation_split(language):
    """Catches: a form of order number, address, date, amount or product that is not known, or a value cut wrongly."""
    items = data.load_understanding(f"customer-service-{language}", "validation")
    for slot, least in (("order_id", 0.95), ("address", 0.85), ("product", 0.95), ("date", 0.9), ("amount", 0.9)):
        gold = [item for item in items if slot in item.slots]
        found = [find_slots(item.text, language).get(slot, "") for item in gold]
        hits = sum(same_value(value) == same_value(item.slots[slot]) for value, item in zip(found, gold, strict=True))
        assert hits >= least * len(gold), (slot, hits, len(gold))
        none = [item for item in items if slot in SLOTS_OF[item.intent] and slot not in item.slots]
        assert sum(slot in find_slots(item.text, language) for item in none) <= 0.05 * len(items), slot


@pytest.mark.parametrize(("text", "slots"), [
    ("send KM204817 to 14 Fennel Row, Oakmere please", {"order_id": "KM204817", "address": "14 Fennel Row, Oakmere"}),
    ("ship it to Flat 3, 92 Tanner Street, Brindleford, thanks", {"address": "Flat 3, 92 Tanner Street, Brindleford"}),
    ("km 204 817改寄到青禾市白鹭路88号3栋502，谢谢", {"order_id": "km 204 817", "address": "青禾市白鹭路88号3栋502"}),
    ("where is my lamp", {"product": "lamp"}),
    ("ＫＭ２０４８１７ 退款￥89.9", {"order_id": "ＫＭ２０４８１７", "amount": "￥89.9"}),
    ("hello", {}),
    ("", {}),
])  # fmt: skip
def test_values_are_copied_as_they_were_written(text, slots):
    """Catches: a value that is changed, or has the words around it."""
    assert find_slots(text, language_of(text)) == slots


@pytest.mark.parametrize(("text", "code"), [
    ("I don't like it any more", "changed_mind"), ("不想要了", "changed_mind"), ("用不上", "changed_mind"),
    ("it isn't broken, I just don't need it", "changed_mind"), ("没有坏，就是不想要了", "changed_mind"),
    ("坏了", "damaged"), ("收到就坏", "damaged"), ("it does not work", "damaged"), ("有质量问题", "damaged"),
    ("you sent the wrong item", "wrong_item"), ("发错货了", "wrong_item"),
    ("too small", "wrong_size"), ("尺码不合适", "wrong_size"),
    ("parts are missing", "missing_parts"), ("缺零件", "missing_parts"), ("not as described", "not_as_described"),
    ("far too late", "late"), ("迟迟没到", "late"), ("cheaper elsewhere", "price"), ("the courier was rude", "service"),
    ("I want to return it", None), ("我要退货", None), ("is it too late to cancel?", None),
    ("nothing is wrong with it", None),
    ("how many days do I have to return something?", None), ("在路上没有问题吧", None),
])  # fmt: skip
def test_a_reason_is_what_was_said(text, code):
    """Catches: a reason that nobody gave, which would open a longer return period (rules R5, R7)."""
    assert find_reason(text) == code


@pytest.mark.parametrize(
    "text", ["路" * 3000, "三" * 3000, "14 Fennel " * 500, "one hundred and " * 300, "1" * 5000, "KM204817 " * 500]
)
def test_long_nonsense_takes_no_time(text):
    """Catches: an address pattern that tries every way to cut 路路路路."""
    began = time.monotonic()
    find_slots(text, "en"), find_slots(text, "zh")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("text", "language"), [
    ("where is KM204817", "en"), ("KM204817到哪了", "zh"), ("cancel 订单 KM204817 please", "en"),
    ("帮我cancel一下这个订单", "zh"), ("KM204817", "en"), ("😀", "en"), ("", "en"), ("ok", "en"), ("好的", "zh"),
])  # fmt: skip
def test_language(text, language):
    """Catches: an order number that counts as English in a Chinese sentence."""
    assert language_of(text) == language
