"""Preference pairs for the understanding task: the gold label, and one plausible wrong one.

    pairs = preference_pairs(data.load_understanding("customer-service-en", "train"), seed=1)
    pairs[0].prompt, pairs[0].chosen, pairs[0].rejected      # the utterance, and two JSON texts
    kind_of(pairs[0])                                        # "slot_dropped"

| kind | the rejected answer |
|---|---|
| wrong_intent | a confusable intent, with those of the slots that it may carry |
| slot_dropped | one slot is missing |
| slot_invented | a slot too many, with a value that is not in the utterance |
| slot_altered | one value is not what the customer wrote: a digit, another product, half an address, another reason |
| invalid_json | the right content as no JSON: a bracket short, quotation marks of the wrong kind, talk around it |

All but invalid_json are valid by label.schema.json: what they teach is content, not form. The pairs are drawn, not
sampled from a model; a model's own mistakes (`alignment`) are harder to tell from the gold label.
"""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING

from data.customer_service.schema import REASONS, SLOTS_OF, label_json, same_value
from data.customer_service.values import lists
from data.formats import Preference

if TYPE_CHECKING:  # understanding.py imports this package
    from data.understanding import Utterance

CONFUSABLE = {
    "order_status": ("refund_status", "complaint", "change_address", "cancel_order"),
    "cancel_order": ("return_item", "order_status", "complaint"),
    "change_address": ("order_status", "cancel_order"),
    "return_item": ("exchange_item", "complaint", "refund_status"),
    "refund_status": ("order_status", "return_item", "invoice"),
    "exchange_item": ("return_item", "complaint"),
    "product_question": ("stock_check", "out_of_scope"),
    "stock_check": ("product_question", "order_status"),
    "invoice": ("refund_status", "order_status"),
    "complaint": ("return_item", "order_status", "exchange_item", "human_agent"),
    "human_agent": ("complaint", "greeting", "out_of_scope"),
    "greeting": ("out_of_scope", "thanks", "human_agent"),
    "thanks": ("greeting", "out_of_scope"),
    "out_of_scope": ("product_question", "greeting", "human_agent"),
}
MARKS = str.maketrans({'"': "'"})


def wrong_intent(utterance: "Utterance", rng: Random) -> str | None:
    """Another intent; slots that it does not have are left out."""
    intent = rng.choice(CONFUSABLE[utterance.intent])
    slots = {slot: value for slot, value in utterance.slots.items() if slot in SLOTS_OF[intent]}
    return label_json({"intent": intent, "slots": slots})


def slot_dropped(utterance: "Utterance", rng: Random) -> str | None:
    """One slot less; None where there is none."""
    if not utterance.slots:
        return None
    lost = rng.choice(list(utterance.slots))
    slots = {slot: value for slot, value in utterance.slots.items() if slot != lost}
    return label_json({"intent": utterance.intent, "slots": slots})


def other_value(slot: str, language: str, rng: Random) -> str:
    """A value for a slot out of the lists that the training split is filled from."""
    if slot == "reason":
        return rng.choice(list(REASONS))
    if slot == "order_id":
        return rng.choice(["KM", "LT", "RX", "BQ"]) + "".join(rng.choices("0123456789", k=6))
    return rng.choice(lists()[language]["amount_digits" if slot == "amount" else slot]["common"])


def slot_invented(utterance: "Utterance", rng: Random) -> str | None:
    """One slot more, with something that the customer did not write; None where the intent is full."""
    free = [slot for slot in SLOTS_OF[utterance.intent] if slot not in utterance.slots]
    if not free:
        return None
    slot = rng.choice(free)
    value = other_value(slot, utterance.language, rng)
    if same_value(value) in same_value(utterance.text):
        return None
    return label_json({"intent": utterance.intent, "slots": {**utterance.slots, slot: value}})


def altered(slot: str, value: str, language: str, rng: Random) -> str:
    """A value that looks like the right one."""
    digits = [place for place, letter in enumerate(value) if letter.isascii() and letter.isdigit()]
    if slot != "reason" and digits and rng.random() < 0.6:
        place = rng.choice(digits)
        return value[:place] + str((int(value[place]) + rng.randint(1, 9)) % 10) + value[place + 1 :]
    if slot in ("address", "order_id") and len(value) > 4 and rng.random() < 0.7:
        return value[: rng.randint(len(value) // 2, len(value) - 1)].strip(" ,-")
    return other_value(slot, language, rng)


def slot_altered(utterance: "Utterance", rng: Random) -> str | None:
    """One value changed; None where there is no slot, or where the change came out the same."""
    if not utterance.slots:
        return None
    slot = rng.choice(list(utterance.slots))
    value = altered(slot, utterance.slots[slot], utterance.language, rng)
    if not value or same_value(value) == same_value(utterance.slots[slot]):
        return None
    return label_json({"intent": utterance.intent, "slots": {**utterance.slots, slot: value}})


def invalid_json(utterance: "Utterance", rng: Random) -> str | None:
    """The gold label, spoilt."""
    gold = utterance.label
    talk = "Sure! Here is the label: " if utterance.language == "en" else "好的，结果如下："
    return rng.choice(
        [
            gold[:-1],
            gold[:-2],
            gold.translate(MARKS),
            talk + gold,
            gold + gold,
            gold.replace("{", "", 1),
            gold[:-2] + ",}}",
        ]
    )


KINDS: dict[str, Callable[["Utterance", Random], str | None]] = {
    "wrong_intent": wrong_intent,
    "slot_dropped": slot_dropped,
    "slot_invented": slot_invented,
    "slot_altered": slot_altered,
    "invalid_json": invalid_json,
}


def preference_pairs(
    utterances: Iterable["Utterance"], seed: int = 0, kinds: Sequence[str] = tuple(KINDS), each: int = 1
) -> list[Preference]:
    """`each` pairs of different kinds for every utterance, fewer where an utterance allows fewer kinds.

    Every utterance has a random generator of its own, seeded with its id: a subset gives the same pairs. Raises
    KeyError for an unknown kind, and for utterances that are not the shop's.
    """
    pairs = []
    for utterance in utterances:
        rng = Random(f"preferences/{seed}/{utterance.id}")
        made = 0
        for kind in rng.sample(list(kinds), len(kinds)):
            rejected = KINDS[kind](utterance, rng) if made < each else None
            if rejected is not None:
                pairs.append(Preference(utterance.text, utterance.label, rejected, f"{utterance.id}/{kind}"))
                made += 1
    return pairs


def kind_of(pair: Preference) -> str:
    """Which kind of wrong answer a pair has."""
    return pair.id.rpartition("/")[2]
