"""The commands around the figures: simulate (peeking), analyse, report, plan."""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.table import Table

from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.files import sha256_file, write_json
from labkit.progress import console
from labkit.runs import Run, latest_run, shown, start_run
from stage3_agents_llmops.experiments.analysis import Analysis, analyse
from stage3_agents_llmops.experiments.assignment import Experiments, experiments_of
from stage3_agents_llmops.experiments.configuration import DEFAULT_FILE
from stage3_agents_llmops.experiments.events import read_events
from stage3_agents_llmops.experiments.exposure_log import read_exposures
from stage3_agents_llmops.experiments.figures import plot_effects, plot_peeking, plot_power
from stage3_agents_llmops.experiments.peeking import MSPRT, NAIVE, SEQUENCE, alarms, p_values, simulate, stopping_units
from stage3_agents_llmops.experiments.power import (
    plan,
    sequential_units_needed,
    smallest_effect,
)
from stage3_agents_llmops.experiments.report_page import write_report
from stage3_agents_llmops.experiments.traffic_commands import pairs_of


@dataclass(frozen=True)
class SimulateConfig:
    """A/A tests, and A/B tests of a known effect, looked at again and again."""

    simulations: int = option(1_000, "experiments")
    units: int = option(4_000, "users in each arm at the last look")
    looks: int = option(40, "how often somebody looks, evenly spaced")
    rate: float = option(0.8, "the control's proportion, for example of satisfied customers")
    effect: float = option(0.04, "of the A/B tests that show what the protection costs")
    tau: float = option(0.03, "mSPRT: standard deviation of the effects that are thought possible")
    seed: int = option(1, "of the simulation")


@dataclass(frozen=True)
class AnalyseConfig:
    """Which experiment, from which files."""

    experiment: str | None = option(None, "its name")
    events: Path | None = option(None, "SQLite or CSV: unit, arm, experiment, metrics; none is the latest demo's")
    exposures: Path | None = option(None, "SQLite, CSV or JSONL; none: who has events was exposed")
    table: str = option("runs", "the table of a SQLite file")
    weights: str = option("", "champion=90,canary=10 where other weights than the configuration's were in force")
    config: Path = option(DEFAULT_FILE, "the experiments and metrics, a TOML file")


@dataclass(frozen=True)
class PlanConfig:
    """What is to be found, and how many come."""

    baseline: float = option(0.8, "the control's proportion; with --deviation, its mean")
    effect: float = option(0.03, "the smallest difference that would change what you do")
    deviation: float | None = option(None, "standard deviation of the metric for a mean; none is a proportion")
    units_per_day: float = option(500.0, "new users a day")
    traffic: float = option(100.0, "per cent of them that the experiment gets")
    smaller_arm: float = option(50.0, "per cent of the experiment in its smaller arm; units are for arms of one size")
    alpha: float = option(0.05, "false alarms that are accepted")
    power: float = option(0.8, "chance to find the effect if it is there")


SIMULATE_PRESETS = {
    "smoke": SimulateConfig(simulations=200, units=1_000, looks=20), "cpu": SimulateConfig(),
    "study": SimulateConfig(simulations=20_000), "gpu": SimulateConfig(simulations=20_000),
}  # fmt: skip


def measure_peeking(run: Run, config: SimulateConfig) -> Table:
    """A/A and A/B simulations for every way of looking; figure, metrics, and the table to print."""
    same = simulate(config.simulations, config.units, config.looks, config.rate, 0.0, config.seed)
    different = simulate(config.simulations, config.units, config.looks, config.rate, config.effect, config.seed + 1)
    tuned_for = 2.0 * config.units
    false, found = (alarms(paths, config.tau, tuned_for) for paths in (same, different))
    plot_peeking(same, false, run.dir / "peeking.png")
    run.figure("peeking.png", f"{config.simulations} A/A tests with {config.looks} looks: false alarms of each way")
    table = Table(box=None, pad_edge=False)
    for title in ("way of looking", "A/A: false alarms", f"A/B {config.effect:+g}: found", "users an arm, on average"):
        table.add_column(title, justify="left" if title.startswith("way") else "right")
    once = (p_values(same)[:, -1] < 0.05).mean(), (p_values(different)[:, -1] < 0.05).mean()
    table.add_row("p < .05, one look at the end", f"{once[0]:.1%}", f"{once[1]:.1%}", f"{config.units:,}")
    for way in false:
        users = stopping_units(found[way], different.units)
        rates = [f"{stopped[:, -1].mean():.1%}" for stopped in (false[way], found[way])]
        table.add_row(way, *rates, f"{users:,.0f}")
    names = {NAIVE: "peeking_naive", MSPRT: "peeking_msprt", SEQUENCE: "peeking_sequence"}
    for way, name in names.items():
        band = (0.15, None) if way == NAIVE else (None, 0.05)
        meaning = f"A/A false alarms, {config.looks} looks, {way}"
        run.metric(name, float(false[way][:, -1].mean()), "", band, meaning)
    return table


