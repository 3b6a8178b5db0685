"""Reading and scoring replies. Each test names the bug that it catches."""

import pytest

from data.customer_service.prompt import prompt_messages
from data.understanding import Utterance
from stage2_rag_finetune_deploy.finetune.understanding import few_shot_messages, parse_reply, score

ONE = Utterance("1", "where is KM1, the  Desk lamp?", "order_status", {"order_id": "KM1", "product": "Desk lamp"})
TWO = Utterance("2", "hi", "greeting")


@pytest.mark.parametrize(
    "reply, intent, slots",
    [
        (ONE.label, "order_status", dict(ONE.slots)),
        ('Sure! {"intent": "a", "slots": {}} Anything else?', "a", {}),
        ('```json\n{"slots": {"n": 3}, "intent": "a"}\n```', "a", {"n": "3"}),
    ],
)
def test_replies_with_a_label(reply, intent, slots):
    """Catches: talk around the JSON, or the order of its fields, counted as a mistake."""
    label = parse_reply(reply)
    assert (label.intent, dict(label.slots)) == (intent, slots)


@pytest.mark.parametrize(
    "reply",
    ["", "order_status", '{"intent": "a"}', '{"intent": "a", "slots": []}', '{"intent": 1, "slots": {}}',
     '{"intent": "a", "slots": {"b": {}}}', '{"intent": "a", "slots": {"b": ', "[" * 9999, '{"a":' * 9999],
)  # fmt: skip
def test_replies_without_one(reply):
    """Catches: half a label that counts, a reply that ends the evaluation."""
    assert parse_reply(reply) is None


def test_scores_by_hand():
    """Catches: a slot F1 that forgets missed slots, exact match on the intent alone, a score that reads the order."""
    wrong_value = '{"intent": "order_status", "slots": {"product": "desk  LAMP", "order_id": "KM2"}}'
    scores = score([ONE, ONE, TWO, TWO], [ONE.label, wrong_value, "hello!", TWO.label])
    assert scores.exact == (True, False, False, True)
    assert scores.intent == (True, True, False, True)
    assert scores.valid == (True, True, False, True)
    assert scores.slot_f1 == pytest.approx(2 * 3 / (4 + 4))
    assert scores.as_dict()["exact"] == 0.5
    assert score([TWO], [TWO.label]).slot_f1 == 1.0
    assert score([ONE], ["?"]).slot_f1 == 0.0


def test_scores_need_as_many_replies():
    """Catches: replies that are lost and with them their utterances."""
    with pytest.raises(ValueError):
        score([ONE, TWO], [ONE.label])


def test_examples_are_earlier_turns():
    """Catches: a few-shot prompt without its examples, or with the answer to the question in it."""
    messages = few_shot_messages("and now?", "en", [ONE, TWO])
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[2]["content"] == ONE.label and messages[-1]["content"] == "and now?"
    assert "order_status, greeting" in messages[0]["content"] and "order_id, product" in messages[0]["content"]
    assert prompt_messages("和", "zh")[0]["content"] != prompt_messages("a", "en")[0]["content"]
