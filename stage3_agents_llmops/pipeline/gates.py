"""May this candidate meet customers? Rules in a file, figures from the evaluation, three answers: pass, fail, hold.

    gates = load_gates(Path("gates.toml"))
    decision = decide(gates, candidate, champion)
    decision.verdict, [each.reason for each in decision.results if each.verdict != "pass"]

"Better than the champion" is the wrong question for a release that repairs a typing error, and "no significant
difference" is no answer at all: with ten questions nothing is significant. The question is non-inferiority: is it worse
by more than we would accept? The candidate and the champion answered the *same* questions, so their answers come in
pairs, and only questions on which they differ say anything. Without enough of them, or without the figure, the answer
is hold: a gate that passes what it cannot see is none.
"""

import math
import operator
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scipy.stats import norm

from labkit.cli import nearest
from labkit.errors import LabError

Verdict = Literal["pass", "fail", "hold"]
DEFAULT_FILE = Path(__file__).with_name("gates.toml")
OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
FIELDS = ("name", "metric", "op", "threshold", "margin", "better", "relative", "minimum_samples", "on_missing")


@dataclass(frozen=True)
class Figure:
    """One figure of an evaluation.

    Args:
        value: the figure; None: could not be measured.
        n: questions, conversations or turns behind it.
        outcomes: 1 right, 0 wrong, question by question; empty for figures that are no share.
        items: names the list of questions: outcomes of two releases are pairs only where it is equal.
    """

    value: float | None
    n: int
    outcomes: tuple[int, ...] = ()
    items: str = ""


@dataclass(frozen=True)
class Gate:
    """One rule of the file; one of `threshold`, `margin`, `relative` is set."""

    name: str
    metric: str
    op: str | None = None
    threshold: float | None = None
    margin: float | None = None
    better: str = "higher"
    relative: float | None = None
    minimum_samples: int = 1
    on_missing: str = "hold"


@dataclass(frozen=True)
class Gates:
    """The rules of a file and the confidence of their intervals."""

    rules: tuple[Gate, ...]
    confidence: float = 0.9


@dataclass(frozen=True)
class GateResult:
    """A rule's verdict and why."""

    gate: Gate
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Decision:
    """All verdicts: fail where one failed, else hold where one holds, else pass."""

    results: tuple[GateResult, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        verdicts = {result.verdict for result in self.results}
        return "fail" if "fail" in verdicts else "hold" if "hold" in verdicts else "pass"

    @property
    def reason(self) -> str:
        """Why not, in one line; empty for a pass."""
        return "; ".join(f"{each.gate.name}: {each.reason}" for each in self.results if each.verdict == self.verdict
                         and each.verdict != "pass")  # fmt: skip


# exercise: pipeline.paired_interval
def paired_interval(
    champion: Sequence[int], candidate: Sequence[int], confidence: float
) -> tuple[float, float]:
    """The interval of (candidate's share right - champion's) where both answered the same questions.

    Only questions on which they differ count: `won` by the candidate, `lost` to the champion. One is added to each, so
    that ten equal answers do not look like certainty: p = (won + 1) / (n + 2), q = (lost + 1) / (n + 2), and the
    interval is p - q -+ z * sqrt((p + q - (p - q)**2) / (n + 2)), within -1 and 1.

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", Journal of Educational and Behavioral Statistics 37(4).

    Args:
        champion, candidate: 1 right, 0 wrong, in the same order, (n,).
    """
    n = len(champion)
    won = sum(after > before for before, after in zip(champion, candidate, strict=True))
    lost = sum(after < before for before, after in zip(champion, candidate, strict=True))
    p, q = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(norm.ppf((1 + confidence) / 2)) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)
# end exercise


def decide(gates: Gates, candidate: Mapping[str, Figure], champion: Mapping[str, Figure] | None) -> Decision:
    """Judge a candidate's figures.

    Args:
        champion: its figures on the same questions; None: there is no champion yet, and comparisons pass.
    """
    return Decision(tuple(judge(gate, candidate, champion, gates.confidence) for gate in gates.rules))


def judge(
    gate: Gate, candidate: Mapping[str, Figure], champion: Mapping[str, Figure] | None, confidence: float
) -> GateResult:
    """One rule."""
    figure = candidate.get(gate.metric)
    if unseen := _unseen(figure, gate):
        return _missing(gate, f"the candidate's {gate.metric} {unseen}")
    if gate.threshold is not None:
        passed = OPERATORS[gate.op](figure.value, gate.threshold)
        return GateResult(gate, "pass" if passed else "fail", f"{figure.value:.4g} {gate.op} {gate.threshold:g}"
                          if passed else f"{figure.value:.4g} is not {gate.op} {gate.threshold:g}")  # fmt: skip
    if champion is None:
        return GateResult(gate, "pass", "there is no champion to compare with")
    against = champion.get(gate.metric)
    if unseen := _unseen(against, gate):
        return _missing(gate, f"the champion's {gate.metric} {unseen}")
    if gate.relative is not None:
        limit = gate.relative * against.value
        passed = figure.value <= limit
        text = f"{figure.value:.4g} against {against.value:.4g}, at most {gate.relative:g} times"
        return GateResult(gate, "pass" if passed else "fail", text)
    return _non_inferior(gate, figure, against, confidence)


