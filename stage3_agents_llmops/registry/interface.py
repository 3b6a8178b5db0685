"""What a registry promises. Two implementations keep it (file_registry, mlflow_registry); conformance.py checks them.

A *version* never changes. An *alias* ("champion") is the only thing that moves, so everything that can go wrong in a
deployment is a question about aliases: who moved it, from where, may they, and how do we get back?
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from labkit.errors import LabError
from stage3_agents_llmops.registry.release import Draft, Release

CHAMPION = "champion"
ANY: Final = object()  # set_alias without a condition
ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
RESERVED = re.compile(r"latest|v[0-9]+")  # MLflow's own rule
PROG = "python -m stage3_agents_llmops.registry"

CAPABILITIES = {
    "compare_and_set": "set_alias(expected=...) and rollback(expected=...) are one step: of two writers one wins",
    "history": "every move of an alias is known: from, to, when, who, why",
    "rollback": "an alias goes back to what it was before",
    "tamper_evident": "a changed or missing line of the history is noticed",
    "deduplication": "a file that two releases share is stored once",
}


class Conflict(LabError):
    """Somebody else moved the alias first."""


class Damaged(LabError):
    """A stored file is missing, truncated or changed; or the history is."""


class Unknown(LabError):
    """No such version or alias."""


class Refused(LabError):
    """A rule forbids it: a champion needs an evaluation, a version that an alias points at cannot go."""


class Locked(LabError):
    """Another process holds the registry for too long."""


@dataclass(frozen=True)
class AliasChange:
    """One line of an alias's history.

    Args:
        kind: "set" or "rollback"; "outside" for a change that was not made through this interface.
        version: what the alias points at from then on.
        previous: what it pointed at before; None for a new alias.
    """

    number: int
    alias: str
    version: int
    previous: int | None
    kind: str
    time: str
    actor: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Problem:
    """A file that is not what its manifest says."""

    version: int
    path: str
    what: str


@dataclass(frozen=True)
class Collected:
    """What garbage collection removed, or would remove."""

    versions: tuple[int, ...]
    files: int
    bytes: int


class Registry(Protocol):
    """Releases of one service. Numbers of versions grow and are never used again."""

    name: str
    capabilities: frozenset[str]

    def publish(self, draft: Draft) -> Release:
        """Store a release; afterwards it is whole and durable. Whoever is killed in between leaves no version.

        Publishing what is there already returns the version that it has.

        Raises:
            LabError: the draft is not whole, the disk is full.
        """

    def versions(self) -> list[Release]:
        """All releases, oldest first."""

    def get(self, ref: int | str) -> Release:
        """The release of a version number or an alias.

        Raises:
            Unknown: there is none.
        """

    def load(self, ref: int | str, target: Path) -> Path:
        """Write the release's files to `target`, each one checked against its SHA-256, and return it.

        `target` appears whole or not at all; where it holds the same release already, it is checked and kept.

        Raises:
            Unknown: no such version or alias.
            Damaged: a file is missing or not what it was.
            LabError: `target` holds something else.
        """

    def aliases(self) -> dict[str, int]:
        """Alias -> version."""

    def set_alias(
        self, alias: str, version: int, *, expected: Any = ANY, actor: str = "", reason: str = ""
    ) -> AliasChange:
        """Point an alias at a version.

        Args:
            expected: the version that the alias must point at now (None: it must not exist yet); ANY: whatever it is.

        Raises:
            Conflict: it points elsewhere; nothing was changed.
            Refused: `champion` for a release without an evaluation.
            Unknown: no such version.
        """

    def rollback(self, alias: str, *, expected: Any = ANY, actor: str = "", reason: str = "") -> AliasChange:
        """Point an alias at what it was before its last move that has not been rolled back yet.

        Raises:
            Refused: there is nothing before it, or that version was collected.
            Conflict: as in `set_alias`.
        """

    def history(self, alias: str | None = None) -> list[AliasChange]:
        """Moves of an alias (of all), oldest first."""

    def verify(self, ref: int | str | None = None) -> list[Problem]:
        """Hash every stored file of a release (of all); an empty list is good."""

    def collect_garbage(self, keep: int = 3, dry_run: bool = False) -> Collected:
        """Remove old versions, and what publishers that were killed left behind.

        Kept are the newest `keep`, every version with an alias, and what a rollback of an alias would go to.
        """


def check_alias(alias: str) -> None:
    """Refuse names that an alias cannot have.

    Raises:
        LabError: not a word of small letters, digits, - and _; or reserved.
    """
    if not ALIAS.fullmatch(alias) or RESERVED.fullmatch(alias):
        raise LabError(f"{alias!r} cannot be an alias", "a word such as champion, challenger or shadow")


def check_promotion(release: Release, alias: str) -> None:
    """A champion needs an evaluation.

    Raises:
        Refused: it has none.
    """
    if alias == CHAMPION and release.manifest.lineage.evaluation is None:
        raise Refused(f"version {release.version} was never evaluated, so it cannot become {CHAMPION}",
                      f"publish it with --evaluation REPORT, or {PROG} promote --alias challenger")  # fmt: skip


def check_expected(alias: str, current: int | None, expected: Any) -> None:
    """The condition of a compare-and-set.

    Raises:
        Conflict: `current` is not `expected`.
    """
    if expected is not ANY and expected != current:
        def say(version: int | None) -> str:
            return "nothing" if version is None else f"version {version}"

        raise Conflict(f"{alias} points at {say(current)}, not at {say(expected)}: somebody was quicker",
                       f"{PROG} history, then decide again")  # fmt: skip


# exercise: registry.rollback_target
def rollback_target(changes: Sequence[AliasChange]) -> int | None:
    """The version that a rollback of an alias goes to, from its history (oldest first); None: there is nothing before.

    A rollback undoes the last move that is still in force. So after 1, 2, 3 the first rollback goes to 2 and a second
    one to 1, not back to 3, which somebody has just got rid of. Moves to where the alias is already undo nothing.
    """
    trail: list[int] = []
    for change in changes:
        if change.kind == "rollback":
            trail = trail[:-1]
        if not trail or trail[-1] != change.version:
            trail.append(change.version)
    return trail[-2] if len(trail) > 1 else None
# end exercise


def protected(changes: Iterable[AliasChange], aliases: dict[str, int]) -> set[int]:
    """Versions that garbage collection must leave: those with an alias, and where a rollback would go."""
    changes, kept = list(changes), set(aliases.values())
    for alias in aliases:
        target = rollback_target([change for change in changes if change.alias == alias])
        kept |= {target} if target is not None else set()
    return kept


def parse_ref(ref: int | str) -> int | str:
    """3 and "3" are version 3; everything else is an alias."""
    return int(ref) if str(ref).isdigit() else str(ref)
