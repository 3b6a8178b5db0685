"""Which arm of an experiment: a race that weights can speed up without anyone changing lanes.

Every arm runs against the others over an exponential time with the arm's weight as rate; the first one wins:

    time(arm, unit) = -ln(hash(salt, arm, unit)) / weight          P(arm wins) = weight / sum of weights

Raise one weight, and only that arm's times get shorter: a unit either stays or moves to the arm that grew. Cut the
line from 0 to 1 into consecutive ranges instead, and with three arms the middle one is pushed aside: people jump
between arms that nobody touched. Known as weighted rendezvous hashing (Schindelhauer and Schomaker 2005).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stage3_agents_llmops.experiments.hashing import uniform

Value = str | int | float | bool


@dataclass(frozen=True)
class Arm:
    """One variant: its share of the experiment in per cent, and the parameters that it sets."""

    name: str
    weight: float
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A comparison of arms on part of a layer's traffic.

    `coverage` is how much of that part takes part (0 to 1): raising it brings units in and moves nobody. `when` is
    asked after the diversion. A new `salt` draws everybody anew: a second run free of what the first one left behind.
    """

    name: str
    layer: str
    unit: str
    spans: tuple[tuple[int, int], ...]
    arms: tuple[Arm, ...]
    salt: str
    coverage: float = 1.0
    when: Mapping[str, Any] = field(default_factory=dict)

    def covers(self, unit_id: str) -> bool:
        """Whether the unit takes part at the present coverage."""
        return self.coverage >= 1 or uniform(self.salt, "coverage", unit_id) < self.coverage

    def arm(self, name: str) -> Arm:
        """The arm of that name; KeyError if there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)


# exercise: experiments.choose_arm
def choose_arm(arms: Sequence[Arm], salt: str, unit_id: str) -> Arm:
    """The arm with the shortest time in the race; an arm of weight 0 does not start.

    Args:
        arms: at least one of them with a weight above 0.
    """
    racing = [arm for arm in arms if arm.weight > 0]
    return min(racing, key=lambda arm: -math.log(uniform(salt, arm.name, unit_id)) / arm.weight)
# end exercise


def consecutive_ranges(arms: Sequence[Arm], salt: str, unit_id: str) -> Arm:
    """What not to do: arms side by side on one line. Kept as the negative control of the ramp."""
    place, total = uniform(salt, unit_id) * sum(arm.weight for arm in arms), 0.0
    for arm in arms:
        total += arm.weight
        if place < total:
            return arm
    return arms[-1]
