"""pass^k: how likely an agent is to solve the same task k times out of k.

pass@k asks whether one of k tries succeeds, which suits a programmer who picks the try that works. A customer has one
try, and the shop has thousands of customers: what counts is that it works every time. Yao et al. 2024, tau-bench,
section 2: https://arxiv.org/abs/2406.12045
"""

from collections.abc import Iterable
from math import comb


# exercise: agent.pass_power
def pass_power(trials: int, solved: int, k: int) -> float:
    """The unbiased estimate of pass^k from `solved` out of `trials` tries at one task: C(c, k) / C(n, k).

    (c / n) ** k would be too high: it takes the share that was measured for the true one, and with few trials the two
    differ. C(c, k) / C(n, k) is the share of k-subsets of the trials in which every one is solved.

    Args:
        trials: n, tries that count (an unreachable server is no try).
        solved: c, how many of them were solved.
        k: between 1 and `trials`.

    Raises:
        ValueError: impossible numbers.
    """
    if not (0 <= solved <= trials and 1 <= k <= trials):
        raise ValueError(f"pass^{k} of {solved} out of {trials} trials")
    return comb(solved, k) / comb(trials, k)


# end exercise


def mean_pass_power(tasks: Iterable[tuple[int, int]], k: int) -> float | None:
    """The mean over tasks, each (trials, solved), of those with k trials or more; None where there is none."""
    figures = [pass_power(trials, solved, k) for trials, solved in tasks if trials >= k]
    return sum(figures) / len(figures) if figures else None
