"""The three orderings that courses teach, against what was measured here.

    accuracy   FP16 > GPTQ > AWQ > NF4
    speed      NF4 > AWQ > GPTQ > FP16
    memory     FP16 > GPTQ ~ AWQ > NF4

Each is a chain of steps between neighbours. A step is held, reversed, or undecided when the interval of the ratio
holds both. The ordering held when all of its steps did, and did not when one is reversed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stage1_foundations.embeddings.bootstrap import over_repetitions, paired_bootstrap
from stage2_rag_finetune_deploy.quantization.perplexity import ratio_interval

HELD, REVERSED, UNDECIDED = "held", "reversed", "undecided"
SAME = 0.05  # relative: sizes nearer than this are "about equal"
REPEAT = 0.02  # relative: resident memory, measured again, is the same within this


@dataclass(frozen=True)
class Step:
    """Two neighbours of an ordering, and how the first stands to the second.

    Attributes:
        says: the claim, "GPTQ > AWQ".
        figure: first against second: a ratio, or a difference in points.
        low, high: its 95 % interval.
        neutral: what the figure is when both are equal.
        better_below: the claim holds below `neutral`, not above.
        about_equal: the claim is that they are equal.
    """

    says: str
    figure: float
    low: float
    high: float
    neutral: float = 1.0
    better_below: bool = False
    about_equal: bool = False

    @property
    # exercise: quantization.verdict
    def verdict(self) -> str:
        """HELD, REVERSED or UNDECIDED: from the interval, never from the figure alone.

        "About equal" is held where the whole interval is within SAME of neutral, and reversed where it is all outside.
        """
        low, high = self.low - self.neutral, self.high - self.neutral
        if self.about_equal:
            if max(abs(low), abs(high)) <= SAME:
                return HELD
            return REVERSED if low > SAME or high < -SAME else UNDECIDED
        if self.better_below:
            low, high = -high, -low
        return HELD if low > 0 else REVERSED if high < 0 else UNDECIDED

    # end exercise


def overall(steps: Sequence[Step]) -> str:
    """The ordering's verdict."""
    verdicts = {step.verdict for step in steps}
    return REVERSED if REVERSED in verdicts else HELD if verdicts == {HELD} else UNDECIDED


def perplexity_step(names: tuple[str, str], first: np.ndarray, second: np.ndarray, seed: int) -> Step:
    """First better than second: its perplexity is lower, on the same blocks."""
    return Step(f"{names[0]} > {names[1]}", *ratio_interval(first, second, seed), better_below=True)


def score_step(names: tuple[str, str], first: Sequence[bool], second: Sequence[bool], seed: int) -> Step:
    """First better than second: more exact answers, on the same utterances. In points."""
    found = paired_bootstrap(100.0 * np.asarray(second, float), 100.0 * np.asarray(first, float), seed=seed)
    return Step(f"{names[0]} > {names[1]}", found.difference, found.low, found.high, neutral=0.0)


def speed_step(names: tuple[str, str], first: Sequence[float], second: Sequence[float]) -> Step:
    """First faster than second: rates of the same rounds, in which they took turns."""
    logs = np.log(np.asarray(first, float)) - np.log(np.asarray(second, float))
    found = over_repetitions(logs)
    low, high = (found.low, found.high) if np.isfinite(found.low) else (-np.inf, np.inf)  # one round decides nothing
    return Step(f"{names[0]} > {names[1]}", *(float(np.exp(value)) for value in (found.difference, low, high)))


def size_step(names: tuple[str, str], first: float, second: float, about_equal: bool = False) -> Step:
    """First larger than second, or about equal; REPEAT on both sides stands for an interval."""
    ratio = first / second
    says = f"{names[0]} {'~' if about_equal else '>'} {names[1]}"
    return Step(says, ratio, ratio * (1 - REPEAT), ratio * (1 + REPEAT), about_equal=about_equal)
