"""Learning-rate schedules: a factor between 0 and 1 for every step.

Both warm up linearly, so that the optimiser's averages fill before steps are large.

    cosine   falls along half a cosine to a floor, from the first step (nanoGPT's falls from the end of the warm-up)
    linear   falls in a straight line to the floor: easier to reason about, and measured no worse here (NOTES.md)
"""

import math

KINDS = ("linear", "cosine")


# exercise: gpt.schedule_factor
def schedule_factor(step: int, progress: float, *, warmup: int, kind: str = "linear", floor: float = 0.0) -> float:
    """What the peak learning rate is multiplied by.

    Args:
        step: steps done before this one.
        progress: how much of the run is over, 0 to 1: by steps or, with a time budget, by the clock.
        warmup: steps until the factor has risen to its full height.
        floor: the factor at the end.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return rise * (floor + (1.0 - floor) * fall)
# end exercise
