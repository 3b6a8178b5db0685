"""Whether an answer says something."""

import pytest

from data.scripted_customers.facts import says


@pytest.mark.parametrize(
    "text",
    ["on 2026-11-04.", "arrives 4 November", "on Nov 4th", "November 4, 2026", "the 4th of November", "11月4日送达",
     "11 月 4 号", "11/4", "4/11/2026"],
)  # fmt: skip
def test_a_date_in_any_form(text):
    """Catches: an agent that fails for writing dates as its customers do."""
    assert says(text, "date 2026-11-04")


@pytest.mark.parametrize(
    "text", ["2026-11-14", "14 November", "November 40", "1月4日", "11月14日", "21/4", "2026-11-041"]
)
def test_another_date_is_not_that_date(text):
    """Catches: the 4th found in the 14th."""
    assert not says(text, "date 2026-11-04")


@pytest.mark.parametrize(
    ("text", "fact", "said"),
    [
        ("You get $49.90 back", "money 49.90", True),
        ("退款49.9元", "money 49.90", True),
        ("1,049.90 in all", "money 1049.90", True),
        ("149.90", "money 49.90", False),
        ("49.90", "money 49.00", False),
        ("Ｔ Ｋ１２", "TK12", False),
        ("ＴＫ１２ is the number", "tk12", True),
        ("We couldn’t  find it", "any not found | couldn't find", True),
        ("We found it", "any not found | couldn't find", False),
    ],
)
def test_amounts_and_words(text, fact, said):
    """Catches: 49.90 found in 149.90, and apostrophes that do not match."""
    assert says(text, fact) is said
