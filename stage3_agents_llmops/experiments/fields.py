"""Which fields the configuration has, and of which type: a typing mistake is named, never passed over in silence.

The first of the two checks of a file; `validation.py` asks afterwards whether it makes sense.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from labkit.cli import nearest
from labkit.errors import LabError

WORDS = {str: "text", bool: "true or false", float: "a number", list: "a list", dict: "a table"}


class Field(NamedTuple):
    """One field of a table: its type, an example, whether it must be there, and what a list may hold."""

    kind: type
    example: str
    required: bool = False
    items: tuple[type, ...] = ()


ARMS = {
    "name": Field(str, 'name = "treatment"', True),
    "weight": Field(float, "weight = 50", True),
    "parameters": Field(dict, "parameters = { top_k = 8 }"),
}
SECTIONS = {
    "layers": {
        "name": Field(str, 'name = "retrieval"', True),
        "domain": Field(str, 'domain = "overlapping"'),
        "parameters": Field(list, 'parameters = ["top_k"]', True, (str,)),
        "salt": Field(str, 'salt = "retrieval-2"'),
        "launch": Field(bool, "launch = true"),
    },
    "domains": {
        "name": Field(str, 'name = "overlapping"', True),
        "layer": Field(str, 'layer = "split"', True),
        "traffic": Field(list, "traffic = [10, 100]", True),
        "unit": Field(str, 'unit = "user"'),
    },
    "experiments": {
        "name": Field(str, 'name = "rerank"', True),
        "layer": Field(str, 'layer = "retrieval"', True),
        "traffic": Field(list, "traffic = [0, 50]", True),
        "arms": Field(list, 'arms = [{ name = "control", weight = 50 }, { name = "treatment", weight = 50 }]', True),
        "unit": Field(str, 'unit = "user"'),
        "coverage": Field(float, "coverage = 20"),
        "when": Field(dict, 'when = { language = "zh" }'),
        "salt": Field(str, 'salt = "rerank-second-run"'),
    },
    "overrides": {
        "experiment": Field(str, 'experiment = "rerank"', True),
        "arm": Field(str, 'arm = "treatment"', True),
        "ids": Field(list, 'ids = ["tester-1"]', True, (str, int)),
    },
    "metrics": {
        "name": Field(str, 'name = "resolved"', True),
        "kind": Field(str, 'kind = "proportion"', True),
        "column": Field(str, 'column = "resolved"'),
        "numerator": Field(str, 'numerator = "seconds"'),
        "denominator": Field(str, 'denominator = "messages"'),
        "covariate": Field(str, 'covariate = "spend_before"'),
        "better": Field(str, 'better = "higher"'),
        "guardrail": Field(bool, "guardrail = true"),
        "margin": Field(float, "margin = 2"),
    },
}
TOP = {"parameters": "[parameters]", "attributes": "[attributes]"} | {name: f"[[{name}]]" for name in SECTIONS}


def field_problems(tables: Mapping[str, Any]) -> Iterator[LabError]:
    """Unknown, missing and mistyped fields."""
    for name, value in tables.items():
        if name not in TOP:
            best = nearest(name, list(TOP))
            yield LabError(f"there is no section {name}", TOP[best] if best else f"one of: {', '.join(TOP)}")
        elif name in SECTIONS and not (isinstance(value, list) and all(isinstance(row, dict) for row in value)):
            yield LabError(f"{name} is no list of tables", f"[[{name}]] above each")
        elif name not in SECTIONS and not isinstance(value, dict):
            yield LabError(f"{name} is no table", f"[{name}]")
    for section in SECTIONS:
        for place, row in enumerate(rows(tables, section), 1):
            where = described(section, row, place)
            yield from _row_problems(where, row, SECTIONS[section])
            if section == "experiments" and isinstance(row.get("arms"), list):
                for number, arm in enumerate(row["arms"], 1):
                    if isinstance(arm, dict):
                        yield from _row_problems(f"arm {arm.get('name', number)} of {where}", arm, ARMS)
                    else:
                        yield LabError(f"arm {number} of {where} is no table", '{ name = "control", weight = 50 }')


def rows(tables: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """The tables of a section that are tables."""
    value = tables.get(section, [])
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def described(section: str, row: Mapping[str, Any], place: int) -> str:
    """`experiment rerank`, or `experiment number 3` for one without a name."""
    name = row.get("name") or row.get("experiment")
    return f"{section.removesuffix('s')} {name if isinstance(name, str) else f'number {place}'}"


def _row_problems(where: str, row: Mapping[str, Any], fields: Mapping[str, Field]) -> Iterator[LabError]:
    for name, value in row.items():
        if name not in fields:
            best = nearest(name, [known for known in fields if known not in row])
            advice = fields[best].example if best else f"one of: {', '.join(fields)}"
            yield LabError(f"{where} has an unknown field {name}", advice)
        elif fields[name].items and isinstance(value, list):
            if not all(isinstance(item, fields[name].items) for item in value):
                yield LabError(f"{name} of {where} must be a list of names", fields[name].example)
        elif not _is(value, fields[name].kind):
            yield LabError(f"{name} of {where} must be {WORDS[fields[name].kind]}", fields[name].example)
    for name, field in fields.items():
        if field.required and name not in row:
            yield LabError(f"{where} has no {name}", field.example)


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind)
