"""How far to trust a score: bootstrap intervals, and which models are tied with the best.

A benchmark score is a mean over the queries that somebody happened to collect. The bootstrap draws as many queries
again, with replacement, and computes the score anew, 1,000 times: the spread of those scores is the uncertainty
(Efron and Tibshirani 1993, chapter 13). Two models are compared on the same draws, query by query: hard queries are
hard for both, so the difference is known far better than either score (Koehn 2004; Smucker et al. 2007).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Items:
    """What a score is made of, in the same order for all models of a task.

    Attributes:
        kind: "mean" (a value a query), "spearman" (a similarity and a rating a pair) or "replicates" (the score of
            each resample that mteb drew itself: clustering).
        values: (N,) the model's values.
        gold: (N,) the ratings, for "spearman".
        sides: (N, 2) the numbers of the two texts of each pair, for "spearman".
    """

    kind: str
    values: np.ndarray
    gold: np.ndarray | None = None
    sides: np.ndarray | None = None


def resample_counts(n: int, draws: int, seed: int) -> np.ndarray:
    """How often each of `n` items occurs in each bootstrap resample: int (draws, n), every row sums to `n`.

    The same seed gives the same resamples, so that models are compared on the same draws.
    """
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)


def replicate_scores(items: Items, draws: int = DRAWS, seed: int = 1) -> np.ndarray:
    """The score on each resample, (draws,). The same seed and number of items give paired resamples."""
    if items.kind == "replicates":
        picked = np.random.default_rng(seed).integers(len(items.values), size=draws)
        return items.values[picked]
    if items.kind == "mean":
        counts = resample_counts(len(items.values), draws, seed)
        return counts @ items.values / len(items.values)
    return np.array([
        weighted_spearman(items.values, items.gold, weights) for weights in pair_weights(items, draws, seed)
    ])  # fmt: skip


def pair_weights(items: Items, draws: int, seed: int) -> np.ndarray:
    """How often each pair occurs in each resample, (draws, N).

    Where every text is paired with every other one (Lee), the pairs are not independent: 1,225 of them come from 50
    texts. Then the texts are drawn, and a pair counts as often as the product of its texts.
    """
    texts = int(items.sides.max()) + 1
    if len(items.sides) < texts * (texts - 1) // 2:
        return resample_counts(len(items.values), draws, seed)
    counts = resample_counts(texts, draws, seed)
    return counts[:, items.sides[:, 0]] * counts[:, items.sides[:, 1]]


def weighted_spearman(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Spearman's correlation where item i occurs weights[i] times."""
    from scipy.stats import rankdata  # a second to import, and most commands only want a mean's interval

    rows = np.repeat(np.arange(len(first)), weights)
    a, b = rankdata(first[rows]), rankdata(second[rows])
    return float(np.corrcoef(a, b)[0, 1])


def interval(replicates: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval: the middle `level` of the replicates."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: Sequence[float] | np.ndarray, seed: int = 1) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of one value an item."""
    return interval(replicate_scores(Items("mean", np.asarray(values, float)), seed=seed))


def percent_with_interval(values: Sequence[float] | np.ndarray, seed: int = 1) -> str:
    """A mean of shares with its interval: "62.0 % (55.5 to 68.0)"."""
    low, high = mean_interval(values, seed)
    return f"{100 * np.mean(values):.1f} % ({100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True)
class Comparison:
    """The difference of two models on the same items, its 95 % interval, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


# exercise: embeddings.paired_bootstrap
def paired_bootstrap(first: np.ndarray, second: np.ndarray, draws: int = 10_000, seed: int = 1) -> Comparison:
    """Whether `second` is better than `first`: values of the same N items under two models.

    The N differences are resampled. The p-value is twice the smaller share of resamples on one side of zero, with
    one resample added to both so that it is never 0 (Davison and Hinkley 1997, section 4.2).

    Args:
        first: (N,) values before, or of the best model.
        second: (N,) values after, or of the other model, in the same order.
    """
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    n = len(differences)
    means = np.concatenate([
        resample_counts(n, min(1000, draws - start), seed + start) @ differences / n for start in range(0, draws, 1000)
    ])  # fmt: skip
    smaller = min((means <= 0).sum(), (means >= 0).sum())
    low, high = interval(means)
    return Comparison(float(differences.mean()), low, high, min(1.0, 2 * float(smaller + 1) / (draws + 1)))
# end exercise


def over_repetitions(gains: Sequence[float]) -> Comparison:
    """The mean gain of a few repetitions, one value a seed, its 95 % interval and p against 0, by Student's t.

    Interval and p are nan for a single repetition; repetitions that are all alike have an interval without width.
    """
    values = np.asarray(gains, float)
    mean = float(values.mean())
    if len(values) < 2:
        return Comparison(mean, float("nan"), float("nan"), float("nan"))
    from scipy.stats import ttest_1samp

    test = ttest_1samp(values, 0)
    low, high = test.confidence_interval(LEVEL) if values.std() > 0 else (mean, mean)
    return Comparison(mean, float(low), float(high), float(test.pvalue))


def tied_with_best(replicates: dict[str, np.ndarray], scores: dict[str, float]) -> set[str]:
    """The models that cannot be told from the best one: 2.5 % of the paired resamples or more put them above it."""
    best = max(scores, key=lambda name: scores[name])
    tied = {best}
    for name in scores:
        low, _ = interval(replicates[best] - replicates[name])
        if low <= 0:
            tied.add(name)
    return tied
