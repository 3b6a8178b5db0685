"""Is a judge worth its verdicts? Agreement with people, position bias, verbosity bias.

A judge that gives everything 7 has no parse failures and no bias; only agreement tells it from a good one. Kappa is
Cohen's with quadratic weights: 1 is agreement, 0 is what chance gives, and calling a 9 a 10 costs little.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data import JudgedAnswer
from stage2_rag_finetune_deploy.rag.evaluation.judge import CRITERIA, HIGHEST, LOWEST, Case, Judge, Verdict

PADDING = {
    "en": "Thank you for this excellent question! We are always happy to help. {} As said before, we hope that this "
    "helps, and we thank you once more for your excellent question.",
    "zh": "感谢您的提问，您的问题非常好！我们始终乐意为您效劳。{}如上所述，希望能够帮到您，再次感谢您的提问与支持。",
}


@dataclass(frozen=True)
class Agreement:
    """One criterion: weighted kappa, Spearman's correlation (0 where the judge is constant), mean difference."""

    kappa: float
    spearman: float
    difference: float  # judge minus people, in points


def case_of(answer: JudgedAnswer) -> Case:
    """The judged answer's question as a judge sees it."""
    return Case(answer.question, answer.passage, answer.reference, answer.language)


def agreement(answers: Sequence[JudgedAnswer], verdicts: Sequence[Verdict | None]) -> dict[str, Agreement]:
    """Per criterion, over the readable verdicts.

    Raises:
        ValueError: fewer than two verdicts can be read.
    """
    from scipy.stats import spearmanr  # both take a second to import
    from sklearn.metrics import cohen_kappa_score

    pairs = [(answer.scores, verdict) for answer, verdict in zip(answers, verdicts, strict=True) if verdict]
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} readable verdicts")
    rows = {}
    for criterion in CRITERIA:
        people = np.array([scores[criterion] for scores, _ in pairs])
        judged = np.array([getattr(verdict, criterion) for _, verdict in pairs])
        scale = list(range(LOWEST, HIGHEST + 1))
        kappa = cohen_kappa_score(people, judged, weights="quadratic", labels=scale)
        constant = len(set(judged)) == 1 or len(set(people)) == 1
        correlation = 0.0 if constant else float(spearmanr(people, judged).statistic)
        rows[criterion] = Agreement(float(kappa), correlation, float((judged - people).mean()))
    return rows


@dataclass(frozen=True)
class PositionBias:
    """Both orders of every pair were asked.

    Attributes:
        flips: share of pairs whose winner changed with the order.
        first: share of all verdicts that went to the answer shown first; 0.5 without bias.
        right: share of verdicts for the answer that people scored higher.
        unreadable: share of replies without a verdict.
    """

    flips: float
    first: float
    right: float
    unreadable: float


def position_bias(judge: Judge, answers: Sequence[JudgedAnswer]) -> PositionBias:
    """Compare the good answer of every question with each other one, in both orders."""
    good = {answer.question: answer for answer in answers if answer.kind == "good"}
    flips, first, right, asked, unread = [], [], [], 0, 0
    for answer in answers:
        best = good[answer.question]
        if answer is best:
            continue
        case = case_of(answer)
        forward = judge.prefer(case, best.text, answer.text)
        backward = judge.prefer(case, answer.text, best.text)
        asked += 2
        unread += (forward is None) + (backward is None)
        first += [winner == 0 for winner in (forward, backward) if winner is not None]
        right += [forward == 0] * (forward is not None) + [backward == 1] * (backward is not None)
        if forward is not None and backward is not None:
            flips.append(forward == backward)  # the same place won twice: the winner changed
    mean = lambda values: float(np.mean(values)) if values else 0.0  # noqa: E731
    return PositionBias(mean(flips), mean(first), mean(right), unread / max(1, asked))


def verbosity_bias(judge: Judge, answers: Sequence[JudgedAnswer]) -> float:
    """How many points (mean of the criteria) a good answer gains when empty phrases are put around it.

    People take points off for them, so anything above 0 is a bribe by length.
    """
    gains = []
    for answer in answers:
        if answer.kind == "good":
            plain = judge.score(case_of(answer), answer.text)
            padded = judge.score(case_of(answer), PADDING[answer.language].format(answer.text))
            if plain and padded:
                gains.append(padded.mean - plain.mean)
    return float(np.mean(gains)) if gains else 0.0
