"""What a model's reply is worth to the grader: exact match with the label, and the paired test over two models.

The learner writes functions like these in the lab `finetune`; the grader has its own.
"""

import json
from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest

from data.customer_service.schema import same_value
from data.understanding import Utterance


def first_object(reply: str) -> dict[str, Any] | None:
    """The JSON object that begins at the first brace of a reply; None where there is none."""
    try:
        found, _ = json.JSONDecoder().raw_decode(reply, reply.index("{"))
    except (ValueError, RecursionError):
        return None
    return found


def is_exact(reply: str, gold: Utterance) -> bool:
    """Intent and all slots as the label has them; letter case and runs of spaces aside."""
    label = first_object(reply)
    if label is None or label.get("intent") != gold.intent or not isinstance(label.get("slots"), dict):
        return False
    given = {(name, same_value(str(value))) for name, value in label["slots"].items()}
    return given == {(name, same_value(value)) for name, value in gold.slots.items()}


def mcnemar_p(base: Sequence[bool], tuned: Sequence[bool]) -> float:
    """Two-sided p of McNemar's exact test; 1 where no utterance tells the two apart."""
    wins = sum(b and not a for a, b in zip(base, tuned, strict=True))
    losses = sum(a and not b for a, b in zip(base, tuned, strict=True))
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
