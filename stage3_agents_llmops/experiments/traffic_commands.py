"""The commands around the traffic: assign, validate, ramp, independence."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from labkit.cli import nearest, option, require_at_least
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console
from labkit.runs import Run, start_run
from stage3_agents_llmops.experiments.arms import consecutive_ranges
from stage3_agents_llmops.experiments.assignment import Experiments
from stage3_agents_llmops.experiments.configuration import DEFAULT_FILE, all_problems, parse_file, read_setup
from stage3_agents_llmops.experiments.domains import layers_of
from stage3_agents_llmops.experiments.figures import plot_independence, plot_ramps, plot_tree
from stage3_agents_llmops.experiments.independence import every_pair, labels, with_shared_salt
from stage3_agents_llmops.experiments.ramping import STEPS, Step, canary_steps, ramp

CONFIG_HELP = "the experiments, a TOML file"
INDEPENDENT = 0.001
SHARED = 1e-6


@dataclass(frozen=True)
class AssignConfig:
    """Whom."""

    user: str | None = option(None, "user id")
    session: str | None = option(None, "session id")
    message: str | None = option(None, "message id")
    attributes: str = option("", "what conditions ask for: language=zh,orders=3,returning=yes")
    force: str = option("", "arms to force for this event: rerank=treatment")
    config: Path = option(DEFAULT_FILE, CONFIG_HELP)


@dataclass(frozen=True)
class ValidateConfig:
    """Which file."""

    config: Path = option(DEFAULT_FILE, CONFIG_HELP)


@dataclass(frozen=True)
class RampConfig:
    """A canary's way from little to all."""

    steps: str = option(",".join(map(str, STEPS)), "weights of the canary, in per cent")
    units: int = option(20_000, "users")
    name: str = option("release-canary", "the experiment: its salt")


@dataclass(frozen=True)
class IndependenceConfig:
    """Whom to cross."""

    units: int = option(20_000, "users")
    config: Path = option(DEFAULT_FILE, CONFIG_HELP)


RAMP_PRESETS = {"smoke": RampConfig(units=500), "cpu": RampConfig(), "study": RampConfig(units=200_000)}
INDEPENDENCE_PRESETS = {
    "smoke": IndependenceConfig(units=2_000), "cpu": IndependenceConfig(), "study": IndependenceConfig(units=200_000),
}  # fmt: skip


