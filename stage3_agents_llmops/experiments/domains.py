"""A domain: a part of the traffic that is cut into layers in its own way. Domains and layers nest.

    default ── release                      the canary: everybody may be in it
            ├─ split ── alone ── system     10 %: far-reaching experiments, any parameter, one at a time
            │        └─ overlapping ── retrieval       90 %: many small ones at once, a layer each
            │                       └─ dialogue ── wording ── prompt, tone      nested: finer layers on 60 % of it
            └─ rollout (launch)             new defaults, for whoever is in no experiment

The default domain is all traffic. A layer belongs to a domain; a nested domain belongs to a layer and owns segments of
it, as an experiment does. Source: Tang, Agarwal, O'Brien, Meyer 2010, *Overlapping Experiment Infrastructure*.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stage3_agents_llmops.experiments.arms import Experiment
from stage3_agents_llmops.experiments.conditions import fulfilled
from stage3_agents_llmops.experiments.layers import Layer


@dataclass(frozen=True)
class Domain:
    """Layers over a part of the traffic."""

    name: str
    layers: tuple[Layer, ...] = ()
    unit: str = "user"
    spans: tuple[tuple[int, int], ...] = ()


class Diverted(NamedTuple):
    """An event that fell to an experiment. `biased`: it did not fulfil the condition, and takes no part."""

    layer: Layer
    experiment: Experiment
    biased: bool


def divert(domain: Domain, unit_ids: Mapping[str, str], attributes: Mapping[str, Any]) -> Iterator[Diverted]:
    """Walk through the domain's layers, and into the nested domains that own the event's segment.

    An event that is diverted to an experiment and fails its condition is offered to no other of that layer: what is
    left over would no longer be a random part of the traffic. It is reported as biased.
    """
    for layer in domain.layers:
        occupant = layer.occupant(unit_ids)
        if isinstance(occupant, Domain):
            yield from divert(occupant, unit_ids, attributes)
        elif isinstance(occupant, Experiment) and occupant.covers(unit_ids[occupant.unit]):
            yield Diverted(layer, occupant, not fulfilled(occupant.when, attributes))


def layers_of(domain: Domain) -> Iterator[tuple[int, Layer]]:
    """Every layer with its depth, outermost first."""
    for layer in domain.layers:
        yield 0, layer
        for nested in layer.domains:
            for depth, inner in layers_of(nested):
                yield depth + 1, inner
