"""`demo`: the whole lab on simulated customers whose true effects are known; what `make stage3` runs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from labkit.cli import option, require_at_least
from labkit.progress import console
from labkit.runs import Run, shown, start_run
from labkit.summary import metric_table
from labkit.timing import Timer
from stage3_agents_llmops.experiments.analysis import Analysis, analyse
from stage3_agents_llmops.experiments.analysis_commands import (
    SIMULATE_PRESETS,
    make_page,
    measure_peeking,
    record_power,
)
from stage3_agents_llmops.experiments.assignment import Experiments
from stage3_agents_llmops.experiments.configuration import DEFAULT_FILE
from stage3_agents_llmops.experiments.customers import EFFECTS, simulate_customers
from stage3_agents_llmops.experiments.events import read_events
from stage3_agents_llmops.experiments.exposure_log import Exposure, read_exposures
from stage3_agents_llmops.experiments.figures import plot_effects, plot_sample_ratio
from stage3_agents_llmops.experiments.ramping import STEPS
from stage3_agents_llmops.experiments.sample_ratio import ALARM, alarm_power, sample_ratio
from stage3_agents_llmops.experiments.traffic_commands import measure_independence, measure_ramps

LOSS, WANTED_POWER = 0.08, 0.95
DEMO_LOSS = 0.2  # rerank has half the users of the bar: 8 % of them would be caught in two of three cases only
ADVICE = {"rerank": "ship", "short-prompt": "stop", "hint": "ship", "warm-tone": "go on"}  # what the truth calls for


@dataclass(frozen=True)
class DemoConfig:
    """How many."""

    customers: int = option(20_000, "simulated customers; also the users of ramp and independence")
    repeats: int = option(500, "simulated losses for the sample-ratio alarm")
    config: Path = option(DEFAULT_FILE, "the experiments, a TOML file")
    seed: int = option(1, "of customers and simulations")


PRESETS = {
    "smoke": DemoConfig(customers=2_000, repeats=100),
    "cpu": DemoConfig(),
    "study": DemoConfig(customers=100_000, repeats=5_000),
}
PRESETS["gpu"] = PRESETS["study"]  # nothing here computes on a GPU


def run_demo(config: DemoConfig, preset: str) -> None:
    """Assign, log, analyse, ramp, cross, peek; one table with what was to be expected."""
    require_at_least(config, 1_000, "customers")
    require_at_least(config, 1, "repeats")
    experiments = Experiments.load(config.config)
    with start_run("stage3", "experiments", "demo", config, preset, config.seed) as run:
        measure_assignment(run, experiments)
        measure_ramps(run, config.customers, [float(step) for step in STEPS], "release-canary")
        measure_independence(run, experiments, config.customers)
        measure_sample_ratio(run, config)
        peeking = measure_peeking(run, replace(SIMULATE_PRESETS[preset], seed=config.seed))
        record_power(run, 0.8, [0.01, 0.02, 0.03, 0.05])
        analyses = measure_analyses(run, experiments, config, full=preset != "smoke")
        console.print(peeking)
        console.print(_advice(analyses))
        console.print(metric_table(run.report["metrics"]))
        console.print(f"reports: {shown(run.dir)}/*.html", markup=False, soft_wrap=True)
        run.learnt("40 looks at p < .05 find an effect in about 30 % of A/A tests; a sequential test in 5 % at most")
        run.learnt("A salt each makes layers independent; a race of arms lets a canary grow and moves nobody else")
        run.next("python -m stage3_agents_llmops.experiments report --experiment rerank")


def measure_assignment(run: Run, experiments: Experiments, events: int = 2_000) -> None:
    """How long one assignment takes, in this process's own processor time."""
    ids = [{"user": f"timed-{number}", "session": f"s-{number}"} for number in range(events)]
    timer = Timer()
    for each in ids:
        experiments.assign(each, {"orders": 2})
    micro = 1e6 * timer.seconds / events
    run.metric("assignment", micro, "us", (None, 1_000), "one event through all layers, wall time")


