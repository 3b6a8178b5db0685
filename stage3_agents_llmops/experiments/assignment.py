"""Who gets what: `Experiments.assign` turns the ids of an event into arms and parameters. Nothing is stored.

    experiments = Experiments.load("experiments.toml")
    assignment = experiments.assign({"user": "u-17", "session": "s-4"}, {"language": "zh"})
    assignment.parameters["top_k"]          the value to use, whatever experiments there are
    assignment.arms["retrieval"].arm        which arm, by layer

A parameter's value is its default, unless a launch layer changes that, unless an experiment of a normal layer sets it,
unless a tester's override does. `ramp` and `cover` change weights and coverage while requests are answered: an
assignment sees the old state or the new one, never half of each.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from labkit.cli import nearest
from labkit.errors import LabError
from stage3_agents_llmops.experiments.arms import Experiment, Value, choose_arm
from stage3_agents_llmops.experiments.configuration import Setup, read_setup, read_tables
from stage3_agents_llmops.experiments.domains import Domain, divert, layers_of
from stage3_agents_llmops.experiments.layers import UNITS, Layer
from stage3_agents_llmops.experiments.validation import weight_problem


class Chosen(NamedTuple):
    """An arm, and the unit that it was chosen for. `forced` ones are testers: they take no part in the analysis."""

    experiment: str
    arm: str
    unit: str
    unit_id: str
    forced: bool = False


@dataclass(frozen=True)
class Assignment:
    """What an event gets. `biased` names experiments that it was diverted to without fulfilling their condition."""

    arms: dict[str, Chosen]  # by layer
    parameters: dict[str, Value]
    biased: tuple[str, ...] = ()

    def arm(self, experiment: str) -> str | None:
        """The arm in an experiment; None where the event takes no part."""
        return next((chosen.arm for chosen in self.arms.values() if chosen.experiment == experiment), None)


class Experiments:
    """A validated configuration that assigns."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._changing = threading.Lock()
        self._state = setup.root, experiments_of(setup.root)  # replaced as a whole
        self._testers: dict[tuple[str, str], dict[str, str]] = {}
        for (name, unit_id), arm in setup.overrides.items():
            self._testers.setdefault((self.experiment(name).unit, unit_id), {})[name] = arm

    @classmethod
    def load(cls, path: str | Path) -> "Experiments":
        """Read and validate a TOML file.

        Raises:
            LabError: it is missing, is no TOML, or has a mistake; the first one is named.
        """
        return cls(read_setup(path))

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> "Experiments":
        """The same from what a TOML file would hold.

        Raises:
            LabError: as `load`.
        """
        return cls(read_tables(tables))

    @property
    def root(self) -> Domain:
        """The default domain as it is now."""
        return self._state[0]

    def assign(
        self, unit_ids: Mapping[str, str], attributes: Mapping[str, Any] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> Assignment:  # fmt: skip
        """The arms and parameters of an event: always the same for the same ids and weights.

        Args:
            unit_ids: `user`, `session`, `message` -> id, as far as they are known; at least one.
            attributes: what conditions may ask for.
            overrides: experiment -> arm, for this event only, beside those of the configuration.

        Raises:
            LabError: no id, an unknown kind of unit, or an override that names nothing.
        """
        unit_ids = _checked(unit_ids)
        root, experiments = self._state
        chosen: dict[str, Chosen] = {}
        defaults, values, biased = {}, {}, []
        for layer, experiment, fails in divert(root, unit_ids, attributes or {}):
            if fails:
                biased.append(experiment.name)
                continue
            unit_id = unit_ids[experiment.unit]
            arm = choose_arm(experiment.arms, experiment.salt, unit_id)
            chosen[layer.name] = Chosen(experiment.name, arm.name, experiment.unit, unit_id)
            (defaults if layer.launch else values).update(arm.parameters)
        for name, arm in self._forced(unit_ids, overrides or {}).items():
            experiment = experiments[name]
            unit_id = unit_ids.get(experiment.unit, "")
            chosen[experiment.layer] = Chosen(name, arm, experiment.unit, unit_id, forced=True)
            values |= experiment.arm(arm).parameters
        return Assignment(chosen, {**self.setup.parameters, **defaults, **values}, tuple(biased))

    def experiment(self, name: str) -> Experiment:
        """An experiment as it is now.

        Raises:
            LabError: there is none of that name.
        """
        known = self._state[1]
        if name not in known:
            best = nearest(name, list(known))
            raise LabError(f"there is no experiment {name}", best or f"one of: {', '.join(known)}")
        return known[name]

    def weights(self, name: str) -> dict[str, float]:
        """The weights of an experiment's arms, in per cent."""
        return {arm.name: arm.weight for arm in self.experiment(name).arms}

    def ramp(self, name: str, weights: Mapping[str, float]) -> None:
        """Give an experiment's arms new weights from the next assignment on. Units move only into arms that grow.

        Exactly: a unit goes from one arm to another only if the other's weight grew relative to the first one's.

        Args:
            weights: a weight for every arm, together 100.

        Raises:
            LabError: an unknown or a missing arm, a negative weight, another sum; nothing is changed.
        """
        with self._changing:
            experiment = self.experiment(name)
            if problem := weight_problem(name, [arm.name for arm in experiment.arms], weights):
                raise problem
            arms = tuple(replace(arm, weight=float(weights[arm.name])) for arm in experiment.arms)
            self._replace(replace(experiment, arms=arms))

    def cover(self, name: str, coverage: float) -> None:
        """Let `coverage` per cent of an experiment's traffic take part. Growing brings units in and moves none.

        Raises:
            LabError: it is not between 0 and 100.
        """
        if not 0 <= coverage <= 100:
            raise LabError(f"a coverage of {coverage:g} % is not possible", "a number from 0 to 100")
        with self._changing:
            self._replace(replace(self.experiment(name), coverage=coverage / 100))

    def _replace(self, changed: Experiment) -> None:
        root = with_experiment(self.root, changed)
        self._state = root, experiments_of(root)

    def _forced(self, unit_ids: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, str]:
        """Experiment -> arm of the event's testers, and of `overrides`, which are checked."""
        wanted: dict[str, str] = {}
        for unit_and_id in unit_ids.items():
            wanted |= self._testers.get(unit_and_id, {})
        for name, arm in overrides.items():
            names = [each.name for each in self.experiment(name).arms]
            if arm not in names:
                raise LabError(
                    f"experiment {name} has no arm {arm}", nearest(arm, names) or f"one of: {', '.join(names)}"
                )
            wanted[name] = arm
        return wanted


def weighted(weights: Mapping[str, float], name: str, parameter: str = "release", unit: str = "user") -> Experiments:
    """One experiment over all traffic whose arms are values of one parameter: sticky weighted routing.

    `name` is the salt: give every rollout its own, or the same unlucky customers meet every new release first.

    Args:
        weights: value -> per cent, together 100.

    Raises:
        LabError: the weights are none.
    """
    arms = [{"name": value, "weight": weight, "parameters": {parameter: value}} for value, weight in weights.items()]
    experiment = {"name": name, "layer": parameter, "traffic": [0, 100], "unit": unit, "arms": arms}
    return Experiments.from_tables({
        "parameters": {parameter: next(iter(weights), "")},
        "layers": [{"name": parameter, "parameters": [parameter]}],
        "experiments": [experiment],
    })  # fmt: skip


def with_experiment(domain: Domain, changed: Experiment) -> Domain:
    """The same tree with one experiment replaced by its namesake."""

    def renewed(layer: Layer) -> Layer:
        experiments = tuple(changed if each.name == changed.name else each for each in layer.experiments)
        return replace(
            layer, experiments=experiments, domains=tuple(with_experiment(nested, changed) for nested in layer.domains)
        )

    return replace(domain, layers=tuple(map(renewed, domain.layers)))


def experiments_of(root: Domain) -> dict[str, Experiment]:
    """Every experiment of a tree by its name."""
    return {experiment.name: experiment for _, layer in layers_of(root) for experiment in layer.experiments}


def _checked(unit_ids: Mapping[str, str]) -> dict[str, str]:
    known = {kind: str(unit_id) for kind, unit_id in unit_ids.items() if unit_id not in (None, "")}
    unknown: Sequence[str] = [kind for kind in unit_ids if kind not in UNITS]
    if unknown:
        best = nearest(unknown[0], UNITS)
        raise LabError(f"there is no unit {unknown[0]}", best or f"one of: {', '.join(UNITS)}")
    if not known:
        raise LabError("an event without an id cannot be assigned", "a user, a session or a message id")
    return known
