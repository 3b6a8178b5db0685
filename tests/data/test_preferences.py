"""Preference pairs for the understanding task. Each test names the bug that it catches."""

import json
from collections import Counter

import pytest

import data
from data.customer_service.preferences import CONFUSABLE, KINDS, kind_of, preference_pairs
from data.customer_service.schema import INTENTS, label_errors, same_value

SHOP = ["customer-service-en", "customer-service-zh"]


def plain(label):
    """A label as it is compared: intent, and slots by `same_value`."""
    return label["intent"], {slot: same_value(value) for slot, value in label["slots"].items()}


@pytest.mark.parametrize("name", SHOP)
def test_the_rejected_answer_is_wrong_in_the_way_its_kind_says(name):
    """Catches: a rejected answer that is right; a kind that does something else; invalid JSON that is valid."""
    items = {item.text: item for item in data.load_understanding(name)}
    pairs = preference_pairs(items.values(), seed=1, each=5)
    assert set(Counter(map(kind_of, pairs))) == set(KINDS)
    for pair in pairs:
        gold, kind = json.loads(pair.chosen), kind_of(pair)
        assert pair.chosen == items[pair.prompt].label
        if kind == "invalid_json":
            with pytest.raises(json.JSONDecodeError):
                json.loads(pair.rejected)
            continue
        wrong = json.loads(pair.rejected)
        assert label_errors(wrong) == [] and plain(wrong) != plain(gold), pair
        extra, lost = set(wrong["slots"]) - set(gold["slots"]), set(gold["slots"]) - set(wrong["slots"])
        changed = {s for s in set(gold["slots"]) & set(wrong["slots"]) if gold["slots"][s] != wrong["slots"][s]}
        assert (wrong["intent"] != gold["intent"]) == (kind == "wrong_intent")
        counts = {"slot_dropped": (0, 1, 0), "slot_invented": (1, 0, 0), "slot_altered": (0, 0, 1)}
        if kind in counts:
            assert (len(extra), len(lost), len(changed)) == counts[kind], pair
        if kind == "slot_invented":
            assert same_value(wrong["slots"][extra.pop()]) not in same_value(pair.prompt)


def test_pairs_depend_on_seed_and_utterance_only():
    """Catches: one generator for all, so that a subset of the utterances gives other pairs."""
    items = data.load_understanding("customer-service-en")
    every = {pair.id: pair for pair in preference_pairs(items, seed=1)}
    assert all(every[pair.id] == pair for pair in preference_pairs(items[100:150], seed=1))
    assert preference_pairs(items, seed=2) != list(every.values())
    assert len(every) == len(items)  # every utterance gets one
    kinds = {kind_of(pair) for pair in preference_pairs(items[:200], kinds=["wrong_intent"])}
    assert kinds == {"wrong_intent"}


def test_greetings_have_only_wrong_intents_and_invalid_json():
    """Catches: a slot invented for an intent that has none."""
    items = [item for item in data.load_understanding("customer-service-zh") if item.intent == "greeting"]
    assert {kind_of(pair) for pair in preference_pairs(items, each=5)} == {"wrong_intent", "invalid_json"}


def test_every_intent_has_others_to_be_confused_with():
    """Catches: a misspelt intent in the table."""
    assert set(CONFUSABLE) == set(INTENTS)
    assert all(intent not in others and set(others) <= set(INTENTS) for intent, others in CONFUSABLE.items())
