"""What the hand-in's /metrics says between two moments, held against what the grader saw itself.

    llmops_run_seconds{release}            histogram: a customer's request until the run's end
    llmops_tokens_total{release, kind}     counter; kind is input or output
    llmops_probes_total{release, result}   counter of labelled questions; result is hit or miss
    llmops_feedback_total{release, score}  counter of thumbs; score is up or down

Counters are compared by how much they grew, so what they stood at before does not matter. Every release counts; what
bears the label arm="shadow" does not, because nobody sees its answers.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from milestones.customer_traffic import SeenRun
from milestones.learner_model import LearnerFault

SECONDS, TOKENS, PROBES, FEEDBACK = (
    "llmops_run_seconds", "llmops_tokens_total", "llmops_probes_total", "llmops_feedback_total",
)  # fmt: skip
UNSEEN = "shadow"  # an arm whose answers no customer gets
LABELS = ("le", "kind", "result", "score")
QUANTILES = (0.5, 0.95)
APART = 1.0  # the figure where there is nothing to compare


@dataclass(frozen=True)
class Reported:
    """What was counted, all releases together; `buckets` are cumulative counts by upper edge."""

    buckets: Mapping[float, float]
    seconds: float
    runs: float
    tokens: Mapping[str, float]
    probes: Mapping[str, float]
    feedback: Mapping[str, float]


def read_metrics(text: str) -> Reported:
    """The families from the text format.

    Raises:
        LearnerFault: it is not that format, or a family is missing.
    """
    sums: dict[tuple[str, str], float] = defaultdict(float)
    names = set()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                names.add(sample.name)
                if sample.labels.get("arm") == UNSEEN:
                    continue
                labels = [sample.labels[name] for name in LABELS if name in sample.labels]
                sums[sample.name, labels[0] if labels else ""] += sample.value
    except ValueError as error:
        raise LearnerFault(f"/metrics is not Prometheus' text format: {error}") from None
    wanted = (f"{SECONDS}_bucket", f"{SECONDS}_sum", f"{SECONDS}_count", TOKENS, PROBES, FEEDBACK)
    if missing := [name for name in wanted if name not in names]:
        raise LearnerFault(f"/metrics has no {missing[0]}")

    def family(name: str) -> dict[str, float]:
        return {label: value for (each, label), value in sums.items() if each == name}

    buckets = {float(edge): count for edge, count in family(f"{SECONDS}_bucket").items()}
    seconds, runs = sums[f"{SECONDS}_sum", ""], sums[f"{SECONDS}_count", ""]
    return Reported(buckets, seconds, runs, family(TOKENS), family(PROBES), family(FEEDBACK))


def growth(before: Reported, after: Reported) -> Reported:
    """What was added between two moments."""

    def grown(old: Mapping, new: Mapping) -> dict:
        return {name: value - old.get(name, 0.0) for name, value in new.items()}

    return Reported(
        grown(before.buckets, after.buckets), after.seconds - before.seconds, after.runs - before.runs,
        grown(before.tokens, after.tokens), grown(before.probes, after.probes),
        grown(before.feedback, after.feedback),
    )  # fmt: skip


def latency_apart(said: Reported, seen: Sequence[SeenRun]) -> tuple[float, str]:
    """The largest relative difference of runs, mean, P50 and P95. A quantile agrees within the bucket that it is in."""
    times = sorted(run.seconds for run in seen)
    if not times or said.runs <= 0:
        return APART, f"{said.runs:.0f} runs reported, {len(times)} seen"
    mean, told = sum(times) / len(times), said.seconds / said.runs
    apart = [relative(said.runs, len(times)), relative(told, mean)]
    parts = [f"mean {told:.2f} s, seen {mean:.2f}"]
    for q in QUANTILES:
        exact = times[math.ceil(q * len(times)) - 1]
        low, high = bucket_of(said.buckets, q)
        apart.append(0.0 if low <= exact <= high else min(relative(low, exact), relative(high, exact)))
        parts.append(f"P{100 * q:.0f} {low:g} to {high:g} s, seen {exact:.2f}")
    return max(apart), "; ".join([f"{said.runs:.0f} runs, seen {len(times)}", *parts])


def bucket_of(buckets: Mapping[float, float], q: float) -> tuple[float, float]:
    """Lower and upper edge of the bucket that holds a quantile."""
    edges = sorted(buckets)
    rank = q * buckets[edges[-1]]
    place = next(i for i, edge in enumerate(edges) if buckets[edge] >= rank)
    return (edges[place - 1] if place else 0.0), edges[place]


def tokens_apart(said: Reported, seen: Sequence[SeenRun]) -> tuple[float, str]:
    """The larger relative difference of tokens in and out."""
    sums = {"input": sum(run.input_tokens for run in seen), "output": sum(run.output_tokens for run in seen)}
    told = {kind: said.tokens.get(kind, 0.0) for kind in sums}
    message = ", ".join(f"{kind} {told[kind]:.0f}, seen {sums[kind]}" for kind in sums)
    return max(relative(told[kind], sums[kind]) for kind in sums), message


def retrieval_apart(
    said: Reported, probes: Sequence[tuple[str, bool]], seen: Sequence[SeenRun]
) -> tuple[float, str]:  # fmt: skip
    """The difference of shares of right articles: reported, of the probes that came to the services, of customers.

    Customers ask the same questions, though not as often each; every probe is held against what they got for its
    question.

    Args:
        probes: (question, hit) of the probes that the watched services saw.
    """
    hits, misses = said.probes.get("hit", 0.0), said.probes.get("miss", 0.0)
    found: dict[str, list[bool]] = defaultdict(list)
    for run in seen:
        found[run.question.text].append(run.found)
    expected = [sum(found[question]) / len(found[question]) for question, _ in probes if question in found]
    if not expected or hits + misses <= 0:
        return APART, f"{hits + misses:.0f} probes reported, {len(probes)} asked"
    share, right = hits / (hits + misses), sum(hit for _, hit in probes) / len(probes)
    customers = sum(expected) / len(expected)
    apart = max(abs(share - right), abs(share - customers), max(0.0, relative(hits + misses, len(probes)) - 0.1))
    asked = f"{right:.2f} of {len(probes)} asked, customers {customers:.2f}"
    return apart, f"{share:.2f} of {hits + misses:.0f} reported, {asked}"


def satisfaction_apart(said: Reported, seen: Sequence[SeenRun]) -> tuple[float, str]:
    """The larger difference of thumbs up and down, as a share of all thumbs."""
    thumbs = {"up": sum(run.thumb > 0 for run in seen), "down": sum(run.thumb < 0 for run in seen)}
    told = {score: said.feedback.get(score, 0.0) for score in thumbs}
    message = ", ".join(f"{score} {told[score]:.0f}, given {thumbs[score]}" for score in thumbs)
    total = sum(thumbs.values())
    return max(relative(total + told[score] - thumbs[score], total) for score in thumbs), message


def relative(said: float, seen: float) -> float:
    """How far apart, as a share of what was seen."""
    return abs(said - seen) / seen if seen else (0.0 if not said else APART)
