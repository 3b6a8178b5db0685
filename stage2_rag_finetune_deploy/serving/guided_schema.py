"""The understanding task's labels as the kind of JSON Schema that a decoder can be held to.

`data/customer_service/label.schema.json` says which slots an intent may carry with if/then, which no engine turns
into a grammar. The same set of labels as alternatives: one object an intent, the intent constant, its slots closed.
"""

from typing import Any

from data.customer_service.schema import REASONS, SLOTS_OF

LONGEST = 60  # characters of a slot; the longest of the task has 37. Without a limit a lost model copies on and on


# exercise: serving.guided_schema
def guided_schema() -> dict[str, Any]:
    """One alternative an intent; slots in the order in which labels write them, none of them required."""
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "intent": {"const": intent},
                    "slots": {
                        "type": "object",
                        "properties": {slot: slot_schema(slot) for slot in slots},
                        "required": [],
                        "additionalProperties": False,
                    },
                },
                "required": ["intent", "slots"],
                "additionalProperties": False,
            }
            for intent, slots in SLOTS_OF.items()
        ]
    }
# end exercise


def slot_schema(slot: str) -> dict[str, Any]:
    """A reason is one of the codes, the rest is copied text."""
    return {"enum": list(REASONS)} if slot == "reason" else {"type": "string", "minLength": 1, "maxLength": LONGEST}
