"""An exam's results as a table: means with bootstrap intervals, each row tested against the right chunker.

Two measures are tested, because neither alone is fair to all sizes: MRR@10 favours large chunks (ten of them hold half
the corpus), the answers within 1,000 tokens favour chunks that waste none. The tests are paired: all chunkers answer
the same questions, so what is resampled are the differences question by question. So many tests would find something
by chance: the p-values of a measure are corrected by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from stage1_foundations.embeddings.bootstrap import mean_interval, paired_bootstrap
from stage2_rag_finetune_deploy.chunking.measure import Result

MEASURES = ("mrr", "recall", "ndcg", "budget_recall", "cut")
TESTED = {"by_rank": "mrr", "by_budget": "budget_recall"}
ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """What the right chunker has more than a row, in one measure; negative where the row is better.

    Attributes:
        p: two-sided, corrected for the number of rows.
    """

    behind: float
    p: float

    @property
    def verdict(self) -> str:
        """The row against the right chunker: "worse", "better", or "" where no difference is shown."""
        return "" if self.p >= ALPHA else "worse" if self.behind > 0 else "better"


@dataclass(frozen=True)
class Line:
    """A row of the table: shares from 0 to 1, sizes in tokens, seconds.

    Attributes:
        low, high: 95 % bootstrap interval of the MRR, over questions.
        by_rank, by_budget: against the right chunker, in `mrr` and in `budget_recall`; None in its own line.
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
    by_rank: Difference | None = None
    by_budget: Difference | None = None

    def as_json(self) -> dict:
        """All fields, with verdicts."""
        verdicts = {name: getattr(self, name).verdict for name in TESTED if getattr(self, name)}
        return asdict(self) | {"verdicts": verdicts}


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
    found: dict[int, dict[str, Difference]] = {id(result): {} for result in results}
    for name, measure in TESTED.items():
        tests = [paired_bootstrap(result.values(measure), right.values(measure)) for result in others]
        corrected = holm([test.p for test in tests])
        for result, test, p in zip(others, tests, corrected, strict=True):
            found[id(result)][name] = Difference(test.difference, p)
    return [line(result, found[id(result)]) for result in results]


def line(result: Result, differences: dict[str, Difference]) -> Line:
    """One line."""
    means = {name: float(result.values(name).mean()) for name in MEASURES}
    low, high = mean_interval(result.values("mrr"))
    return Line(
        result.row.name, result.row.role, result.chunks, int(np.median(result.sizes)), max(result.sizes),
        low=low, high=high, cut_seconds=result.cut_seconds, index_seconds=result.cut_seconds + result.embed_seconds,
        **means, **differences,
    )  # fmt: skip


def sentence_about(exam: str, lines: Sequence[Line]) -> str:
    """What the table says, in words: whom the right chunker beats, in which measure, and whom it does not."""
    right = next(line for line in lines if line.role == "right")
    others = [line for line in lines if line is not right]
    parts = [f"{exam}: {right.name} finds MRR@10 {right.mrr:.2f}, within the budget {right.budget_recall:.0%}"]
    for verdict, words in (("worse", "beats"), ("better", "loses to")):
        for name, measure in (("by_rank", "by MRR"), ("by_budget", "within the budget")):
            names = [line.name for line in others if getattr(line, name).verdict == verdict]
            if names:
                parts.append(f"{words} {', '.join(names)} {measure}")
    ties = [line.name for line in others if not line.by_rank.verdict and not line.by_budget.verdict]
    if ties:
        parts.append(f"shows no difference to {', '.join(ties)}")
    return "; ".join(parts) + "."
