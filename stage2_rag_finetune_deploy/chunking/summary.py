"""An exam's results as a table: means with bootstrap intervals, each row tested against the right chunker.

The test is paired: all chunkers answer the same questions, so what is resampled are the differences question by
question. As many tests as rows would find something by chance: the p-values are corrected by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from stage1_foundations.embeddings.bootstrap import Items, interval, paired_bootstrap, replicate_scores
from stage2_rag_finetune_deploy.chunking.measure import Result

MEASURES = ("mrr", "recall", "ndcg", "budget_recall", "cut")
ALPHA = 0.05


@dataclass(frozen=True)
class Line:
    """A row of the table: shares from 0 to 1, sizes in tokens, seconds.

    Attributes:
        low, high: 95 % bootstrap interval of the MRR, over questions.
        behind: what the right chunker has more, in MRR; negative where this row is better. None in its own line.
        p: of that difference, two-sided, corrected for the number of rows.
    """

    name: str
    role: str
    chunks: int
    median_size: int
    largest: int
    cut: float
    mrr: float
    low: float
    high: float
    recall: float
    ndcg: float
    budget_recall: float
    cut_seconds: float
    index_seconds: float
    behind: float | None = None
    p: float | None = None

    @property
    def verdict(self) -> str:
        """Against the right chunker: "worse", "better", or "" where no difference is shown."""
        if self.p is None or self.p >= ALPHA:
            return ""
        return "worse" if self.behind > 0 else "better"

    def as_json(self) -> dict:
        """All fields, and the verdict."""
        return asdict(self) | {"verdict": self.verdict}


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the chance of even one false find stays what it was for one.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than the one before it,
    and none larger than 1. The order of the answer is that of the arguments.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def summarise(results: Sequence[Result]) -> list[Line]:
    """The table's lines, in the order of the results, of which exactly one is the right chunker's."""
    (right,) = (result for result in results if result.row.role == "right")
    others = [result for result in results if result is not right]
    tests = [paired_bootstrap(result.values("mrr"), right.values("mrr")) for result in others]
    corrected = dict(zip((id(result) for result in others), holm([test.p for test in tests]), strict=True))
    behind = {id(result): test.difference for result, test in zip(others, tests, strict=True)}
    return [line(result, behind.get(id(result)), corrected.get(id(result))) for result in results]


def line(result: Result, behind: float | None, p: float | None) -> Line:
    """One line."""
    means = {name: float(result.values(name).mean()) for name in MEASURES}
    low, high = interval(replicate_scores(Items("mean", result.values("mrr"))))
    return Line(
        result.row.name, result.row.role, result.chunks, int(np.median(result.sizes)), max(result.sizes),
        low=low, high=high, cut_seconds=result.cut_seconds, index_seconds=result.cut_seconds + result.embed_seconds,
        behind=behind, p=p, **means,
    )  # fmt: skip


def sentence_about(exam: str, lines: Sequence[Line]) -> str:
    """What the table says, in words: whom the right chunker beats, and whom it does not."""
    right = next(line for line in lines if line.role == "right")
    groups = {verdict: [line.name for line in lines if line.p is not None and line.verdict == verdict]
              for verdict in ("worse", "better", "")}  # fmt: skip
    parts = [f"{exam}: {right.name} has MRR@10 {right.mrr:.2f}"]
    if groups["worse"]:
        parts.append(f"beats {', '.join(groups['worse'])}")
    if groups["better"]:
        parts.append(f"loses to {', '.join(groups['better'])}")
    if groups[""]:
        parts.append(f"shows no difference to {', '.join(groups[''])}")
    return "; ".join(parts) + "."
