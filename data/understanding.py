"""Utterances with an intent and slots: the shop's customers in English and Chinese, and mindmeld's Kwik-E-Mart.

    data.load_understanding("customer-service-en", "train")[0].text   -> "hey my 快递 for KM134470 is stuck since ..."
    data.load_understanding("customer-service-en", "train")[0].label  -> '{"intent": "order_status", "slots": {...}}'

customer_service/README.md is the datasheet of the shop's sets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.customer_service.frames import SPLITS
from data.customer_service.schema import label_json
from data.kwik_e_mart import split_lines
from data.retrieval import fetch_folder
from labkit.cli import nearest
from labkit.errors import LabError

FOLDER = Path(__file__).with_name("customer_service") / "utterances"


@dataclass(frozen=True)
class Utterance:
    """What a customer wrote, and what it means.

    Attributes:
        id: `<voice>/<intent>/<frame>#<filling>` in the shop's sets.
        text: the utterance as it was typed.
        intent: one of the intents of its set.
        slots: slot -> value, copied from the text letter by letter; only `reason` is a code.
        language: "en" or "zh".
        voice: who wrote it; no voice is in two splits. Empty where nobody knows (kwik-e-mart).
    """

    id: str
    text: str
    intent: str
    slots: Mapping[str, str] = field(default_factory=dict)
    language: str = "en"
    voice: str = ""

    @property
    def label(self) -> str:
        """The JSON text that a model is to answer, slots in canonical order."""
        return label_json({"intent": self.intent, "slots": self.slots})


def read_customer_service(language: str, split: str) -> list[Utterance]:
    """One file of the shop's sets, as `python -m data.customer_service.generate` wrote it."""
    path = FOLDER / f"{language}-{split}.jsonl"
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Utterance(row["id"], row["text"], **row["label"], language=row["language"], voice=row["voice"]) for row in rows
    ]


def read_kwik_e_mart(split: str) -> list[Utterance]:
    """One split of mindmeld's set, as `kwik_e_mart.py` makes it."""
    return [
        Utterance(f"kwik-e-mart/{split}/{number}", line.text, line.intent, line.slots)
        for number, line in enumerate(split_lines(fetch_folder("kwik-e-mart"))[split], 1)
    ]


SETS = {
    "customer-service-en": lambda split: read_customer_service("en", split),
    "customer-service-zh": lambda split: read_customer_service("zh", split),
    "kwik-e-mart": read_kwik_e_mart,
}


def load_understanding(name: str, split: str = "train") -> list[Utterance]:
    """`customer-service-en`, `customer-service-zh`, or `kwik-e-mart`, which is fetched when absent.

    split: `train`, `validation` or `test`.

    Raises:
        LabError: there is no such set or split.
    """
    for word, known, what in ((name, list(SETS), "understanding set"), (split, list(SPLITS), "split")):
        if word not in known:
            raise LabError(f"no {what} is called {word!r}", nearest(word, known) or f"one of: {', '.join(known)}")
    return SETS[name](split)