def measure_sample_ratio(run: Run, config: DemoConfig) -> None:
    """The alarm's power by formula and by simulation, and its quiet when nothing is lost."""
    draw = np.random.default_rng(config.seed)
    arm, weights = 10_000, {"control": 1.0, "treatment": 1.0}

    def rate(loss: float) -> float:
        first = draw.binomial(2 * arm, 0.5, config.repeats)
        kept = draw.binomial(2 * arm - first, 1 - loss)
        return float(np.mean([
            sample_ratio({"control": int(one), "treatment": int(two)}, weights).alarm
            for one, two in zip(first, kept, strict=True)
        ]))  # fmt: skip

    simulated = {loss: rate(loss) for loss in (0.02, 0.05, LOSS)}
    plot_sample_ratio(run.dir / "sample_ratio.png", simulated, 2 * arm)
    run.figure("sample_ratio.png", "chance of the sample-ratio alarm against the loss of one arm")
    meaning = "8 % of one arm lost, 20,000 users"
    run.metric("sample_ratio_power", alarm_power(2 * arm, LOSS), "", (WANTED_POWER, None), f"{meaning}: by formula")
    run.metric("sample_ratio_seen", simulated[LOSS], "", (WANTED_POWER, None), f"{meaning}: simulated")
    quiet = rate(0.0)
    run.metric("sample_ratio_quiet", quiet, "", (None, ALARM + 4 * (ALARM / config.repeats) ** 0.5), "none lost")


def measure_analyses(
    run: Run, experiments: Experiments, config: DemoConfig, full: bool = True
) -> dict[str, Analysis]:
    """Customers through all experiments; what the analysis says beside what is true."""
    log, events = run.dir / "exposures.sqlite", run.dir / "runs.sqlite"
    simulate_customers(experiments, config.customers, log, events, config.seed)
    columns = sorted({column for metric in experiments.setup.metrics for column in metric.columns})
    analyses: dict[str, Analysis] = {}
    inside, intervals = 0, 0
    for name in ADVICE:
        rows = read_events(events, name, columns)
        exposures = read_exposures(log, name)
        weights = experiments.weights(name)
        analyses[name] = analyse(name, weights, experiments.setup.metrics, rows, exposures)
        truth = true_effects(name, analyses[name])
        for result in analyses[name].results:
            if (true := truth.get((result.arm, result.metric.name))) is not None:
                intervals += 1
                inside += result.low <= true <= result.high
        make_page(run, analyses[name], events.name)
    plot_effects(analyses["rerank"], run.dir / "truth.png", true_effects("rerank", analyses["rerank"]))
    run.figure("truth.png", "rerank: measured effects; the black marks are the true ones")
    run.metric("effects_covered", inside / intervals, "", (0.9, None), f"of {intervals} intervals for any time")
    advised = sum(analyses[name].advice["treatment"][0] == wanted for name, wanted in ADVICE.items())
    run.metric("advice_right", advised, "experiments", (len(ADVICE), None) if full else None, "of 4")
    broken = lose(read_exposures(log, "rerank"), "treatment", DEMO_LOSS, config.seed)
    rows = read_events(events, "rerank", columns)
    spoilt = analyse("rerank", experiments.weights("rerank"), experiments.setup.metrics, rows, broken)
    caught = spoilt.advice["treatment"][0] == "do not read"
    run.metric("loss_caught", caught, "", (1, None) if full else None, f"{DEMO_LOSS:.0%} of an arm removed")
    return analyses


def lose(exposures: list[Exposure], arm: str, share: float, seed: int) -> list[Exposure]:
    """The exposures without a share of one arm's: a slow arm whose customers leave before they are logged."""
    draw = np.random.default_rng(seed)
    return [each for each in exposures if each.arm != arm or draw.random() >= share]


def true_effects(experiment: str, analysis: Analysis) -> dict[tuple[str, str], float]:
    """(arm, metric) -> the effect that the simulation put in, in the metric's unit."""
    truth: dict[tuple[str, str], float] = {}
    for result in analysis.results:
        change = EFFECTS.get((experiment, result.arm))
        slower = (change.slower if change else 1.0) - 1.0
        values = {
            "resolved": change.resolved if change else 0.0,
            "handed-over": change.handed_over if change else 0.0,
            "spend": change.spend if change else 0.0,
            "seconds-per-message": slower * result.effect.control,
        }  # fmt: skip
        if result.metric.name in values:
            truth[result.arm, result.metric.name] = values[result.metric.name]
    return truth


def _advice(analyses: dict[str, Analysis]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("experiment", "units", "says", "because", "the truth calls for"):
        table.add_column(title)
    for name, analysis in analyses.items():
        advice, reasons = analysis.advice["treatment"]
        units = " / ".join(f"{count:,}" for count in analysis.ratio.counts.values())
        table.add_row(name, units, advice, "; ".join(reasons), ADVICE[name])
    return table
