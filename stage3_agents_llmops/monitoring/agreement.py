"""Do the metrics that Prometheus scrapes say what the table says? Every counter and bucket is computed a second way."""

from collections import defaultdict
from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families

from stage3_agents_llmops.monitoring.metrics import EDGES, TITLES
from stage3_agents_llmops.monitoring.run_record import SERVED, RunRecord

Sample = tuple[str, frozenset[tuple[str, str]]]


def scraped(text: str) -> dict[Sample, float]:
    """Samples of an exposition: (name, labels) -> value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def expected(runs: Sequence[RunRecord]) -> dict[Sample, float]:
    """The samples that rows stand for, counted one row at a time."""
    counts: dict[Sample, float] = defaultdict(float)

    def count(name: str, run: RunRecord, amount: float = 1, **labels: str) -> None:
        counts[name, frozenset({"release": run.release, "arm": run.arm, **labels}.items())] += amount

    for run in runs:
        if run.retrieval_hit is not None:
            count("llmops_probes_total", run, result="hit" if run.retrieval_hit else "miss")
        if run.wrong is not None:
            count("llmops_probe_answers_total", run, result="wrong" if run.wrong else "right")
        count("llmops_unsafe_total", run, run.unsafe > 0)
        if run.probe:
            continue
        count("llmops_runs_total", run, status=run.status)
        count("llmops_tokens_total", run, run.input_tokens, kind="input")
        count("llmops_tokens_total", run, run.output_tokens, kind="output")
        count("llmops_cost_total", run, run.cost)
        count("llmops_handed_to_human_total", run, run.handed_to_human)
        count("llmops_guardrail_total", run, run.guardrails > 0)
        count("llmops_cited_total", run, run.citations > 0)
        count("llmops_citation_clicked_total", run, run.citations > 0 and run.citation_clicks > 0)
        if run.feedback:
            count("llmops_feedback_total", run, score="up" if run.feedback > 0 else "down")
        if run.resolved is not None:
            count("llmops_resolved_total", run, resolved="yes" if run.resolved else "no")
        for name, title in TITLES.items():
            seconds = getattr(run, name)
            if run.status in SERVED and seconds is not None:
                count(f"llmops_{title}_count", run)
                count(f"llmops_{title}_sum", run, seconds)
                for edge in EDGES[name]:
                    count(f"llmops_{title}_bucket", run, seconds <= edge, le=str(edge))
    return counts


def disagreements(text: str, runs: Sequence[RunRecord]) -> list[str]:
    """Samples that are not what the rows say; a sample that is missing counts as 0."""
    shown = scraped(text)
    return [
        f"{name}{dict(labels)}: {shown.get((name, labels), 0.0):g} instead of {value:g}"
        for (name, labels), value in expected(runs).items()
        if abs(shown.get((name, labels), 0.0) - value) > 1e-6 * max(1.0, abs(value))
    ]
