"""A layer: a set of parameters and 10,000 segments of traffic, each owned by at most one experiment.

A unit has one segment in every layer, from its hash with the layer's salt. So in a layer it is in one experiment at
most (two experiments never fight over a parameter), and in several layers at once (traffic is used several times).

    retrieval   |  rerank 0-50 %   |  top-k 50-80 %  |  free    |     parameters: rerank, top_k
    dialogue    |      tone 0-40 %     |      nested domain     |     parameters: prompt, tone, hint

Diversion units. An experiment diverts by user, by session or by message; each kind has 10,000 segments of its own, and
they are asked in that fixed order, so a user's arm never depends on a message. Source: Tang et al. 2010, section 4.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from stage3_agents_llmops.experiments.arms import Experiment
from stage3_agents_llmops.experiments.hashing import segment

UNITS = ("user", "session", "message")  # the order in which they are asked


class Occupant(Protocol):
    """What may own segments: an experiment, or a nested domain."""

    name: str
    unit: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Layer:
    """Parameters, a salt, and who owns which segments. A launch layer changes only defaults, for all traffic."""

    name: str
    domain: str
    parameters: tuple[str, ...]
    salt: str
    launch: bool = False
    experiments: tuple[Experiment, ...] = ()
    domains: tuple[Occupant, ...] = ()

    @cached_property
    def owners(self) -> dict[str, tuple[list[int], list[tuple[int, Occupant]]]]:
        """For every kind of unit that is used: starts of the spans in rising order, and (end, owner) of each."""
        found: dict[str, list[tuple[int, int, Occupant]]] = {}
        for occupant in (*self.experiments, *self.domains):
            found.setdefault(occupant.unit, []).extend((*span, occupant) for span in occupant.spans)
        ordered = {unit: sorted(spans, key=lambda span: span[0]) for unit, spans in found.items()}
        return {
            unit: ([start for start, _, _ in spans], [(end, owner) for _, end, owner in spans])
            for unit, spans in ordered.items()
        }

    def segment(self, unit: str, unit_id: str) -> int:
        """The unit's segment in this layer."""
        return segment(self.salt, unit, unit_id)

    def occupant(self, unit_ids: Mapping[str, str]) -> Occupant | None:
        """Who owns the event's segment: asked by user, then by session, then by message; None where it is free.

        Args:
            unit_ids: kind of unit -> id; kinds that are missing are passed over.
        """
        for unit in UNITS:
            if unit in self.owners and unit in unit_ids:
                starts, ends = self.owners[unit]
                here = self.segment(unit, unit_ids[unit])
                place = bisect_right(starts, here) - 1
                if place >= 0 and here < ends[place][0]:
                    return ends[place][1]
        return None
