"""Does the configuration make sense? Overlaps, layers over 100 %, names that nothing has, parameters with two owners.

The second check of a file (`fields.py` is the first). Everything found here would otherwise be found in the figures,
weeks later, or never: two layers with one salt look perfectly healthy until somebody crosses their arms.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from labkit.cli import nearest
from labkit.errors import LabError
from stage3_agents_llmops.experiments.conditions import OPERATORS
from stage3_agents_llmops.experiments.fields import rows
from stage3_agents_llmops.experiments.hashing import SEGMENTS
from stage3_agents_llmops.experiments.layers import UNITS

ROOT = "default"
NAME = re.compile(r"[A-Za-z0-9_-]+")  # no dot: it separates the parts that are hashed
ATTRIBUTE_KINDS = {"text": (str,), "number": (int, float), "yes/no": (bool,)}
METRIC_KINDS = {"proportion": ("column",), "mean": ("column",), "ratio": ("numerator", "denominator")}
Tables = Mapping[str, Any]


def problems(tables: Tables) -> Iterator[LabError]:
    """All that is wrong with tables whose fields are right."""
    yield from name_problems(tables)
    yield from reference_problems(tables)
    yield from traffic_problems(tables)
    yield from parameter_problems(tables)
    yield from salt_problems(tables)
    for row in rows(tables, "experiments"):
        yield from arm_problems(tables, row)
        yield from condition_problems(tables, row)
    yield from override_problems(tables)
    yield from metric_problems(tables)


def spans_of(traffic: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    """[0, 20] or [[0, 20], [50, 60]] in per cent as segments: ((0, 2000), (5000, 6000))."""
    spans = traffic if traffic and isinstance(traffic[0], list) else [traffic]
    return tuple((round(start * SEGMENTS / 100), round(end * SEGMENTS / 100)) for start, end in spans)


def unknown(what: str, name: Any, known: Sequence[str], where: str) -> LabError:
    """`experiment rerank is in the layer retreival, which does not exist`, with the nearest name."""
    best = nearest(str(name), list(known))
    return LabError(f"{where} {what} {name}, which does not exist", best or f"one of: {', '.join(known) or 'none yet'}")


def name_problems(tables: Tables) -> Iterator[LabError]:
    """Names that are taken twice, or hold what a name may not."""
    for section in ("layers", "domains", "experiments", "metrics"):
        names = [row["name"] for row in rows(tables, section)]
        kind = section.removesuffix("s")
        for name, count in Counter(names + ([ROOT] if section == "domains" else [])).items():
            if not NAME.fullmatch(name):
                yield LabError(f"{kind} {name!r} cannot be a name", "letters, digits, - and _")
            elif count > 1:
                yield LabError(f"there are {count} {section} called {name}", "a name of its own for each")


def reference_problems(tables: Tables) -> Iterator[LabError]:
    """Layers in domains, domains and experiments in layers, units: do they exist, and is everything reached?"""
    domains = [ROOT, *(row["name"] for row in rows(tables, "domains"))]
    layers = {row["name"]: row for row in rows(tables, "layers")}
    for name, row in layers.items():
        domain = row.get("domain", ROOT)
        if domain not in domains:
            yield unknown("is in the domain", domain, domains, f"layer {name}")
        elif row.get("launch") and domain != ROOT:
            yield LabError(f"launch layer {name} is in the domain {domain}: new defaults are for all traffic",
                           f'domain = "{ROOT}"')  # fmt: skip
    for section in ("domains", "experiments"):
        for row in rows(tables, section):
            where = f"{section.removesuffix('s')} {row['name']}"
            if row["layer"] not in layers:
                yield unknown("is in the layer", row["layer"], list(layers), where)
            elif section == "domains" and layers[row["layer"]].get("launch"):
                yield LabError(f"{where} is in the launch layer {row['layer']}", "a normal layer: domains cut traffic")
            if row.get("unit", "user") not in UNITS:
                yield unknown("diverts by", row["unit"], UNITS, where)
    yield from _circles(tables, layers)


def _circles(tables: Tables, layers: Mapping[str, Any]) -> Iterator[LabError]:
    """Domains that lie in themselves: no traffic ever reaches them."""
    parent = {
        row["name"]: layers[row["layer"]].get("domain", ROOT)
        for row in rows(tables, "domains") if row["layer"] in layers
    }  # fmt: skip
    for name in parent:
        seen, here = {name}, parent[name]
        while here in parent and here not in seen:
            seen.add(here)
            here = parent[here]
        if here in seen and here == name:
            yield LabError(f"domain {name} lies in itself", f'a layer of the domain "{ROOT}" for one of them')


def traffic_problems(tables: Tables) -> Iterator[LabError]:
    """Spans that are none, layers over 100 %, experiments that overlap."""
    owned: dict[tuple[str, str], list[tuple[int, int, str]]] = {}
    for section in ("experiments", "domains"):
        for row in rows(tables, section):
            where = f"{section.removesuffix('s')} {row['name']}"
            if problem := _span_problem(where, row["traffic"]):
                yield problem
                continue
            key = row["layer"], row.get("unit", "user")
            owned.setdefault(key, []).extend((*span, where) for span in spans_of(row["traffic"]))
    for (layer, unit), spans in owned.items():
        spans.sort()
        total = sum(end - start for start, end, _ in spans)
        if total > SEGMENTS:
            parts = ", ".join(f"{where} {(end - start) / 100:g} %" for start, end, where in spans)
            yield LabError(f"layer {layer} gives away {total / 100:g} % of its traffic by {unit}: {parts}",
                           "100 % in all, or another layer for one of them")  # fmt: skip
        for (_, end, one), (other_start, other_end, other) in pairwise(spans):
            if other_start < end:
                both = f"{other_start / 100:g} to {min(end, other_end) / 100:g} %"
                free = _free_span([span for span in spans if span[2] != other], other_end - other_start)
                yield LabError(f"{one} and {other} overlap in layer {layer} ({both} by {unit})", f"{other}: {free}")


def _span_problem(where: str, traffic: Any) -> LabError | None:
    spans = traffic if traffic and isinstance(traffic[0], list) else [traffic]
    for span in spans:
        if not isinstance(span, list):
            return LabError(f"traffic of {where} is no span in per cent", "traffic = [0, 50]")
        numbers = [each for each in span if isinstance(each, int | float) and not isinstance(each, bool)]
        if len(span) != 2 or len(numbers) != 2:
            return LabError(f"traffic of {where} is no span in per cent", "traffic = [0, 50]")
        if not 0 <= span[0] < span[1] <= 100:
            text = f"{span[0]:g} to {span[1]:g} %"
            return LabError(f"{where} asks for {text} of its layer's traffic", "from 0 to 100 %, rising: [0, 50]")
    return None


def _free_span(spans: Sequence[tuple[int, int, str]], size: int) -> str:
    """The first free place of that size in the layer, as advice."""
    here = 0
    for start, end in [*sorted((start, end) for start, end, _ in spans), (SEGMENTS, SEGMENTS)]:
        if start - here >= size:
            return f"traffic = [{here / 100:g}, {(here + size) / 100:g}] is free"
        here = max(here, end)
    return "a smaller span, or another layer"


def parameter_problems(tables: Tables) -> Iterator[LabError]:
    """Parameters: known, in one normal and one launch layer of a domain at most, nested ones part of what is around."""
    defaults = tables.get("parameters", {})
    for name, value in defaults.items():
        if not isinstance(value, str | int | float | bool):
            yield LabError(f"the default of parameter {name} is no text, number or truth value", f'{name} = "..."')
    layers = {row["name"]: row for row in rows(tables, "layers")}
    owner: dict[tuple[str, bool, str], str] = {}
    for name, row in layers.items():
        for parameter in row["parameters"]:
            if parameter not in defaults:
                yield unknown("holds the parameter", parameter, list(defaults), f"layer {name}")
                continue
            key = row.get("domain", ROOT), row.get("launch", False), parameter
            if key in owner:
                yield LabError(f"parameter {parameter} is in the layers {owner[key]} and {name} of one domain",
                               "one of them: two experiments would set it at once")  # fmt: skip
            owner.setdefault(key, name)
    for domain in rows(tables, "domains"):
        around = layers.get(domain["layer"], {"parameters": list(defaults)})["parameters"]
        for name, row in layers.items():
            for parameter in row["parameters"]:
                if row.get("domain", ROOT) == domain["name"] and parameter in defaults and parameter not in around:
                    message = f"layer {name} holds {parameter}, which the layer around it, {domain['layer']}, does not"
                    yield LabError(message, f"{parameter} in {domain['layer']} too, or not in {name}")


def salt_problems(tables: Tables) -> Iterator[LabError]:
    """Layers or experiments of one salt: whoever is in the first tenth of one is in the first tenth of the other."""
    for section in ("layers", "experiments"):
        salts: dict[str, str] = {}
        for row in rows(tables, section):
            salt = row.get("salt", row["name"])
            if salt in salts:
                message = f"{section} {salts[salt]} and {row['name']} share the salt {salt}: not independent"
                yield LabError(message, "a salt of its own for each, or none: it is the name then")
            salts.setdefault(salt, row["name"])


def arm_problems(tables: Tables, row: Mapping[str, Any]) -> Iterator[LabError]:
    """Arms: at least two outside launch layers, weights of 100 % in all, parameters of their layer and type."""
    where, arms = f"experiment {row['name']}", row["arms"]
    names = [arm["name"] for arm in arms]
    layer = next((each for each in rows(tables, "layers") if each["name"] == row["layer"]), None)
    if len(names) < 2 and not (layer or {}).get("launch"):
        yield LabError(f"{where} has {len(names)} arms: nothing to compare", "at least a control and a treatment")
    if len(set(names)) < len(names):
        yield LabError(f"{where} has two arms of one name", "a name of its own for each")
    for name in names:
        if not NAME.fullmatch(name):
            yield LabError(f"arm {name!r} of {where} cannot be a name", "letters, digits, - and _")
    if names and (problem := weight_problem(row["name"], names, {arm["name"]: arm["weight"] for arm in arms})):
        yield problem
    if not 0 <= row.get("coverage", 100) <= 100:
        yield LabError(f"{where} has a coverage of {row['coverage']:g} %", "a number from 0 to 100")
    defaults = tables.get("parameters", {})
    for arm in arms:
        for parameter, value in arm.get("parameters", {}).items():
            if layer is not None and parameter not in layer["parameters"]:
                yield unknown(f"sets the parameter (not of layer {row['layer']})", parameter, layer["parameters"],
                              f"arm {arm['name']} of {where}")  # fmt: skip
            elif parameter in defaults and not _same_type(value, defaults[parameter]):
                yield LabError(f"arm {arm['name']} of {where} sets {parameter} to {value!r}, its default is "
                               f"{defaults[parameter]!r}", "a value of the same type")  # fmt: skip


def weight_problem(experiment: str, arms: Sequence[str], weights: Mapping[str, float]) -> LabError | None:
    """What is wrong with the weights of an experiment's arms; None if nothing."""
    for name in weights:
        if name not in arms:
            best = nearest(name, list(arms))
            return LabError(f"experiment {experiment} has no arm {name}", best or f"one of: {', '.join(arms)}")
    missing = [name for name in arms if name not in weights]
    if missing:
        return LabError(f"arm {missing[0]} of experiment {experiment} has no weight", f"{missing[0]}=0: nobody")
    total = sum(weights.values())
    if any(weight < 0 for weight in weights.values()) or not abs(total - 100) <= 0.01:
        parts = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
        return LabError(f"the arms of experiment {experiment} take {total:g} % of it: {parts}",
                        "weights from 0 on that sum to 100")  # fmt: skip
    return None


