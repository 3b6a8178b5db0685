"""A corpus that nobody has seen: real passages and questions whose ids, names and numbers are exchanged.

The labels of month 2's questions are public, so a server could look the answers up. Here every passage gets a random
id, capitalised words trade places with each other and numbers of three digits and more become other numbers, in
passages and questions alike. No question that is asked, and no passage that one is about, has its public text any
more; whoever really retrieves hardly notices.
"""

import random
import re
from dataclasses import dataclass

from data import RetrievalSet

NAME = re.compile(r"\b[A-Z][a-z]{3,}\b")
NUMBER = re.compile(r"\b\d{3,}\b")


@dataclass(frozen=True)
class FreshCorpus:
    """`corpus` maps a random id to a passage; `questions` are (text, id of its passage)."""

    corpus: dict[str, str]
    questions: list[tuple[str, str]]


def exchange(texts: list[str], rng: random.Random) -> dict[str, str]:
    """Which word stands for which: names for names, numbers for numbers of the same length; one to one.

    A word that also occurs in small letters is no name ("When", "City"), and stays.
    """
    small = {word for text in texts for word in re.findall(r"\b[a-z]{4,}\b", text)}
    names = sorted({name for text in texts for name in NAME.findall(text)} - {word.capitalize() for word in small})
    others = rng.sample(names, len(names))
    table = dict(zip(names, others, strict=True))
    for length in {len(number) for text in texts for number in NUMBER.findall(text)}:
        numbers = sorted({n for text in texts for n in NUMBER.findall(text) if len(n) == length})
        places = range(10 ** (length - 1), 10**length)
        drawn = rng.sample(places, len(numbers)) if length <= 15 else [int(n) for n in numbers]
        table |= {number: str(other) for number, other in zip(numbers, drawn, strict=True)}
    return table


def rewrite(text: str, table: dict[str, str]) -> str:
    """The text with every word of the table exchanged, all at once."""
    replaced = NAME.sub(lambda found: table.get(found[0], found[0]), text)
    return NUMBER.sub(lambda found: table.get(found[0], found[0]), replaced)


def fresh_corpus(labelled: RetrievalSet, rng: random.Random, passages: int, questions: int) -> FreshCorpus:
    """Draw passages, exchange their words, and draw questions about them whose text changed.

    Args:
        passages: how many; questions: how many, fewer where there are not as many.
    """
    drawn = rng.sample(sorted(labelled.corpus), passages)
    numbers = rng.sample(range(10**6), passages)
    ids = {passage: f"p{number:06d}" for passage, number in zip(drawn, numbers, strict=True)}
    single = {query: next(iter(gold)) for query, gold in labelled.qrels.items() if len(gold) == 1}
    about = {query: passage for query, passage in single.items() if passage in ids}
    table = exchange([labelled.corpus[p] for p in drawn] + [labelled.queries[q] for q in about], rng)
    corpus = {ids[passage]: rewrite(labelled.corpus[passage], table) for passage in drawn}
    changed = {passage for passage in drawn if corpus[ids[passage]] != labelled.corpus[passage]}
    texts = [(rewrite(labelled.queries[query], table), query) for query, passage in about.items() if passage in changed]
    usable = [(text, ids[about[query]]) for text, query in texts if text != labelled.queries[query]]
    return FreshCorpus(corpus, rng.sample(usable, min(questions, len(usable))))