def run_simulate(config: SimulateConfig, preset: str) -> None:
    """The peeking lesson."""
    require_at_least(config, 1, "simulations", "units", "looks")
    if config.units < config.looks:
        raise LabError(f"{config.units} users are not enough for {config.looks} looks", f"--looks {config.units}")
    if not 0 < config.rate < 1 or not 0 < config.rate + config.effect < 1:
        raise LabError("--rate and --rate + --effect must be between 0 and 1", "--rate 0.8 --effect 0.03")
    if config.tau <= 0:
        raise LabError(f"--tau {config.tau:g} is not possible", "--tau 0.03: the size of effect that you expect")
    with start_run("stage3", "experiments", "simulate", config, preset, config.seed) as run:
        console.print(measure_peeking(run, config))
        run.learnt("40 looks at p < .05 find an effect in about 30 % of A/A tests; a sequential test in 5 % at most")


def with_demo_files(config: AnalyseConfig) -> AnalyseConfig:
    """The same with the events and exposures of the latest demo where no events were named.

    Raises:
        LabError: there was no demo yet.
    """
    if config.events is not None:
        return config
    demo = latest_run("stage3", "experiments", "demo")
    if demo is None:
        raise LabError("there are no events yet", "demo first, or --events FILE")
    return replace(config, events=demo / "runs.sqlite", exposures=config.exposures or demo / "exposures.sqlite")


def load_analysis(config: AnalyseConfig) -> Analysis:
    """The analysis that a command asks for.

    Raises:
        LabError: files, experiment or weights that are not there.
    """
    experiments = Experiments.load(config.config)
    metrics = experiments.setup.metrics
    if not metrics:
        raise LabError(f"{config.config} has no metrics", "[[metrics]] name, kind and column")
    if config.experiment is None:
        names = [name for name, each in experiments_of(experiments.root).items() if len(each.arms) > 1]
        raise LabError("which experiment?", f"--experiment with one of: {', '.join(names)}")
    experiment = experiments.experiment(config.experiment)
    columns = sorted({column for metric in metrics for column in metric.columns})
    events = read_events(config.events, experiment.name, columns, config.table)
    exposures = None if config.exposures is None else read_exposures(config.exposures, experiment.name)
    weights = {arm.name: arm.weight for arm in experiment.arms}
    if config.weights:
        weights = _weights(config.weights, list(weights))
    return analyse(experiment.name, weights, metrics, events, exposures)


def _weights(text: str, arms: list[str]) -> dict[str, float]:
    try:
        given = {name: float(value) for name, value in pairs_of("--weights", text).items()}
    except ValueError:
        raise LabError(f"--weights {text} are no numbers", f"--weights {arms[0]}=50,...") from None
    if unknown := next((name for name in given if name not in arms), None):
        raise LabError(f"--weights: there is no arm {unknown}", f"arms: {', '.join(arms)}")
    return {arm: given.get(arm, 0.0) for arm in arms}


def show_analysis(analysis: Analysis) -> None:
    """Tables: arms, metrics, advice."""
    expected = analysis.ratio.expected
    arms = [f"{arm} {count:,} (expected {expected.get(arm, 0):,.0f})" for arm, count in analysis.ratio.counts.items()]
    lines = [f"units: {', '.join(arms)}; sample ratio p = {analysis.ratio.p_value:.3g}"]
    lines[0] += "  ALARM" if analysis.ratio.alarm else ""
    double, stray = len(analysis.exposed.multiple), analysis.unexposed
    if double or stray:
        lines.append(f"left out: {double:,} units in two arms, {stray:,} with events and no exposure")
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for title in ("metric", "arm", "control", "difference", "at any time, 95 %", "p, one look", ""):
        table.add_column(title, justify="left" if title in ("metric", "arm", "") else "right")
    for each in analysis.results:
        note = each.guardrail.verdict if each.guardrail else {1: "better", -1: "worse", 0: ""}[each.surely]
        table.add_row(
            each.metric.name, each.arm, f"{each.effect.control:.4g}", f"{each.effect.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}", f"{each.effect.p_value:.3g}", note,
        )  # fmt: skip
    console.print(table)
    for arm, (advice, reasons) in analysis.advice.items():
        console.print(f"{arm}: {advice} ({'; '.join(reasons)})", style="bold", markup=False, soft_wrap=True)


def record_analysis(run: Run, analysis: Analysis) -> None:
    """The figures as JSON in the run's folder."""
    rows = [
        {"metric": each.metric.name, "arm": each.arm,
         "control": each.effect.control, "treatment": each.effect.treatment, "difference": each.effect.difference,
         "low": each.low, "high": each.high, "p_value": each.effect.p_value,
         "guardrail": each.guardrail.verdict if each.guardrail else None}
        for each in analysis.results
    ]  # fmt: skip
    finite = [{name: None if isinstance(value, float) and not math.isfinite(value) else value
               for name, value in row.items()} for row in rows]  # fmt: skip
    write_json(run.dir / "analysis.json", {
        "experiment": analysis.experiment, "control": analysis.control, "units": analysis.ratio.counts,
        "sample_ratio_p": analysis.ratio.p_value, "multiple": len(analysis.exposed.multiple), "metrics": finite,
        "advice": {arm: {"do": advice, "why": list(why)} for arm, (advice, why) in analysis.advice.items()},
    })  # fmt: skip
    run.artefact("analysis.json", "analysis")