def pairs_of(flag: str, text: str) -> dict[str, str]:
    """`a=1,b=2` as a mapping.

    Raises:
        LabError: a part without an equals sign.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if bad := next((part for part in parts if "=" not in part), None):
        raise LabError(f"{flag} {bad} has no value", f"{flag} {bad}=...")
    return {name.strip(): value.strip() for name, value in (part.split("=", 1) for part in parts)}


def typed_attributes(text: str, declared: dict[str, str]) -> dict[str, object]:
    """Attributes with the types that the configuration declares.

    Raises:
        LabError: one that is not declared, or a value of another type.
    """
    values: dict[str, object] = {}
    for name, value in pairs_of("--attributes", text).items():
        if name not in declared:
            best = nearest(name, list(declared))
            raise LabError(f"there is no attribute {name}", best or f"one of: {', '.join(declared) or 'none declared'}")
        try:
            values[name] = {"text": str, "number": float, "yes/no": _truth}[declared[name]](value)
        except (ValueError, KeyError):
            example = {"number": "3", "yes/no": "yes"}[declared[name]]
            raise LabError(f"{name} is a {declared[name]}, not {value}", f"--attributes {name}={example}") from None
    return values


def _truth(value: str) -> bool:
    return {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}[value.lower()]


def run_assign(config: AssignConfig, preset: str) -> None:
    """Print what an event gets: arms by layer, then every parameter."""
    experiments = Experiments.load(config.config)
    ids = {kind: getattr(config, kind) for kind in ("user", "session", "message") if getattr(config, kind)}
    if not ids:
        raise LabError("whom to assign?", "assign --user u-1")
    attributes = typed_attributes(config.attributes, experiments.setup.attributes)
    assignment = experiments.assign(ids, attributes, pairs_of("--force", config.force))
    table = Table(box=None, pad_edge=False)
    for title in ("layer", "experiment", "arm", "by", ""):
        table.add_column(title)
    for layer, chosen in assignment.arms.items():
        forced = "forced: not in the analysis" if chosen.forced else ""
        table.add_row(layer, chosen.experiment, chosen.arm, f"{chosen.unit} {chosen.unit_id}", forced)
    for name in assignment.biased:
        table.add_row(experiments.experiment(name).layer, name, "-", "", "condition not fulfilled: takes no part")
    console.print(table)
    defaults = experiments.setup.parameters
    for name, value in assignment.parameters.items():
        console.print(f"{name} = {value!r}" + ("" if value == defaults[name] else f"   (default {defaults[name]!r})"))


def run_validate(config: ValidateConfig, preset: str) -> int:
    """Print all that is wrong, or how the traffic is cut."""
    found = all_problems(parse_file(config.config))
    for problem in found:
        console.print(f"error: {problem.message}\n  try: {problem.try_next}", markup=False, soft_wrap=True)
    if found:
        console.print(f"{config.config}: {len(found)} problem{'s' * (len(found) > 1)}", markup=False, soft_wrap=True)
        return 2
    setup = read_setup(config.config)
    with start_run("stage3", "experiments", "validate", config) as run:
        plot_tree(setup.root, run.dir / "tree.png")
        run.figure("tree.png", "layers, nested domains and experiments")
        table = Table(box=None, pad_edge=False)
        for title in ("layer", "domain", "parameters", "holds"):
            table.add_column(title)
        for depth, layer in layers_of(setup.root):
            holds = [f"{each.name} {_traffic(each.spans)}" for each in (*layer.domains, *layer.experiments)]
            table.add_row("  " * depth + layer.name, layer.domain, ", ".join(layer.parameters), ", ".join(holds))
        console.print(table)
        count = sum(len(layer.experiments) for _, layer in layers_of(setup.root))
        console.print(f"{config.config}: valid, {count} experiments", markup=False, soft_wrap=True)


def _traffic(spans: tuple[tuple[int, int], ...]) -> str:
    return " and ".join(f"{start / 100:g}-{end / 100:g} %" for start, end in spans)


def read_steps(text: str) -> list[float]:
    """`1,5,25` as rising per cent.

    Raises:
        LabError: no numbers from 0 to 100, or they do not rise.
    """
    try:
        steps = [float(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if not steps or steps != sorted(set(steps)) or steps[0] < 0 or steps[-1] > 100:
        raise LabError(f"--steps {text} are no rising per cent", "--steps 1,5,25,50,100")
    return steps


def measure_ramps(run: Run, units: int, steps: list[float], name: str) -> dict[str, list[Step]]:
    """The ramp with a same-size baseline, and its negative control; figures and metrics go into the run."""
    ids = [f"u-{number}" for number in range(units)]
    two = canary_steps(["champion", "canary"], "canary", steps)
    three = canary_steps(["champion", "baseline", "canary"], "canary", steps, alike=["baseline"])
    ramps = {
        "champion and canary": ramp(two, ids, name),
        "with a same-size baseline": ramp(three, ids, name),
        "the same, ranges side by side": ramp(three, ids, name, consecutive_ranges),
    }
    plot_ramps(ramps, run.dir / "ramp.png")
    run.figure("ramp.png", "a canary's ramp: shares of the arms, and users moved for nothing")
    strays = [sum(step.strays for step in result) for result in ramps.values()]
    run.metric("ramp_strays", strays[0] + strays[1], "users", (0, 0), "users moved to an arm that did not grow")
    run.metric("ramp_strays_control", strays[2], "users", (1, None), "the same with ranges: must not be 0")
    worst = max(
        abs(step.counts["canary"] - units * step.weights["canary"] / 100)
        / max(1.0, (units * step.weights["canary"] / 100 * (1 - step.weights["canary"] / 100)) ** 0.5)
        for step in ramps["champion and canary"]
    )
    run.metric("ramp_worst_share", worst, "", (None, 4), "standard errors between the canary's size and its weight")
    return ramps


def run_ramp(config: RampConfig, preset: str) -> None:
    """Every step's arms and moves."""
    require_at_least(config, 1, "units")
    steps = read_steps(config.steps)
    with start_run("stage3", "experiments", "ramp", config, preset) as run:
        for title, result in measure_ramps(run, config.units, steps, config.name).items():
            console.print(f"[bold]{title}[/bold]")
            table = Table(box=None, pad_edge=False)
            for heading in ("weights", "units", "moved into", "strays"):
                table.add_column(heading)
            for step in result:
                weights = ", ".join(f"{arm} {weight:g}" for arm, weight in step.weights.items())
                counts = ", ".join(f"{count:,}" for count in step.counts.values())
                moves = ", ".join(f"{old} > {new} {count:,}" for (old, new), count in step.moves.items())
                table.add_row(weights, counts, moves, f"{step.strays:,}")
            console.print(table)
        run.learnt("A canary that grows from 1 to 100 % moves users into the canary only: weighted rendezvous hashing")


def measure_independence(run: Run, experiments: Experiments, units: int) -> dict[str, dict[tuple[str, str], float]]:
    """p-values of every pair of layers, with their own salts and with a shared one; figures and metrics."""
    ids = [f"u-{number}" for number in range(units)]
    tables = {
        "a salt for every layer": every_pair(labels(experiments.root, ids)),
        "one salt for all": every_pair(labels(with_shared_salt(experiments.root), ids)),
    }
    plot_independence(tables, run.dir / "independence.png")
    run.figure("independence.png", "chi-square p-values of every pair of layers, with their own and with a shared salt")
    own, shared = (min(p_values.values(), default=1.0) for p_values in tables.values())
    run.metric("independence_p", own, "", (INDEPENDENT, None), f"of {len(tables['one salt for all'])} pairs")
    run.metric("shared_salt_p", shared, "", (None, SHARED), "the same with one salt for all layers")
    return tables


def run_independence(config: IndependenceConfig, preset: str) -> None:
    """Every pair's p-value, as it is and with a shared salt."""
    require_at_least(config, 100, "units")
    experiments = Experiments.load(config.config)
    with start_run("stage3", "experiments", "independence", config, preset) as run:
        tables = measure_independence(run, experiments, config.units)
        table = Table(box=None, pad_edge=False)
        for title in ("layer", "layer", *tables):
            table.add_column(title, justify="right" if "salt" in title else "left")
        own, shared = tables.values()
        for pair in own:
            table.add_row(*pair, f"{own[pair]:.3g}", f"{shared.get(pair, float('nan')):.3g}")
        console.print(table)
        write_json(run.dir / "p_values.json", {" x ".join(pair): [own[pair], shared.get(pair)] for pair in own})
        run.learnt("Layers with a salt each are independent; with one salt for all, their arms hang together")
