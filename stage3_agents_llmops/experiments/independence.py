"""Are the layers independent? Cross every layer with every other and ask the chi-square.

If they are, an arm of one layer holds the same mix of the other layer's arms as its control: the other experiment's
effect is in both and cancels. If two layers share a salt, the treatment of one *is* the treatment of the other, each
effect is counted twice, and no figure of either experiment shows it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.stats import chi2_contingency

from stage3_agents_llmops.experiments.arms import Experiment, choose_arm
from stage3_agents_llmops.experiments.domains import Domain
from stage3_agents_llmops.experiments.layers import Layer

Labels = Mapping[str, Sequence[str | None]]
FREE = "free"


def labels(root: Domain, unit_ids: Sequence[str]) -> dict[str, list[str | None]]:
    """For every layer, each unit's experiment and arm (or nested domain, or `free`); None where it never gets there.

    Conditions are not asked: they restrict who takes part, not how the traffic is cut.
    """
    found: dict[str, list[str | None]] = {}
    for place, unit_id in enumerate(unit_ids):
        ids = {"user": unit_id, "session": f"session-of-{unit_id}", "message": f"message-of-{unit_id}"}
        for layer, label in _walk(root, ids):
            if layer not in found:
                found[layer] = [None] * len(unit_ids)
            found[layer][place] = label
    return found


def _walk(domain: Domain, ids: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for layer in domain.layers:
        occupant = layer.occupant(ids)
        if isinstance(occupant, Domain):
            yield layer.name, occupant.name
            yield from _walk(occupant, ids)
        elif isinstance(occupant, Experiment) and occupant.covers(ids[occupant.unit]):
            arm = choose_arm(occupant.arms, occupant.salt, ids[occupant.unit])
            yield layer.name, f"{occupant.name}/{arm.name}"
        else:
            yield layer.name, FREE


def crossed(one: Sequence[str | None], other: Sequence[str | None]) -> float | None:
    """The chi-square's p-value for the units that reach both layers; None where there is nothing to compare."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    (rows, row), (columns, column) = (np.unique(side, return_inverse=True) for side in zip(*pairs, strict=True))
    if len(rows) < 2 or len(columns) < 2:
        return None  # a nested layer and the one around it: the outer label is always the same
    table = np.zeros((len(rows), len(columns)))
    np.add.at(table, (row, column), 1)
    return float(chi2_contingency(table, correction=False).pvalue)


def every_pair(found: Labels) -> dict[tuple[str, str], float]:
    """p-values of all pairs of layers that some units reach together."""
    p_values = {pair: crossed(found[pair[0]], found[pair[1]]) for pair in combinations(found, 2)}
    return {pair: p_value for pair, p_value in p_values.items() if p_value is not None}


def with_shared_salt(root: Domain, salt: str = "shared") -> Domain:
    """The same tree with one salt everywhere: what validation refuses, for showing why."""

    def spoilt(layer: Layer) -> Layer:
        return replace(
            layer, salt=salt, experiments=tuple(replace(each, salt=salt) for each in layer.experiments),
            domains=tuple(with_shared_salt(nested, salt) for nested in layer.domains),
        )  # fmt: skip

    return replace(root, layers=tuple(map(spoilt, root.layers)))
