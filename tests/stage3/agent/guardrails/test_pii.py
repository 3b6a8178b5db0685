"""Each test names the bug that it catches."""

import io
import logging
import time

import pytest

import data
from data.pii_set import load_pii
from stage3_agents_llmops.agent.guardrails import PiiFilter, mask_pii
from stage3_agents_llmops.agent.guardrails.pii import card, iban, identity_card, luhn


@pytest.mark.parametrize("sample", load_pii(positive=True), ids=lambda sample: sample.id)
def test_no_sample_leaks(sample):
    """Catches: a form of phone, card, ID, e-mail, IBAN or passport that is not known. Every kind is named, too."""
    masked = mask_pii(sample.text)
    assert not sample.leaked(masked.text), masked.text
    assert sorted(kind for kind, count in masked.found for _ in range(count)) == sorted(k for k, _ in sample.secrets)


@pytest.mark.parametrize("sample", load_pii(positive=False), ids=lambda sample: sample.id)
def test_look_alikes_stay(sample):
    """Catches: a mask that eats tracking numbers, amounts, dates or order numbers."""
    assert mask_pii(sample.text).text == sample.text


def test_utterances_stay():
    """Catches: a mask that spoils what customers ordinarily write."""
    for name in ("customer-service-en", "customer-service-zh"):
        touched = [one.text for one in data.load_understanding(name, "train") if mask_pii(one.text).found]
        assert not touched


def test_a_mask_that_masks_nothing_fails_the_set():
    """Catches: a measure that everything passes."""
    assert all(sample.leaked(sample.text) for sample in load_pii(positive=True))


def test_luhn_by_hand():
    """Catches: doubling from the wrong end, and a sum of digits that is not taken. 7992739871 has check digit 3."""
    assert luhn("79927398713") and not any(luhn(f"7992739871{digit}") for digit in "012456789")
    assert luhn("4111111111111111") and not luhn("4111111111111112")


def test_checksums_catch_a_changed_digit():
    """Catches: a form taken for proof: a tracking number of 18 digits is no identity card."""
    good_ones = {identity_card: "110101199003071233", iban: "DE89370400440532013000", card: "6011111111111117"}
    for check, good in good_ones.items():
        assert check(good)
        changed = good[:9] + str((int(good[9]) + 1) % 10) + good[10:]
        assert not check(changed)
    assert not identity_card("110101199013071233"), "there is no month 13"


def test_masking_twice_changes_nothing():
    """Catches: a mask that finds itself."""
    for sample in load_pii():
        once = mask_pii(sample.text).text
        assert mask_pii(once).text == once


def test_what_stands_around_does_not_hide_it():
    """Catches: a phone number that is only seen between spaces."""
    for around in ("打{}！", "({})", "a,{},b", "电话：{}。", "{}", "\n{}\n"):
        assert mask_pii(around.format("13812345678")).text == around.format("[phone]")


def test_logs_hold_no_personal_data():
    """Catches: arguments, tracebacks and other loggers' records that pass the mask by."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(PiiFilter())
    logger = logging.getLogger("some.other.library")
    logger.addHandler(handler)
    try:
        logger.warning("from %s about %s", "jane@example.com", {"phone": "13812345678"})
        try:
            raise ValueError("card 4111 1111 1111 1111 refused")
        except ValueError:
            logger.exception("cannot pay")
    finally:
        logger.removeHandler(handler)
    written = stream.getvalue()
    assert "jane" not in written and "13812345678" not in written and "4111" not in written
    assert "[email]" in written and "[phone]" in written and "[card]" in written and "Traceback" in written


@pytest.mark.parametrize(
    "text", ["1" * 20_000, "1 " * 10_000, "a@" * 10_000, "a." * 10_000 + "@", "one " * 5_000, "passport" * 3_000]
)
def test_long_nonsense_takes_no_time(text):
    """Catches: an expression that tries every way to cut a text."""
    began = time.monotonic()
    mask_pii(text)
    assert time.monotonic() - began < 5
