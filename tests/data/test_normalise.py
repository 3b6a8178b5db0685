"""Order numbers as customers write them. Each test names the bug that it catches."""

from random import Random

import pytest

import data
from data.customer_service.normalise import order_number
from data.customer_service.values import order_id


@pytest.mark.parametrize("style", ["plain", "lower", "spaced", "gap", "dashed", "full_width", "spoken", "letter_o"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_spelling_comes_back_to_the_number(style, language):
    """Catches: a spelling of the data set that the shop could not look up."""
    for seed in range(50):
        plain = order_id("train", "plain", language, Random(seed))
        written = order_id("train", style, language, Random(seed))
        if style == "letter_o":  # the letter stands for whichever digit was there; it is read as a zero
            plain = plain[:4] + "0" + plain[5:]
        assert order_number(written) == plain


@pytest.mark.parametrize("written", ["204817", "KM20481", "KM2048177", "", "KMX04817", "my order", "订单", "1KM04817"])
def test_what_is_no_order_number_is_none(written):
    """Catches: a number guessed where the customer has to be asked."""
    assert order_number(written) is None


def test_the_test_split_can_be_looked_up():
    """Catches: frames whose spelling of order numbers this module does not know."""
    for name in ("customer-service-en", "customer-service-zh"):
        written = [item.slots["order_id"] for item in data.load_understanding(name, "test") if "order_id" in item.slots]
        known = [value for value in written if order_number(value)]
        assert len(known) > 0.8 * len(written)
        assert all(value.isdigit() for value in set(written) - set(known))  # the landlords leave the letters out
