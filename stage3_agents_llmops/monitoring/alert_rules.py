"""Alert rules: read from alert_rules.toml, and written as Prometheus's alerts.yml."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from labkit.cli import nearest
from labkit.errors import LabError
from stage3_agents_llmops.monitoring.signals import SIGNALS, Reading

RULES = Path(__file__).with_name("alert_rules.toml")
ALERTS = Path(__file__).with_name("alerts.yml")
SEVERITIES = ("page", "ticket")  # now, or in the morning
FAMILIES = ("latency", "errors", "retrieval", "satisfaction", "safety", "drift", "traffic", "monitoring")
HEADER = "# Made from alert_rules.toml by `python -m stage3_agents_llmops.monitoring alerts --write FILE`.\n"


@dataclass(frozen=True)
class Rule:
    """One rule; exactly one of above and below is set. Times in seconds."""

    name: str
    family: str
    severity: str
    signal: str
    window: float
    hold: float  # `for` in the file: how long it must have been so
    least: int
    en: str
    zh: str
    above: float | None = None
    below: float | None = None

    def broken(self, reading: Reading) -> bool:
        """Whether a reading is past the threshold, and rests on enough samples to say so.

        Exactly on the threshold is fine; with fewer samples than `least` nothing is broken.
        """
        if reading.n < self.least:
            return False
        return reading.value > self.above if self.above is not None else reading.value < self.below

    def query(self) -> str:
        """The rule's condition in PromQL."""
        signal = SIGNALS[self.signal]
        sign, threshold = (">", self.above) if self.above is not None else ("<", self.below)
        condition = f"({signal.value}) {sign} {threshold:g}"
        if signal.samples and self.least > 1:
            condition += f"\nand {signal.samples} >= {self.least}"
        return condition.replace("$w", span(self.window)).replace("$n", str(self.least))


def span(seconds: float) -> str:
    """A duration as Prometheus writes it."""
    return f"{seconds:g}s" if seconds % 60 or not seconds else f"{seconds / 60:g}m"


def load_rules(path: Path = RULES, scale: float = 1.0) -> tuple[Rule, ...]:
    """The rules of a file.

    Args:
        scale: what windows and waiting times are multiplied with, for a shop with less traffic.

    Raises:
        LabError: no file, or a rule that makes no sense.
    """
    try:
        entries = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("rule", [])
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}", f"--rules {RULES.name}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is no TOML: {error}", f"the form of {RULES.name}") from None
    if scale <= 0 or not entries or not isinstance(entries, list):
        raise LabError(f"{path} has no rule, or the scale {scale:g} is not above 0", f"the form of {RULES.name}")
    rules = tuple(read_rule(entry, path) for entry in entries)
    names = [rule.name for rule in rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LabError(f"{path} has two rules {twice[0]}", "a name for each")
    return tuple(replace(rule, window=rule.window * scale, hold=rule.hold * scale) for rule in rules)


def read_rule(entry: dict[str, Any], path: Path) -> Rule:
    """One entry, checked: a rule with a typo would watch nothing and say nothing."""
    entry = {"hold" if name == "for" else name: value for name, value in entry.items()}
    name = entry.get("name", "?")
    known = tuple(Rule.__dataclass_fields__)
    if wrong := sorted(set(entry) - set(known)):
        best = nearest(wrong[0], known)
        raise LabError(f"{path}: rule {name} has no field {wrong[0]}", best or f"one of {', '.join(known)}")
    if missing := [field for field in known if field not in entry and field not in ("above", "below")]:
        raise LabError(f"{path}: rule {name} lacks {', '.join(missing)}", f"the form of {RULES.name}")
    if entry["signal"] not in SIGNALS:
        best = nearest(str(entry["signal"]), list(SIGNALS))
        raise LabError(f"{path}: rule {name}: no signal {entry['signal']}", best or f"one of {', '.join(SIGNALS)}")
    numbers = [entry[field] for field in ("window", "hold", "least", "above", "below") if field in entry]
    good = all(isinstance(value, int | float) and value >= 0 for value in numbers)
    worded = entry["severity"] in SEVERITIES and entry["family"] in FAMILIES
    if not good or not worded or ("above" in entry) == ("below" in entry):
        raise LabError(f"{path}: rule {name} needs numbers from 0 on, above or below, a severity and a family",
                       f"severity {' or '.join(SEVERITIES)}; family {', '.join(FAMILIES)}")  # fmt: skip
    return Rule(**entry)


def prometheus_rules(rules: Sequence[Rule]) -> str:
    """alerts.yml."""
    entries = []
    for rule in rules:
        subject = SIGNALS[rule.signal].subject
        about = f" ({{{{ $labels.{subject} }}}})" if subject else ""
        entries.append({
            "alert": rule.name, "expr": rule.query(), "for": span(rule.hold),
            "labels": {"severity": rule.severity, "family": rule.family},
            "annotations": {"summary": f"{rule.en}{about}", "summary_zh": f"{rule.zh}{about}",
                            "value": "{{ $value | humanize }}"},
        })  # fmt: skip
    groups = {"groups": [{"name": "customer-service", "interval": "5s", "rules": entries}]}
    return HEADER + yaml.dump(groups, Dumper=LinesDumper, sort_keys=False, allow_unicode=True, width=1000)


class LinesDumper(yaml.SafeDumper):
    """Text of several lines stays text of several lines."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


LinesDumper.add_representer(str, _text)
