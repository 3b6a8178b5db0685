"""What a set of runs says: every figure with the number of samples behind it, None where they are too few."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stage3_agents_llmops.monitoring.quantiles import BEYOND, sure_quantile
from stage3_agents_llmops.monitoring.run_record import ERRORS, SERVED, RunRecord

TOO_FEW = "too few samples"


@dataclass(frozen=True)
class Figure:
    """A value and how many samples it rests on; None is "too few samples"."""

    value: float | None
    n: int

    def __str__(self) -> str:
        return TOO_FEW if self.value is None else f"{self.value:.4g}"


@dataclass(frozen=True)
class Summary:
    """Figures of the four families and of safety.

    Attributes:
        n: all runs that were given; `errors` of them failed, were refused for want of room, or were lost.
        error_rate: errors among the runs that the customer did not cancel.
        p50, p95, p99, first_token_p95: seconds, of runs that were served (answered, waiting, human).
        input_tokens, output_tokens, cost: sums.
        retrieval_accuracy, wrong: shares of labelled probes.
        citation_clicks: share of the runs with citations in which one was opened.
        satisfaction: thumbs up among thumbs.
        resolved: share of those where it is known.
        handed_to_human, guardrails: share of all runs.
        unsafe: runs in which something unsafe was seen; a count, because one is too many.
    """

    n: int
    errors: int
    error_rate: Figure
    p50: Figure
    p95: Figure
    p99: Figure
    first_token_p95: Figure
    input_tokens: int
    output_tokens: int
    cost: float
    retrieval_accuracy: Figure
    wrong: Figure
    citation_clicks: Figure
    satisfaction: Figure
    resolved: Figure
    handed_to_human: Figure
    guardrails: Figure
    unsafe: int


def summarise(records: Iterable[RunRecord], beyond: int = BEYOND) -> Summary:
    """The figures of these runs, all of which count: choose customers or probes with `RunLog.window(probes=...)`.

    Args:
        beyond: samples that must lie beyond a percentile; 10 means 200 runs for P95.
    """
    runs = list(records)
    counted = [run for run in runs if run.status != "cancelled"]
    served = [run for run in runs if run.status in SERVED]
    durations = [run.duration_s for run in served if run.duration_s is not None]
    first = [run.first_token_s for run in served if run.first_token_s is not None]

    def quantile(values: Sequence[float], q: float) -> Figure:
        return Figure(sure_quantile(values, q, beyond), len(values))

    def labelled(value: Callable[[RunRecord], bool | None]) -> Figure:
        return share([flag for run in runs if (flag := value(run)) is not None])

    return Summary(
        n=len(runs),
        errors=sum(run.status in ERRORS for run in runs),
        error_rate=share([run.status in ERRORS for run in counted]),
        p50=quantile(durations, 0.5), p95=quantile(durations, 0.95), p99=quantile(durations, 0.99),
        first_token_p95=quantile(first, 0.95),
        input_tokens=sum(run.input_tokens for run in runs),
        output_tokens=sum(run.output_tokens for run in runs),
        cost=sum(run.cost for run in runs),
        retrieval_accuracy=labelled(lambda run: run.retrieval_hit),
        wrong=labelled(lambda run: run.wrong),
        citation_clicks=share([run.citation_clicks > 0 for run in runs if run.citations]),
        satisfaction=labelled(lambda run: run.feedback > 0 if run.feedback else None),
        resolved=labelled(lambda run: run.resolved),
        handed_to_human=share([run.handed_to_human for run in runs]),
        guardrails=share([run.guardrails > 0 for run in runs]),
        unsafe=sum(run.unsafe > 0 for run in runs),
    )  # fmt: skip


def share(flags: Sequence[bool]) -> Figure:
    """How many of them are true, as a share."""
    return Figure(sum(flags) / len(flags) if flags else None, len(flags))
