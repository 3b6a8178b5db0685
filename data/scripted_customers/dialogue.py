"""What a customer and an agent exchange, whichever way the words travel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Proposal:
    """A write that the agent wants confirmed. `arguments` are the tool's."""

    proposal_id: str
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True)
class Turn:
    """What the agent did after one act of the customer.

    `asked` is the slot it asked for, if any. `end` is how its run ended: answered, waiting, human, cancelled, failed.
    `citations` are the numbers and texts of the passages that the answer rests on.
    """

    text: str
    proposal: Proposal | None = None
    asked: str | None = None
    end: str = "answered"
    citations: tuple[Mapping[str, Any], ...] = ()
    streamed: bool = False  # the answer came in more than one piece
    seconds: float = 0.0
    path: tuple[str, ...] = ()  # the graph's nodes, for whoever reads a trajectory


@dataclass(frozen=True)
class Say:
    """A message."""

    text: str
    approves: bool | None = None  # an answer to the pending proposal in words


@dataclass(frozen=True)
class Decide:
    """A press on one of the two buttons below a proposal."""

    proposal: Proposal
    approve: bool


@dataclass(frozen=True)
class Leave:
    """The customer goes; the service is ended and started again before the next act."""


Act = Say | Decide | Leave
