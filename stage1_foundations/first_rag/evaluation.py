"""Questions with known passages, questions without an answer, and the measures.

A corpus is cut so that three kinds of questions exist:

    answerable   the gold passage is in the index
    near         the article is in the index, its gold passage was left out: the topic is there, the answer is not
    far          the whole article was left out
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from llama_index.core.schema import NodeWithScore

from data import RetrievalSet
from labkit.errors import LabError
from labkit.runs import Run
from stage1_foundations.first_rag.rag import Answer, Citation
from stage1_foundations.first_rag.words import split_words

T = TypeVar("T")
# what a run at `cpu` or `study` should reach
BANDS = {
    "same_after_reload": (1.0, 1.0),
    "mrr_fusion": (0.7, None),
    "hit_rate_3": (0.8, None),
    "hit_rate_10": (0.9, None),
    "refused_far": (0.85, None),
    "answered": (0.6, None),
    "citation_holds": (0.6, None),
    "passage_holds": (0.7, None),
}


@dataclass(frozen=True)
class Exam:
    """A corpus to index and three lists of query ids; texts, qrels and answers are those of `labelled`."""

    labelled: RetrievalSet
    corpus: list[str]
    answerable: list[str]
    near: list[str]
    far: list[str]


def make_exam(labelled: RetrievalSet, articles: int, questions: int, unanswerable: int, seed: int = 1) -> Exam:
    """Draw articles to index, leave out every eighth of their passages, and draw questions of the three kinds.

    Passage ids are `article/number`, as in SQuAD. Questions are drawn over all articles alike.

    Args:
        articles: how many to index.
        questions: answerable ones.
        unanswerable: near ones, and as many far ones.

    Raises:
        LabError: the set has not that many articles, or none would be left out.
    """
    rng = random.Random(seed)
    names = sorted({passage.rpartition("/")[0] for passage in labelled.corpus})
    if not 0 < articles < len(names):
        raise LabError(f"--articles {articles} of {len(names)}", f"--articles 1 to {len(names) - 1}")
    inside = set(rng.sample(names, articles))
    passages = [passage for passage in labelled.corpus if passage.rpartition("/")[0] in inside]
    left_out = {passage for passage in passages if rng.random() < 1 / 8}
    indexed = set(passages) - left_out
    kinds: dict[str, list[str]] = {"answerable": [], "near": [], "far": []}
    for query, gold in labelled.qrels.items():
        kind = "answerable" if gold.keys() & indexed else "near" if gold.keys() & left_out else "far"
        kinds[kind].append(query)
    wanted = {"answerable": questions, "near": unanswerable, "far": unanswerable}
    drawn = {kind: rng.sample(ids, min(wanted[kind], len(ids))) for kind, ids in kinds.items()}
    return Exam(labelled, [passage for passage in passages if passage not in left_out], **drawn)


def halves(items: list[T]) -> tuple[list[T], list[T]]:
    """The first half calibrates, the second half is examined."""
    return items[: len(items) // 2], items[len(items) // 2 :]


def record_metric(run: Run, name: str, value: float, meaning: str) -> None:
    """A figure with its band from BANDS; `smoke` asks too few questions to have bands."""
    band = None if run.report["preset"] == "smoke" else BANDS.get(name)
    run.metric(name, value, "", band, meaning)


def ranked_sources(nodes: Sequence[NodeWithScore]) -> list[str]:
    """Documents in the order of their best node, each once."""
    return list(dict.fromkeys(str(item.node.ref_doc_id) for item in nodes))


# exercise: first_rag.reciprocal_rank
def reciprocal_rank(ranking: Sequence[str], gold: Sequence[str] | set[str] | dict[str, int], depth: int = 10) -> float:
    """1 / rank of the first gold passage among the first `depth`, else 0. Its mean over queries is MRR@depth."""
    for rank, passage in enumerate(ranking[:depth], start=1):
        if passage in gold:
            return 1 / rank
    return 0.0


# end exercise


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    words = re.sub(r"[^\w\s]", " ", text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def holds(text: str, answers: Sequence[str]) -> bool:
    """Whether the text contains one of the answers as whole words, after `normalise`."""
    padded = f" {normalise(text)} "
    return any(f" {wanted} " in padded for wanted in map(normalise, answers) if wanted)


def word_f1(text: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, the best over the answers (Rajpurkar et al. 2016)."""
    said = split_words(normalise(text))
    best = 0.0
    for answer in answers:
        wanted = split_words(normalise(answer))
        common = sum(min(said.count(word), wanted.count(word)) for word in set(wanted))
        best = max(best, 2 * common / (len(said) + len(wanted)) if common else 0.0)
    return best


def cited_text(answer: Answer) -> str:
    """What the answer points at: the quotes of its citations."""
    return " ".join(citation.quote for citation in answer.citations)


def cites_gold(citations: Sequence[Citation], gold: dict[str, int]) -> bool:
    """Whether a citation is one of the gold passages."""
    return any(citation.source in gold for citation in citations)


def share(flags: Sequence[bool]) -> float:
    """Share of true ones; 0 of none."""
    return float(np.mean(flags)) if len(flags) else 0.0


def interval(values: Sequence[float], seed: int = 1, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over questions (percentiles; Efron and Tibshirani 1993, chapter 13)."""
    array = np.asarray(values, dtype=float)
    means = array[np.random.default_rng(seed).integers(0, len(array), (draws, len(array)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def area_under_curve(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that an answerable question has more evidence than an unanswerable one; ties count half (AUC)."""
    p, n = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
    return float(((p > n) + 0.5 * (p == n)).mean())
