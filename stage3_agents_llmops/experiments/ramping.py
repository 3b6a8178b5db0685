"""Does a ramp leave people where they are? Every move of every unit, step by step.

A move from one arm to another is a *stray* when the other arm's weight did not grow relative to the first one's: nobody
asked for it, and the customer sees the service change under their hands. There must be none.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stage3_agents_llmops.experiments.arms import Arm, choose_arm

Chooser = Callable[[Sequence[Arm], str, str], Arm]
STEPS = (1, 5, 25, 50, 100)


@dataclass(frozen=True)
class Step:
    """One step of a ramp: weights, units of each arm, and moves since the step before."""

    weights: dict[str, float]
    counts: dict[str, int]
    moves: dict[tuple[str, str], int]
    strays: int

    @property
    def moved(self) -> int:
        """Units that are in another arm than before."""
        return sum(self.moves.values())


def canary_steps(
    arms: Sequence[str], growing: str, steps: Sequence[float] = STEPS, alike: Sequence[str] = ()
) -> list[dict[str, float]]:
    """Weights for each step: `growing` gets the step's per cent, so does every arm in `alike`, the first arm the rest.

    Arms in `alike` (a same-size baseline) share what is there with `growing` once that is all.
    """
    rows = []
    for step in steps:
        followers = dict.fromkeys(alike, min(step, (100 - step) / max(1, len(alike))))
        row = {growing: step, **followers}
        rows.append({arm: row.get(arm, 0.0) for arm in arms} | {arms[0]: 100 - sum(row.values())})
    return rows


def ramp(
    steps: Sequence[Mapping[str, float]], unit_ids: Sequence[str], salt: str, choose: Chooser = choose_arm
) -> list[Step]:
    """Assign all units at every step and compare with the step before.

    Args:
        steps: weights of the same arms, in the same order.
        choose: how an arm is chosen; `consecutive_ranges` is the one that must fail.
    """
    result: list[Step] = []
    before: list[str] = []
    for weights in steps:
        arms = [Arm(name, weight) for name, weight in weights.items()]
        now = [choose(arms, salt, unit_id).name for unit_id in unit_ids]
        moves = Counter((old, new) for old, new in zip(before, now, strict=False) if old != new)
        strays = sum(count for move, count in moves.items() if not grew(*move, result[-1].weights, weights))
        counts = Counter(now)
        result.append(Step(dict(weights), {name: counts[name] for name in weights}, dict(moves), strays))
        before = now
    return result


def grew(old: str, new: str, before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Whether the weight of `new` grew relative to that of `old`: w'new / w'old > wnew / wold, without dividing."""
    return after[new] * before[old] > before[new] * after[old]