def _non_inferior(gate: Gate, figure: Figure, against: Figure, confidence: float) -> GateResult:
    if not figure.outcomes or len(figure.outcomes) != len(against.outcomes) or figure.items != against.items:
        return _missing(gate, f"{gate.metric} of champion and candidate are not on the same questions")
    sign = 1 if gate.better == "higher" else -1
    low, high = paired_interval(against.outcomes, figure.outcomes, confidence)
    low, high = (low, high) if sign > 0 else (-high, -low)
    text = f"{figure.value:.3f} against {against.value:.3f}, difference from {low:+.3f} to {high:+.3f}"
    if low > -gate.margin:
        return GateResult(gate, "pass", f"{text}: above -{gate.margin:g}")
    if high < 0 or sign * (figure.value - against.value) < -gate.margin:
        return GateResult(gate, "fail", f"{text}: not above -{gate.margin:g}")
    return GateResult(gate, "hold", f"{text}: too few questions to exclude a loss of {gate.margin:g}")


def _unseen(figure: Figure | None, gate: Gate) -> str:
    """Why a figure cannot be judged; empty when it can."""
    if figure is None or figure.value is None or not math.isfinite(figure.value):
        return "is missing"
    if figure.n < gate.minimum_samples:
        return f"rests on {figure.n} of {gate.minimum_samples} samples"
    return ""


def _missing(gate: Gate, reason: str) -> GateResult:
    return GateResult(gate, "pass" if gate.on_missing == "pass" else "hold", reason)


def load_gates(path: Path = DEFAULT_FILE) -> Gates:
    """Read the file.

    Raises:
        LabError: not there, no TOML, an unknown or missing field, a value that cannot be: one line with the nearest
            right word.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"there are no gates at {path}", f"--gates {DEFAULT_FILE}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is no TOML: {error}", "put that line right") from None
    for name in table:
        if name not in ("gate", "on_missing", "confidence"):
            raise _wrong(path, f"unknown field {name}", nearest(name, ["gate", "on_missing", "confidence"]))
    rules, confidence = table.get("gate"), table.get("confidence", 0.9)
    if not isinstance(rules, list) or not rules:
        raise _wrong(path, "it has no [[gate]]", None)
    if not _number(confidence) or not 0.5 < confidence < 1:
        raise _wrong(path, f"confidence {confidence} is none", "0.9")
    return Gates(tuple(_gate(path, table, rule, place) for place, rule in enumerate(rules, 1)), confidence)


def _gate(path: Path, table: Mapping[str, Any], rule: Mapping[str, Any], place: int) -> Gate:
    from stage3_agents_llmops.pipeline.evaluation import METRICS

    where = f"gate {place}"
    for name in rule:
        if name not in FIELDS:
            raise _wrong(path, f"{where}: unknown field {name}", nearest(name, FIELDS))
    metric = rule.get("metric")
    if metric not in METRICS:
        raise _wrong(path, f"{where}: no metric is called {metric}", nearest(str(metric), list(METRICS)))
    where = f"{where} ({metric})"
    kinds = [name for name in ("threshold", "margin", "relative") if name in rule]
    if len(kinds) != 1:
        raise _wrong(path, f"{where}: it needs one of threshold, margin, relative", None)
    for name in (*kinds, "minimum_samples"):
        if name in rule and (not _number(rule[name]) or rule[name] < 0):
            raise _wrong(path, f"{where}: {name} {rule[name]!r} is no number from 0 on", None)
    if kinds == ["threshold"] and rule.get("op") not in OPERATORS:
        raise _wrong(path, f"{where}: op {rule.get('op')!r} is none", " ".join(OPERATORS))
    if kinds == ["margin"] and not METRICS[metric]:
        raise _wrong(path, f"{where}: it is no share, so a margin has no interval", "relative = 1.5")
    for name, known in (("better", ("higher", "lower")), ("on_missing", ("hold", "pass"))):
        value = rule.get(name, table.get(name, known[0]))
        if value not in known:
            raise _wrong(path, f"{where}: {name} {value!r} is none", nearest(str(value), known) or " or ".join(known))
    fallback = {"name": metric, "on_missing": table.get("on_missing", "hold")}
    return Gate(**{**fallback, **rule})


def _wrong(path: Path, what: str, right: str | None) -> LabError:
    return LabError(f"{path}: {what}", right or f"see {DEFAULT_FILE.name} of the lab")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
