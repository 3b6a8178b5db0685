"""From a TOML file to the tree of domains, layers and experiments; everything is validated before anything is built."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.experiments.arms import Arm, Experiment, Value
from stage3_agents_llmops.experiments.domains import Domain
from stage3_agents_llmops.experiments.fields import field_problems, rows
from stage3_agents_llmops.experiments.layers import Layer
from stage3_agents_llmops.experiments.validation import ROOT, problems, spans_of

DEFAULT_FILE = Path(__file__).with_name("experiments.toml")


@dataclass(frozen=True)
class MetricSpec:
    """What to measure: a proportion or a mean of one column, or a ratio of two, for every unit.

    `margin` is the loss that a guardrail accepts: percentage points for a proportion, per cent of the control's
    figure for the others.
    """

    name: str
    kind: str
    column: str = ""
    numerator: str = ""
    denominator: str = ""
    covariate: str = ""
    better: str = "higher"
    guardrail: bool = False
    margin: float = 2.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the events that it needs."""
        return tuple(name for name in (self.column, self.numerator, self.denominator, self.covariate) if name)


@dataclass(frozen=True)
class Setup:
    """A validated configuration."""

    root: Domain
    parameters: dict[str, Value]
    attributes: dict[str, str] = field(default_factory=dict)
    overrides: dict[tuple[str, str], str] = field(default_factory=dict)  # (experiment, id of its unit) -> arm
    metrics: tuple[MetricSpec, ...] = ()


def parse_file(path: str | Path) -> dict[str, Any]:
    """The file's tables, not validated.

    Raises:
        LabError: it is missing or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise LabError(f"there is no file {path}", f"--config {DEFAULT_FILE.name}, or copy that of the lab") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is no TOML: {error}", "mend that line") from None


def all_problems(tables: Mapping[str, Any]) -> list[LabError]:
    """Everything that is wrong; when fields are, nothing else is looked at."""
    return list(field_problems(tables)) or list(problems(tables))


def read_setup(path: str | Path) -> Setup:
    """The setup that a file describes.

    Raises:
        LabError: the first thing that is wrong, with the file's name and how many more there are.
    """
    return read_tables(parse_file(path), str(path))


def read_tables(tables: Mapping[str, Any], source: str = "the configuration") -> Setup:
    """The same from tables.

    Raises:
        LabError: as `read_setup`.
    """
    if found := all_problems(tables):
        more = f" (and {len(found) - 1} more: `validate` shows all)" if len(found) > 1 else ""
        raise LabError(f"{source}: {found[0].message}{more}", found[0].try_next)
    return Setup(
        build_domain(ROOT, tables), dict(tables.get("parameters", {})), dict(tables.get("attributes", {})),
        {(row["experiment"], str(unit_id)): row["arm"] for row in rows(tables, "overrides") for unit_id in row["ids"]},
        tuple(MetricSpec(**row) for row in rows(tables, "metrics")),
    )  # fmt: skip


def build_domain(name: str, tables: Mapping[str, Any]) -> Domain:
    """A domain with all that lies in it, from tables that are valid."""
    layers = tuple(
        build_layer(row, tables) for row in rows(tables, "layers") if row.get("domain", ROOT) == name
    )
    row = next((row for row in rows(tables, "domains") if row["name"] == name), None)
    return Domain(name, layers, row.get("unit", "user"), spans_of(row["traffic"])) if row else Domain(name, layers)


def build_layer(row: Mapping[str, Any], tables: Mapping[str, Any]) -> Layer:
    """A layer with its experiments and nested domains."""
    name, salt = row["name"], row.get("salt", row["name"])
    return Layer(
        name, row.get("domain", ROOT), tuple(row["parameters"]), salt, row.get("launch", False),
        tuple(build_experiment(each, salt) for each in rows(tables, "experiments") if each["layer"] == name),
        tuple(build_domain(each["name"], tables) for each in rows(tables, "domains") if each["layer"] == name),
    )  # fmt: skip


def build_experiment(row: Mapping[str, Any], layer_salt: str) -> Experiment:
    """An experiment; its salt is its layer's and its name unless the file gives one."""
    arms = tuple(Arm(arm["name"], float(arm["weight"]), arm.get("parameters", {})) for arm in row["arms"])
    return Experiment(
        row["name"], row["layer"], row.get("unit", "user"), spans_of(row["traffic"]), arms,
        row.get("salt", f"{layer_salt}.{row['name']}"), row.get("coverage", 100) / 100, row.get("when", {}),
    )  # fmt: skip