def run_analyse(config: AnalyseConfig, preset: str) -> None:
    """Figures and advice for one experiment."""
    config = with_demo_files(config)
    analysis = load_analysis(config)
    with start_run("stage3", "experiments", "analyse", config, preset) as run:
        run.data(config.events.name, sha256_file(config.events), config.events.stat().st_size)
        show_analysis(analysis)
        record_analysis(run, analysis)


def run_report(config: AnalyseConfig, preset: str) -> None:
    """The same as a page to send round."""
    config = with_demo_files(config)
    analysis = load_analysis(config)
    with start_run("stage3", "experiments", "report", config, preset) as run:
        show_analysis(analysis)
        record_analysis(run, analysis)
        page = make_page(run, analysis, str(config.events))
        console.print(f"open {shown(page)}", markup=False, soft_wrap=True)


def make_page(run: Run, analysis: Analysis, source: str) -> Path:
    """The HTML page of an analysis in the run's folder."""
    figure = plot_effects(analysis, run.dir / f"effects-{analysis.experiment}.png")
    run.figure(figure.name, f"effects of {analysis.experiment} with both intervals")
    captions = ("Thick: valid for one look. Thin: valid at any time.", "粗线：只看一次时有效；细线：任意时刻有效。")
    made = f"{datetime.now():%Y-%m-%d %H:%M}, {source}, {run.dir.name}"
    page = write_report(run.dir / f"{analysis.experiment}.html", analysis, [(figure, *captions)], made)
    run.artefact(page.name, "report")
    return page


def run_plan(config: PlanConfig, preset: str) -> None:
    """Units and days, for one look and for looking all the time; a curve of power."""
    for name in ("units_per_day", "traffic", "smaller_arm"):
        if getattr(config, name) <= 0:
            raise LabError(f"--{name.replace('_', '-')} {getattr(config, name):g} is not possible", "a number above 0")
    if not (0 < config.alpha < 1 and config.alpha < config.power < 1):
        given = f"--alpha {config.alpha:g} --power {config.power:g}"
        raise LabError(f"{given} are not possible", "--alpha 0.05 --power 0.8")
    before, after = variances(config)
    with start_run("stage3", "experiments", "plan", config, preset) as run:
        wanted = plan(
            config.effect, before, after, config.units_per_day, config.traffic / 100, config.smaller_arm / 100,
            config.alpha, config.power,
        )  # fmt: skip
        table = Table(box=None, pad_edge=False)
        for title in ("", "users in each arm", "days"):
            table.add_column(title, justify="right" if title else "left")
        table.add_row("one look at the end", f"{wanted.units_per_arm:,}", f"{wanted.days:.1f}")
        table.add_row("looking all the time", f"{wanted.sequential_units_per_arm:,}", f"{wanted.sequential_days:.1f}")
        console.print(table)
        if wanted.days < 7:
            console.print("run it for whole weeks all the same: weekends are other people", style="dim")
        weekly = int(7 * config.units_per_day * config.traffic * config.smaller_arm / 10_000)
        if weekly >= 2:
            found = smallest_effect(weekly, before, after, config.alpha, config.power)
            console.print(f"one week finds an effect from {found:.4g} on", markup=False, soft_wrap=True)
        run.metric("units_per_arm", wanted.units_per_arm, "users", meaning="one look at the end")
        run.metric("sequential_units_per_arm", wanted.sequential_units_per_arm, "users", meaning="looking all the time")
        if config.deviation is None:
            effects = [effect for effect in np.round([config.effect / 2, config.effect, 2 * config.effect], 6).tolist()
                       if 0 < config.baseline + effect < 1]  # fmt: skip
            record_power(run, config.baseline, effects)


def record_power(run: Run, rate: float, effects: list[float]) -> None:
    """The power curves of some effects on a proportion, with a cross where looking all the time reaches 80 %."""
    crosses = {
        effect: sequential_units_needed(abs(effect), rate * (1 - rate), (rate + effect) * (1 - rate - effect))
        for effect in effects
    }  # fmt: skip
    plot_power(rate, effects, run.dir / "power.png", crosses)
    run.figure("power.png", "chance to find an effect against users in each arm")


def variances(config: PlanConfig) -> tuple[float, float]:
    """Variance of one user's value in the control and in the treatment.

    Raises:
        LabError: a proportion that is none.
    """
    if config.deviation is not None:
        if config.deviation <= 0:
            raise LabError(f"--deviation {config.deviation:g} is not possible", "a number above 0")
        return config.deviation**2, config.deviation**2
    new = config.baseline + config.effect
    if not (0 < config.baseline < 1 and 0 < new < 1):
        raise LabError(f"a proportion of {config.baseline:g} and {new:g} is not possible",
                       "--baseline 0.8 --effect 0.03, or --deviation for a mean")  # fmt: skip
    return config.baseline * (1 - config.baseline), new * (1 - new)
