"""The commands about aliases: promote, rollback, history."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import shown
from stage3_agents_llmops.registry.common_options import RegistryOptions, actor_of, opened
from stage3_agents_llmops.registry.interface import ANY, CHAMPION, PROG, AliasChange
from stage3_agents_llmops.registry.timeline import parse_time, spans, version_at

EXPECTED = "only if the alias points at this version now; none: only if it does not exist; any: whatever it is"


@dataclass(frozen=True)
class PromoteConfig(RegistryOptions):
    """Which release, to where."""

    version: str | None = option(None, "a version, or the alias that points at it: challenger")
    alias: str = option(CHAMPION, "champion, challenger, shadow or a word of your own")
    expected: str = option("any", EXPECTED)
    reason: str = option("", "why; kept in the history")
    actor: str | None = option(None, "who; none is the account's name")


@dataclass(frozen=True)
class RollbackConfig(RegistryOptions):
    """Which alias goes back."""

    alias: str = option(CHAMPION, "the alias")
    expected: str = option("any", EXPECTED)
    reason: str = option("", "why; kept in the history")
    actor: str | None = option(None, "who; none is the account's name")


@dataclass(frozen=True)
class HistoryConfig(RegistryOptions):
    """Of what, and when."""

    alias: str | None = option(None, "of this alias only")
    at: str | None = option(None, "what was in production then? 2026-11-29T10:30 (UTC, or with +08:00)")
    figure: Path | None = option(None, "draw it into this PNG")


def read_expected(text: str) -> Any:
    """`any`, `none` or a version.

    Raises:
        LabError: something else.
    """
    if text in ("any", "none"):
        return ANY if text == "any" else None
    if not text.isdigit():
        raise LabError(f"--expected {text} is no version", "--expected 3, none or any")
    return int(text)


def run_promote(config: PromoteConfig, preset: str) -> None:
    """Point an alias at a release."""
    expected = read_expected(config.expected)
    if config.version is None:
        raise LabError("promote what?", "--version NUMBER, or --version challenger")
    registry = opened(config)
    release = registry.get(config.version)
    change = registry.set_alias(config.alias, release.version, expected=expected, actor=actor_of(config.actor),
                                reason=config.reason)  # fmt: skip
    console.print(told(change), markup=False, soft_wrap=True)


def run_rollback(config: RollbackConfig, preset: str) -> None:
    """Point an alias at what it was before."""
    expected = read_expected(config.expected)
    change = opened(config).rollback(config.alias, expected=expected, actor=actor_of(config.actor),
                                     reason=config.reason)  # fmt: skip
    console.print(told(change), markup=False, soft_wrap=True)


def told(change: AliasChange) -> str:
    """A move in words."""
    origin = "was new" if change.previous is None else f"pointed at version {change.previous}"
    return f"{change.alias} points at version {change.version}; it {origin}"


def run_history(config: HistoryConfig, preset: str) -> None:
    """Every move of the aliases; or what one pointed at at a time."""
    registry = opened(config)
    changes = registry.history(config.alias)
    if config.alias is not None and not changes:
        known = ", ".join(registry.aliases()) or "none yet"
        raise LabError(f"there is no alias {config.alias}", f"one of: {known}")
    if config.at is not None:
        when, alias = parse_time(config.at), config.alias or CHAMPION
        version = version_at(changes, alias, when)
        what = "did not exist yet" if version is None else f"was version {version}"
        console.print(f"{when:%Y-%m-%d %H:%M:%S} UTC: {alias} {what}")
        return
    if not changes:
        console.print(f"no alias has moved yet   (next: {PROG} promote)", markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("time (UTC)", "alias", "from", "to", "", "who", "why"):
        table.add_column(title, no_wrap=title != "why", max_width=24 if title == "who" else None)
    for each in changes:
        origin = "-" if each.previous is None else str(each.previous)
        table.add_row(each.time[:19].replace("T", " "), each.alias, origin, str(each.version),
                      "" if each.kind == "set" else each.kind, each.actor, each.reason)  # fmt: skip
    console.print(table)
    if config.figure is not None:
        from stage3_agents_llmops.registry.figures import plot_timeline  # matplotlib: half a second

        plot_timeline(spans(changes), config.figure)
        console.print(f"figure: {shown(config.figure.absolute())}", markup=False, soft_wrap=True)
