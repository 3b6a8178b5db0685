"""Where customers go: arms with weights, in one numbered table that changes as a whole.

    {"number": 7, "salt": "rollout-12", "arms": [
        {"name": "stable", "release": "ab12..", "backend": "http://127.0.0.1:8041", "weight": 90},
        {"name": "baseline", "release": "ab12..", "backend": "http://127.0.0.1:8042", "weight": 5},
        {"name": "canary", "release": "cd34..", "backend": "http://127.0.0.1:8043", "weight": 5}], "shadow": null}

Whoever changes it says which number they have seen. Of two writers one wins and the other is told: a controller that
was thought dead cannot undo what its successor did. The table lies in a file, so a restarted gateway goes on; and where
the file cannot be written (a full disk) it changes all the same, because a rollback must never wait for a disk.
"""

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from labkit.cli import nearest
from labkit.errors import LabError
from labkit.files import write_json

logger = logging.getLogger(__name__)
FILE = "routes.json"


class RoutesConflict(LabError):
    """The table was changed by somebody else in between."""


@dataclass(frozen=True)
class Arm:
    """One way for customers: a release, the process that serves it, and its share in per cent."""

    name: str
    release: str
    backend: str
    weight: float


@dataclass(frozen=True)
class Shadow:
    """A release that gets copies of a share (0 to 1) of the customers' messages; what it says nobody sees."""

    release: str
    backend: str
    share: float


@dataclass(frozen=True)
class Routes:
    """The table.

    Attributes:
        number: grows by one with every change; 0 is the empty table of a new gateway.
        salt: of the draw: a rollout's own, or the same unlucky customers meet every new release first.

    Raises:
        LabError: weights that do not sum to 100, two arms of one name, an address that is none.
    """

    number: int = 0
    arms: tuple[Arm, ...] = ()
    shadow: Shadow | None = None
    salt: str = ""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        for name in names:
            if names.count(name) > 1:
                raise LabError(f"two arms are called {name}", "one name an arm")
        for arm in self.arms:
            if not arm.name or arm.weight < 0:
                raise LabError(f"arm {arm.name!r} has the weight {arm.weight:g}", "a name and a weight from 0 on")
        total = sum(arm.weight for arm in self.arms)
        if self.arms and abs(total - 100) > 1e-6:
            raise LabError(f"the weights of the arms sum to {total:g}", "together 100")
        if self.shadow and not 0 < self.shadow.share <= 1:
            raise LabError(f"a shadow share of {self.shadow.share:g} is not possible", "above 0, at most 1")
        for place in [*self.arms, *([self.shadow] if self.shadow else [])]:
            check_address(place.backend)

    def arm(self, name: str) -> Arm | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    @property
    def backends(self) -> list[str]:
        """The arms' processes, the heaviest first, each once."""
        return list(dict.fromkeys(arm.backend for arm in sorted(self.arms, key=lambda arm: -arm.weight)))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def check_address(backend: str) -> None:
    """Refuse what is no http address of a process: scheme, host, port, nothing else.

    Raises:
        LabError: it is none.
    """
    try:
        parts = urlsplit(backend)
        sound = parts.scheme == "http" and parts.hostname and parts.port and not (parts.path or parts.query)
    except ValueError:
        sound = False
    if not sound:
        raise LabError(f"{backend!r} is no address of a service", "http://HOST:PORT")


def parse_routes(value: Any) -> Routes:
    """A table from JSON values.

    Raises:
        LabError: a field is missing, unknown or of the wrong kind; or as `Routes`.
    """
    try:
        known = checked(value, {"number": int, "arms": list, "shadow": (dict, type(None)), "salt": str}, "the table")
        kinds = {"name": str, "release": str, "backend": str, "weight": (int, float)}
        arms = tuple(Arm(**checked(arm, kinds, "an arm", all_of=True)) for arm in known.get("arms", []))
        kinds = {"release": str, "backend": str, "share": (int, float)}
        shadow = known.get("shadow")
        shadow = Shadow(**checked(shadow, kinds, "the shadow", all_of=True)) if shadow else None
        return Routes(known["number"], arms, shadow, known.get("salt", ""))
    except KeyError as error:
        raise LabError(f"the table has no {error.args[0]}", "the number of the table that you have seen") from None


def checked(value: Any, kinds: Mapping[str, Any], what: str, all_of: bool = False) -> dict[str, Any]:
    """A JSON object with known fields of the right kinds. Raises LabError otherwise."""
    if not isinstance(value, dict):
        raise LabError(f"{what} is no JSON object", "the form that GET /admin/routes shows")
    for name, given in value.items():
        if name not in kinds:
            raise LabError(f"{what} has no field {name}", nearest(name, list(kinds)) or f"fields: {', '.join(kinds)}")
        if not isinstance(given, kinds[name]) or isinstance(given, bool):
            raise LabError(f"{name} of {what} is {given!r}", "the form that GET /admin/routes shows")
    if all_of and (missing := [name for name in kinds if name not in value]):
        raise LabError(f"{what} has no {missing[0]}", f"fields: {', '.join(kinds)}")
    return value


@dataclass
class RouteTable:
    """The table that is in force, and its file."""

    folder: Path
    routes: Routes = field(default_factory=Routes)
    persisted: bool = True  # whether the file holds what is in force

    def __post_init__(self) -> None:
        self._changing = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> "RouteTable":
        """The table of a folder; an empty one where there is none.

        Raises:
            LabError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return cls(folder)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return cls(folder, parse_routes(value))
        except (ValueError, OSError, LabError) as error:
            raise LabError(f"{path} cannot be read: {error}", f"mv {path} {path}.old, then PUT the routes") from None

    def put(self, wanted: Routes) -> Routes:
        """Take a new table whose `number` is that of the table in force; returns it with the next number.

        Raises:
            RoutesConflict: the table in force has another number; nothing was changed.
        """
        with self._changing:
            if wanted.number != self.routes.number:
                raise RoutesConflict(
                    f"the routes are number {self.routes.number}, not {wanted.number}", "GET /admin/routes, then again"
                )
            self.routes = replace(wanted, number=wanted.number + 1)
            self._save()
            return self.routes

    def save_again(self) -> bool:
        """Write what could not be written before; whether the file is up to date now."""
        with self._changing:
            if not self.persisted:
                self._save()
            return self.persisted

    def _save(self) -> None:
        try:
            write_json(self.folder / FILE, self.routes.as_dict())
            self.persisted = True
        except OSError as error:
            self.persisted = False
            logger.error("routes number %d are in force but not on the disk: %s", self.routes.number, error)
