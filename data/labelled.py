"""Texts with labels, pairs with human similarity scores, and sentences with their translations."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.retrieval import fetch_folder
from labkit.cli import nearest
from labkit.errors import LabError

# the six coarse classes of Li and Roth 2002, by TREC's codes
QUESTION_CLASSES = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}


@dataclass(frozen=True)
class LabelledTexts:
    """`labels[i]` is the class of `texts[i]`; every text occurs once."""

    name: str
    language: str
    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class SimilarityPairs:
    """`scores[i]` is what people said about how alike `first[i]` and `second[i]` are; larger is more alike."""

    name: str
    language: str
    first: list[str]
    second: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Bitext:
    """`second[i]` is the translation of `first[i]`; no sentence occurs twice on its side."""

    name: str
    languages: tuple[str, str]
    first: list[str]
    second: list[str]


def read_question_types(folder: Path) -> LabelledTexts:
    """TREC questions with their coarse class (Li and Roth 2002). The file repeats most of them three times."""
    label_of: dict[str, str] = {}
    for line in (folder / "question_labels.txt").read_text(encoding="latin-1").splitlines():
        label, _, question = line.partition(" ")
        question = "".join(letter if letter.isascii() else " " for letter in question)
        label_of.setdefault(question.strip(), QUESTION_CLASSES[label.partition(":")[0]])
    return LabelledTexts("question-types", "en", list(label_of), list(label_of.values()))


def read_call_intents(folder: Path) -> LabelledTexts:
    """What people say to a Chinese collection call centre, with the intent. Texts with two intents are left out."""
    intents_of: dict[str, set[str]] = {}
    for intent, texts in json.loads((folder / "intends2.json").read_text(encoding="utf-8")).items():
        for text in texts:
            intents_of.setdefault(text.strip(), set()).add(intent)
    single = {text: next(iter(intents)) for text, intents in intents_of.items() if len(intents) == 1}
    return LabelledTexts("call-intents", "zh", list(single), list(single.values()))


def read_lee(folder: Path) -> SimilarityPairs:
    """Lee, Pincombe and Welsh 2005: 50 news texts, each of the 1,225 pairs rated by 8 to 12 people from 0 to 1."""
    texts = (folder / "lee.cor").read_text(encoding="latin-1").split("\n")
    upper = np.loadtxt(folder / "similarities0-1.txt")  # (50, 50), zero below the diagonal
    rows, columns = np.triu_indices(len(texts), k=1)
    first, second = [texts[row] for row in rows], [texts[column] for column in columns]
    return SimilarityPairs("lee", "en", first, second, upper[rows, columns].tolist())


def read_wordsim(folder: Path) -> SimilarityPairs:
    """WordSim-353 (Finkelstein et al. 2002): pairs of words, rated from 0 to 10."""
    lines = (folder / "wordsim353.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    scores = [float(row[2]) for row in rows]
    return SimilarityPairs("wordsim353", "en", [row[0] for row in rows], [row[1] for row in rows], scores)


def read_tatoeba(folder: Path) -> Bitext:
    """Tatoeba's English-Spanish pairs, shortest first. A sentence with several translations keeps the first one."""
    seen: tuple[set[str], set[str]] = (set(), set())
    kept: list[tuple[str, str]] = []
    for line in (folder / "spa.tsv").read_text(encoding="utf-8").split("\n"):
        english, _, rest = line.partition("\t")
        spanish = rest.partition("\t")[0]
        if english and english not in seen[0] and spanish not in seen[1]:
            kept.append((english, spanish))
            seen[0].add(english)
            seen[1].add(spanish)
    return Bitext("tatoeba-en-es", ("en", "es"), [pair[0] for pair in kept], [pair[1] for pair in kept])


# name -> (asset, reader)
LABELLED = {
    "question-types": ("question-types", read_question_types),
    "call-intents": ("call-intents", read_call_intents),
}
SIMILARITY = {"lee": ("human-similarity", read_lee), "wordsim353": ("human-similarity", read_wordsim)}
BITEXT = {"tatoeba-en-es": ("glove-tatoeba", read_tatoeba)}


def load_labelled(name: str) -> LabelledTexts:
    """`question-types` (English, 6 classes) or `call-intents` (Chinese, 64 classes), fetched when absent.

    Raises:
        LabError: there is no such set.
    """
    return _load(LABELLED, name, "labelled set")


def load_similarity(name: str) -> SimilarityPairs:
    """`lee` (pairs of news texts) or `wordsim353` (pairs of words), fetched when absent.

    Raises:
        LabError: there is no such set.
    """
    return _load(SIMILARITY, name, "similarity set")


def load_bitext(name: str) -> Bitext:
    """`tatoeba-en-es`, fetched when absent.

    Raises:
        LabError: there is no such set.
    """
    return _load(BITEXT, name, "bitext")


def _load(sets: dict[str, tuple[str, Callable[[Path], Any]]], name: str, what: str) -> Any:
    if name not in sets:
        advice = nearest(name, list(sets)) or f"one of: {', '.join(sets)}"
        raise LabError(f"no {what} is called {name!r}", advice)
    asset, read = sets[name]
    return read(fetch_folder(asset))
