"""Which arm a customer gets. The experiments lab decides; nothing is stored but who really met what.

The unit is the customer, not the message: somebody who gets the new release for one question and the old one for the
next sees a service that changes its mind, and the two halves of a conversation can no longer be told apart. Raising an
arm's weight moves customers only into that arm (experiments/arms.py).
"""

import logging
import re
from pathlib import Path

from labkit.errors import LabError
from stage3_agents_llmops.experiments import Assignment, Experiments, ExposureLog, weighted
from stage3_agents_llmops.experiments.hashing import uniform
from stage3_agents_llmops.pipeline.gateway.routes import Arm, Routes

logger = logging.getLogger(__name__)
TOKEN = re.compile(r"bearer\s+([A-Za-z0-9_-]{1,40})\.", re.IGNORECASE)
REMEMBERED = 100_000  # customers whose arm is kept in mind while the table stays


def unit_of(authorization: str | None, thread_id: str | None, fallback: str) -> str:
    """Who a request is drawn for: the customer that the token names, else the conversation, else the connection.

    The token is not checked here. Who lies gets the other customer's arm and the backend's 401.
    """
    found = TOKEN.match(authorization or "")
    return found[1] if found else thread_id or fallback


def name_of(routes: Routes) -> str:
    """The rollout's name: the salt of the draw, and with the table's number the experiment's in the exposures."""
    return routes.salt or "rollout"


def experiment_of(routes: Routes) -> Experiments | None:
    """The experiment that draws the arms; None where there is nothing to choose.

    Raises:
        LabError: weights or names that no experiment can have.
    """
    if len(routes.arms) < 2:
        return None
    return weighted({arm.name: arm.weight for arm in routes.arms}, name_of(routes), "arm")


class Router:
    """Draws arms by the table in force.

    Args:
        exposures: where it is written that a customer met an arm.
    """

    def __init__(self, routes: Routes, exposures: Path) -> None:
        self.exposures = ExposureLog(exposures)
        self.use(routes)

    def use(self, routes: Routes) -> None:
        """From now on these routes."""
        self.routes = routes
        self._arms: dict[str, tuple[Arm, Assignment | None]] = {}
        self.experiments = experiment_of(routes)

    def draw(self, unit: str) -> tuple[Arm, Assignment | None]:
        """The arm of a customer, the same at every call, and the assignment behind it where there was a choice.

        Raises:
            LabError: there are no routes yet.
        """
        if not self.routes.arms:
            raise LabError("no release is in service", "PUT /admin/routes")
        if self.experiments is None:
            return self.routes.arms[0], None
        if unit not in self._arms:
            if len(self._arms) >= REMEMBERED:
                self._arms.clear()
            assignment = self.experiments.assign({"user": unit})
            self._arms[unit] = self.routes.arm(assignment.parameters["arm"]), assignment
        return self._arms[unit]

    def expose(self, assignment: Assignment) -> int:
        """Note that the customer met the arm; once for each table, because its weights are an experiment of their own.

        A log that cannot be written costs a row and no customer.
        """
        try:
            return self.exposures.expose(assignment, suffix=f".{self.routes.number}")
        except LabError as error:
            logger.error("an exposure is lost: %s", error)
            return 0

    def exposed(self, assignment: Assignment) -> bool:
        """Whether that has been noted already, as far as memory goes."""
        return self.exposures.knows(assignment, suffix=f".{self.routes.number}")

    def shadowed(self, unit: str) -> bool:
        """Whether a customer's messages are copied to the shadow: a draw of its own, independent of the arms."""
        shadow = self.routes.shadow
        return shadow is not None and uniform(name_of(self.routes), "shadow", unit) < shadow.share

    def candidates(self, first: Arm) -> list[Arm]:
        """Who may take a run in the place of an arm whose process does not: the same release first, the weightier."""
        others = [arm for arm in self.routes.arms if arm.backend != first.backend]
        others.sort(key=lambda arm: (arm.release != first.release, arm.weight == 0, -arm.weight))
        unique = {arm.backend: arm for arm in reversed(others)}
        return [first, *(arm for arm in others if unique.pop(arm.backend, None))]