def condition_problems(tables: Tables, row: Mapping[str, Any]) -> Iterator[LabError]:
    """Conditions on attributes that are declared, with operators that exist and values of the attribute's kind."""
    declared, where = tables.get("attributes", {}), f"experiment {row['name']}"
    for attribute, condition in row.get("when", {}).items():
        if attribute not in declared:
            yield unknown("asks for the attribute", attribute, list(declared), where)
            continue
        kinds = ATTRIBUTE_KINDS.get(str(declared[attribute]))
        on = f"the condition on {attribute} of {where}"
        for operator, operand in condition.items() if isinstance(condition, dict) else ():
            if operator not in OPERATORS:
                yield unknown("has the operator", operator, OPERATORS, on)
            elif isinstance(operand, dict) or (operator != "not" and isinstance(operand, list)):
                yield LabError(f"{operator} in {on} has no single value", f"{operator} = 3")
        if isinstance(condition, dict) and declared[attribute] != "number" and {"min", "max"} & set(condition):
            yield LabError(f"{on} has bounds, and {attribute} is a {declared[attribute]}", '{ not = "..." } or a list')
        for value in _values(condition):
            if kinds and not (isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))):
                yield LabError(f"{where} compares {attribute}, a {declared[attribute]}, with {value!r}",
                               "a value of that kind")  # fmt: skip
    if row is rows(tables, "experiments")[0]:
        for name, kind in declared.items():
            if not isinstance(kind, str) or kind not in ATTRIBUTE_KINDS:
                yield unknown("is a", kind, list(ATTRIBUTE_KINDS), f"attribute {name}")


