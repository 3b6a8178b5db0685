"""Each test names the bug that it catches."""

import math

import pytest

from stage1_foundations.gpt.schedule import KINDS, schedule_factor
from stage1_foundations.gpt.train_config import NANOGPT_CPU


def factors(steps: int, **options) -> list[float]:
    """The factor at every step of a run that is measured in steps."""
    return [schedule_factor(step, step / steps, **options) for step in range(steps)]


def nanogpt_rate(step: int, steps: int, warmup: int, peak: float, least: float) -> float:
    """nanoGPT's get_lr, train.py."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    ratio = (step - warmup) / (steps - warmup)
    return least + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (peak - least)


def test_cosine_equals_nanogpt():
    """Catches: a floor that is added instead of approached, half a period too many."""
    ours = factors(200, warmup=0, kind="cosine", floor=0.1)
    theirs = [nanogpt_rate(step, 200, 0, 1.0, 0.1) for step in range(200)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_cosine_with_warm_up_stays_near_nanogpt():
    """Catches: an anchor in `bench` that trains with another schedule than nanoGPT's recipe.

    nanoGPT starts its cosine after the warm-up, this one at the first step; with 100 of 2,000 steps they
    differ by less than 0.05 of the peak.
    """
    c = NANOGPT_CPU
    ours = factors(c.steps, warmup=c.warmup, kind=c.schedule, floor=c.floor)
    theirs = [nanogpt_rate(step, c.steps, c.warmup, 1.0, c.floor) for step in range(c.steps)]
    assert ours == pytest.approx(theirs, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_is_a_straight_line(kind):
    """Catches: a first step of rate zero, or a jump at the end of the warm-up."""
    rising = [schedule_factor(step, 0.0, warmup=10, kind=kind) for step in range(12)]
    assert rising == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0])


def test_linear_falls_to_the_floor():
    """Catches: a fall to zero that ignores the floor, or one that ends early."""
    assert schedule_factor(50, 0.0, warmup=0, floor=0.2) == pytest.approx(1.0)
    assert schedule_factor(50, 0.25, warmup=0, floor=0.2) == pytest.approx(0.8)
    assert schedule_factor(50, 1.0, warmup=0, floor=0.2) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_factor_only_falls_after_the_warm_up(kind):
    """Catches: a rate that rises again at the end, and factors outside [0, 1]."""
    values = factors(100, warmup=10, kind=kind, floor=0.05)
    peak = values.index(max(values))
    assert min(values) > 0 and max(values) <= 1.0 and 5 <= peak <= 10
    assert values[peak:] == sorted(values[peak:], reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_warm_up(kind):
    """Catches: a division by zero."""
    assert schedule_factor(0, 0.0, warmup=0, kind=kind) == 1.0
