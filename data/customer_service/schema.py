"""What a label may be: the intents, the slots each of them may carry, and the same as JSON Schema.

    {"intent": "return_item", "slots": {"order_id": "KM204817", "product": "desk lamp", "reason": "damaged"}}

A slot's value is copied from the utterance, letter by letter; only `reason` is one of nine codes. So the model copies,
and code computes (`normalise.py` for order numbers). README.md has the annotation guidelines.
"""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

SLOTS_OF = {  # intent -> the slots it may carry, in the order in which they are written
    "order_status": ("order_id", "product", "date"),
    "cancel_order": ("order_id", "product", "reason", "date"),
    "change_address": ("order_id", "product", "address"),
    "return_item": ("order_id", "product", "reason", "date"),
    "refund_status": ("order_id", "product", "date", "amount"),
    "exchange_item": ("order_id", "product", "reason", "date"),
    "product_question": ("product",),
    "stock_check": ("product",),
    "invoice": ("order_id", "product", "date", "amount"),
    "complaint": ("order_id", "product", "reason", "date", "amount"),
    "human_agent": ("order_id",),
    "greeting": (),
    "thanks": (),
    "out_of_scope": (),
}
INTENTS = tuple(SLOTS_OF)
ACTIONABLE = INTENTS[:11]  # what greeting, thanks and out_of_scope give way to in the same utterance
SLOTS = ("order_id", "product", "reason", "address", "date", "amount")
REASONS = {
    "damaged": "broken, dirty or spoilt on arrival, or it does not work",
    "wrong_item": "something else was sent: another product, colour or model, but not merely another size",
    "wrong_size": "too big, too small, does not fit; also where another size than the ordered one was sent",
    "missing_parts": "a part, an accessory or one of several pieces is not there",
    "not_as_described": "not like the page or the picture, or worse than promised",
    "late": "comes too late, or has not come",
    "changed_mind": "not needed any more, ordered by mistake or twice, does not like it",
    "price": "cheaper elsewhere, the price fell, charged too much or twice",
    "service": "staff or courier: rude, no answer, a broken promise, left at the wrong door",
}


@dataclass(frozen=True)
class Label:
    """An intent and its slots. Equal labels have equal values; the order of the slots does not matter."""

    intent: str
    slots: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The one way a label is written: slots in the order of `SLOTS_OF`, nothing escaped but JSON's own."""
        return label_json({"intent": self.intent, "slots": self.slots})


def label_json(label: Mapping[str, Any]) -> str:
    """A label as text, its slots in canonical order; unknown slots, as in wrong answers, come last."""
    order = SLOTS_OF.get(label["intent"], ()) + SLOTS
    slots = dict(sorted(label["slots"].items(), key=lambda item: order.index(item[0]) if item[0] in order else 99))
    return json.dumps({"intent": label["intent"], "slots": slots}, ensure_ascii=False)


def label_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a label, as it lies in label.schema.json."""
    text = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^\S(.*\S)?$"}
    properties: dict[str, Any] = {slot: text for slot in SLOTS}
    properties["reason"] = {"enum": list(REASONS)}
    rules = [
        {
            "if": {"properties": {"intent": {"const": intent}}},
            "then": {
                "properties": {"slots": {"propertyNames": {"enum": list(slots)}} if slots else {"maxProperties": 0}}
            },
        }
        for intent, slots in SLOTS_OF.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What a customer of the shop wants",
        "type": "object",
        "required": ["intent", "slots"],
        "additionalProperties": False,
        "properties": {
            "intent": {"enum": list(INTENTS)},
            "slots": {"type": "object", "additionalProperties": False, "properties": properties},
        },
        "allOf": rules,
    }


@cache
def _validator() -> Any:
    import jsonschema  # a third of a second, at the start of every program that uses `data`

    return jsonschema.Draft202012Validator(label_schema())


def label_errors(label: Any) -> list[str]:
    """What is wrong with a label, in words; an empty list when nothing is."""
    if not isinstance(label, dict):
        return [f"a label is an object with intent and slots, not {json.dumps(label, ensure_ascii=False)[:40]}"]
    missing = [f"missing field {name}" for name in ("intent", "slots") if name not in label]
    if missing:
        return missing
    intent, slots = label["intent"], label["slots"]
    if not isinstance(intent, str) or intent not in SLOTS_OF:
        return [f"unknown intent {intent!r}"]
    if not isinstance(slots, dict):
        return ["slots is not an object"]
    errors = [f"unknown slot {name!r}" for name in slots if name not in SLOTS]
    errors += [f"{intent} has no slot {name}" for name in slots if name in SLOTS and name not in SLOTS_OF[intent]]
    if "reason" in slots and slots["reason"] not in list(REASONS):
        errors.append(f"unknown reason {slots['reason']!r}")
    return errors or [error.message[:160] for error in _validator().iter_errors(label)]


def same_value(value: str) -> str:
    """What two slot values are compared by: full-width letters, case and runs of spaces do not count."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())