def _values(condition: Any) -> Iterator[Any]:
    inner = condition.values() if isinstance(condition, dict) else condition if isinstance(condition, list) else None
    if inner is None:
        yield condition
    else:
        for each in inner:
            yield from _values(each)


def override_problems(tables: Tables) -> Iterator[LabError]:
    """Testers: the experiment and the arm exist, and nobody is sent into two arms."""
    experiments = {row["name"]: row for row in rows(tables, "experiments")}
    seen: dict[tuple[str, str], str] = {}
    for row in rows(tables, "overrides"):
        name, arm = row["experiment"], row["arm"]
        if name not in experiments:
            yield unknown("is for the experiment", name, list(experiments), "an override")
            continue
        arms = [each["name"] for each in experiments[name]["arms"]]
        if arm not in arms:
            yield unknown("sends testers to the arm", arm, arms, f"the override of {name}")
        for unit_id in map(str, row["ids"]):
            if seen.setdefault((name, unit_id), arm) != arm:
                yield LabError(f"tester {unit_id} is sent to the arms {seen[name, unit_id]} and {arm} of {name}",
                               "one of them")  # fmt: skip


def metric_problems(tables: Tables) -> Iterator[LabError]:
    """Metrics: a kind that exists, with the columns that it needs, and a direction."""
    for row in rows(tables, "metrics"):
        where, kind = f"metric {row['name']}", row["kind"]
        if kind not in METRIC_KINDS:
            yield unknown("is a", kind, list(METRIC_KINDS), where)
            continue
        for column in METRIC_KINDS[kind]:
            if column not in row:
                yield LabError(f"{where} is a {kind} and has no {column}", f'{column} = "..."')
        if row.get("better", "higher") not in ("higher", "lower"):
            yield unknown("is better when", row["better"], ("higher", "lower"), where)
        if row.get("margin", 0) < 0:
            yield LabError(f"{where} has a margin of {row['margin']:g}", "a number from 0 on")


def _same_type(value: Any, default: Any) -> bool:
    numbers = isinstance(value, int | float) and isinstance(default, int | float)
    truth = isinstance(value, bool) or isinstance(default, bool)
    return type(value) is type(default) or (numbers and not truth)
