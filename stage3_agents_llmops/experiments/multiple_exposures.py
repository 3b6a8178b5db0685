"""Units that saw two arms: the assignment was not sticky, or an id is not what it seems.

A customer who logs in changes from a session id to a user id and may change arms; a cleared cookie makes a second
person. Such units say nothing about either arm and are left out. Above one per cent (and ten units) the plumbing is
broken, and leaving them out is no longer harmless: those who log in are not a random part.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from stage3_agents_llmops.experiments.exposure_log import Exposure

ALARM_SHARE, ALARM_UNITS = 0.01, 10  # GrowthBook's


@dataclass(frozen=True)
class Exposed:
    """Unit -> arm for the units that saw exactly one, and the units that saw more."""

    arms: dict[str, str]
    multiple: frozenset[str]

    @property
    def share(self) -> float:
        """How many of all units saw more than one arm."""
        everybody = len(self.arms) + len(self.multiple)
        return len(self.multiple) / everybody if everybody else 0.0

    @property
    def alarm(self) -> bool:
        """Whether that is too many."""
        return self.share > ALARM_SHARE and len(self.multiple) >= ALARM_UNITS

    def counts(self) -> dict[str, int]:
        """Units of each arm."""
        counts: dict[str, int] = {}
        for arm in self.arms.values():
            counts[arm] = counts.get(arm, 0) + 1
        return counts


def exposed_units(exposures: Iterable[Exposure]) -> Exposed:
    """One arm for every unit of one experiment; those with several are set aside."""
    seen: dict[str, set[str]] = {}
    for exposure in exposures:
        seen.setdefault(exposure.unit, set()).add(exposure.arm)
    multiple = frozenset(unit for unit, arms in seen.items() if len(arms) > 1)
    return Exposed({unit: next(iter(arms)) for unit, arms in seen.items() if unit not in multiple}, multiple)
