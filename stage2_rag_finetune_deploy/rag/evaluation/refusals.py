"""Does the RAG refuse what its passage does not answer, and answer what it does?

Each question comes with one passage, so that retrieval cannot be to blame. Half of the questions have no answer there:
people wrote them so that they read like the others (data/answerability.py), with the passage's own names and words.
A threshold is always found on one half of the questions and tested on the other: on the questions that it was chosen
for, every threshold looks better than it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.answerability import AnswerabilitySet
from labkit.progress import progress
from stage1_foundations.embeddings.bootstrap import mean_interval
from stage1_foundations.first_rag.evidence import calibrate
from stage2_rag_finetune_deploy.rag.answering import Answer, Passage, answer_events
from stage2_rag_finetune_deploy.rag.pipeline import Rag

ALWAYS = -1.0  # a threshold below any evidence


@dataclass(frozen=True)
class Asked:
    """What happened to every question when no threshold stood in the way.

    Attributes:
        evidence: (N,) what the gate would have seen.
        given_up: (N,) whether the answerer refused by itself: it wrote so, or no passage holds what it wrote.
        answerable: (N,) the label.
    """

    evidence: np.ndarray
    given_up: np.ndarray
    answerable: np.ndarray

    def part(self, chosen: np.ndarray) -> "Asked":
        """Some of the questions."""
        return Asked(self.evidence[chosen], self.given_up[chosen], self.answerable[chosen])

    def refused(self, threshold: float) -> np.ndarray:
        """(N,) whether each question is refused at a threshold."""
        return self.given_up | (self.evidence < threshold)


@dataclass(frozen=True)
class Shares:
    """Of the answerable questions those answered, of the unanswerable ones those refused, with 95 % intervals."""

    threshold: float
    answered: float
    answered_interval: tuple[float, float]
    refused: float
    refused_interval: tuple[float, float]


def ask_each(rag: Rag, labelled: AnswerabilitySet, pairs: int) -> Asked:
    """Ask the first `pairs` answerable and the first `pairs` unanswerable questions, each with its passage alone."""
    label = np.array(labelled.answerable)
    chosen = sorted(np.concatenate([np.flatnonzero(label)[:pairs], np.flatnonzero(~label)[:pairs]]).tolist())
    evidence, given_up = [], []
    for number in progress(chosen, description="ask with one passage"):
        question, passage = labelled.questions[number], Passage(str(number), labelled.contexts[number], 1.0)
        strength = rag.evidence(question, [passage])
        events = answer_events(question, [passage], strength, ALWAYS, rag.answerer)
        evidence.append(strength)
        given_up.append(next(event.refused for event in events if isinstance(event, Answer)))
    return Asked(np.array(evidence), np.array(given_up, dtype=bool), label[chosen])


def shares_at(asked: Asked, threshold: float) -> Shares:
    """Both shares at a threshold.

    Raises:
        ValueError: there are no answerable or no unanswerable questions.
    """
    if asked.answerable.all() or not asked.answerable.any():
        raise ValueError("both kinds of questions are needed")
    refused = asked.refused(threshold)
    answered_ones, refused_ones = ~refused[asked.answerable], refused[~asked.answerable]
    return Shares(threshold, answered_ones.mean(), band_of(answered_ones), refused_ones.mean(), band_of(refused_ones))


def band_of(flags: Sequence[bool] | np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of a share."""
    return mean_interval(flags)


def best_of_half(asked: Asked, seed: int = 1) -> Shares:
    """The threshold with the best balanced accuracy on one half of each kind; both shares on the other half."""
    rng = np.random.default_rng(seed)
    found_on = np.zeros(len(asked.answerable), dtype=bool)
    for kind in (asked.answerable, ~asked.answerable):
        places = rng.permutation(np.flatnonzero(kind))
        found_on[places[: len(places) // 2]] = True
    half = asked.part(found_on)
    threshold = calibrate(seen_by_gate(half)[half.answerable], seen_by_gate(half)[~half.answerable])
    return shares_at(asked.part(~found_on), threshold)


def seen_by_gate(asked: Asked) -> np.ndarray:
    """(N,) the evidence, and the least of all where the answerer refuses anyway: no threshold lets that through."""
    return np.where(asked.given_up, ALWAYS, asked.evidence)


def area(asked: Asked) -> float:
    """Chance that an answerable question has more evidence than an unanswerable one: 0.5 says nothing."""
    from sklearn.metrics import roc_auc_score  # half a second to import

    return float(roc_auc_score(asked.answerable, seen_by_gate(asked)))
