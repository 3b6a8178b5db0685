"""`ablate`: exchange one part of the model at a time, keep all else, and compare the validation loss.

Every variant sees the same batches in the same order, so that a difference comes from the part. One seed shows a
direction; three seeds (preset `study`) show whether it is larger than chance: the table gives mean and range.
"""

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.table import Table

from labkit.cli import nearest, option
from labkit.device import choose_device
from labkit.errors import LabError
from labkit.files import write_json, write_text
from labkit.plots import new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage1_foundations.gpt.distributed import World
from stage1_foundations.gpt.train_config import TrainConfig
from stage1_foundations.gpt.training import new_trainer


@dataclass(frozen=True)
class AblateConfig:
    """How long each variant trains."""

    data: str = option("tiny-shakespeare", "catalog name or a UTF-8 text file")
    groups: str = option("position,norm,feed-forward,optimiser", "which parts to exchange, with commas; or all")
    steps: int = option(50, "optimiser steps of each variant")
    seeds: int = option(1, "runs of each variant")
    evaluations: int = option(3, "validations a run")
    validation: int = option(16_000, "validation tokens judged; 0 for the whole part")
    threads: int = option(0, "CPU threads; 0 leaves torch's choice")


PRESETS = {
    "smoke": AblateConfig(steps=4, evaluations=2, validation=2_000),
    "cpu": AblateConfig(),
    "study": AblateConfig(groups="all", steps=400, seeds=3, evaluations=8, validation=0),
}
PRESETS["gpu"] = PRESETS["study"]

BASE = TrainConfig(
    layers=4, heads=4, width=128, context=64, batch=24, weight_decay=0.0, sample_every=0, dtype="auto"
)

# group -> variant -> what differs from BASE; the first of each group is BASE itself
GROUPS: dict[str, dict[str, dict]] = {
    "position": {
        "rope": {}, "learned": {"position": "learned"}, "sinusoidal": {"position": "sinusoidal"},
        "alibi": {"position": "alibi"}, "none": {"position": "none"},
    },
    "norm": {"rmsnorm": {}, "layernorm": {"norm": "layernorm"}, "none": {"norm": "none"}},
    "feed-forward": {"relu2": {}, "gelu": {"feed_forward": "gelu"}, "swiglu": {"feed_forward": "swiglu"}},
    "optimiser": {
        "muon": {}, "adamw lr 0.01": {"optimizer": "adamw"}, "adamw lr 0.003": {"optimizer": "adamw", "lr": 0.003},
    },
    "bigram table": {"without": {}, "with": {"bigram": True}},
    "shape": {"modern": {}, "gpt2": {"shape": "gpt2"}, "llama": {"shape": "llama"}},
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One variant, all its seeds."""

    group: str
    name: str
    curves: list[list[tuple[int, float]]]  # per seed: (step, validation loss)
    seconds: float  # of one seed
    parameters: int

    @property
    def losses(self) -> list[float]:
        """Final validation loss of every seed."""
        return [curve[-1][1] for curve in self.curves]


def run_ablate(config: AblateConfig, preset: str) -> None:
    """Train every variant, print the table, draw the curves."""
    groups = chosen_groups(config.groups)
    if config.threads:
        torch.set_num_threads(config.threads)
    with start_run("stage1", "gpt", "ablate", config, preset=preset, seed=1) as run:
        results = run_variants(config, groups)
        console.print(as_table(results))
        record(run, results)


def chosen_groups(words: str) -> list[str]:
    """The groups of `--groups`, in the order of GROUPS.

    Raises:
        LabError: there is no such group.
    """
    if words == "all":
        return list(GROUPS)
    asked = [word.strip() for word in words.split(",")]
    for word in asked:
        if word not in GROUPS:
            best = nearest(word, list(GROUPS)) or ",".join(GROUPS)
            raise LabError(f"no part is called {word!r}", f'--groups "{best}"')
    return [group for group in GROUPS if group in asked]


def run_variants(config: AblateConfig, groups: list[str]) -> list[Result]:
    """All variants; the base is trained once and stands first in every group."""
    done: dict[TrainConfig, Result] = {}
    results = []
    jobs = [(group, name, change) for group in groups for name, change in GROUPS[group].items()]
    distinct = len({replace(BASE, **change) for _, _, change in jobs})
    with progress(total=distinct * config.seeds, description="ablate") as bar:
        for group, name, change in jobs:
            train_config = replace(BASE, data=config.data, steps=config.steps, **change)
            if train_config not in done:
                bar.note(f"{group}: {name}")
                done[train_config] = run_variant(config, train_config, bar)
            results.append(replace(done[train_config], group=group, name=name))
    return results


def run_variant(config: AblateConfig, train_config: TrainConfig, bar: progress) -> Result:
    """Train one variant with every seed."""
    device = choose_device("auto")
    curves, seconds, parameters = [], 0.0, 0
    every = max(1, config.steps // config.evaluations)
    for seed in range(1, config.seeds + 1):
        trainer = new_trainer(replace(train_config, seed=seed), World(), device)
        if config.validation:
            trainer.validation_tokens = trainer.validation_tokens[: config.validation + 1]
        curve = []
        for step in range(1, config.steps + 1):
            trainer.step()
            if step % every == 0 or step == config.steps:
                curve.append((step, trainer.validate()))
        curves.append(curve)
        seconds, parameters = seconds + trainer.seconds / config.seeds, trainer.model.parameter_count()
        bar.advance()
    return Result("", "", curves, seconds, parameters)


def loss_text(result: Result) -> str:
    """Mean and, with several seeds, the range."""
    mean = statistics.mean(result.losses)
    if len(result.losses) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} [{min(result.losses):.3f}, {max(result.losses):.3f}]"


def difference(result: Result, results: list[Result]) -> float:
    """Mean loss minus the base's."""
    return statistics.mean(result.losses) - statistics.mean(results[0].losses)


def as_table(results: list[Result]) -> Table:
    """For the terminal."""
    table = Table(title="One part exchanged at a time", caption="validation loss, nats per character")
    for column in ("part", "variant", "loss", "to base", "s", "parameters"):
        table.add_column(column, justify="left" if column in ("part", "variant") else "right")
    group = ""
    for result in results:
        if group and result.group != group:
            table.add_section()
        shown_group, group = (result.group if result.group != group else ""), result.group
        table.add_row(shown_group, result.name, loss_text(result), f"{difference(result, results):+.3f}",
                      f"{result.seconds:.1f}", f"{result.parameters:,}")  # fmt: skip
    return table


def record(run: Run, results: list[Result]) -> None:
    """JSON, Markdown, figure and metrics."""
    rows = [{"group": r.group, "name": r.name, "losses": r.losses, "seconds": r.seconds, "parameters": r.parameters,
             "curves": r.curves} for r in results]  # fmt: skip
    write_json(run.dir / "ablation.json", rows)
    lines = ["| part | variant | loss | to base | seconds | parameters |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {r.group} | {r.name} | {loss_text(r)} | {difference(r, results):+.3f} | {r.seconds:.1f} "
        f"| {r.parameters:,} |"
        for r in results
    ]
    write_text(run.dir / "ablation.md", "\n".join(lines) + "\n")
    run.artefact("ablation.json", kind="results")
    run.artefact("ablation.md", kind="table")
    run.figure(draw(results, run.dir / "ablation.png"), "validation loss against step, one part exchanged at a time")
    worst = max(results, key=lambda r: difference(r, results))
    for result in results:
        if GROUPS[result.group][result.name]:  # not the base itself
            key = f"{result.group}_{result.name}".replace(" ", "_").replace("-", "_").replace(".", "_")
            run.metric(key, difference(result, results), "nats", meaning="to base")
    run.learnt(
        f"Of the parts exchanged, {worst.group} = {worst.name} costs most: {difference(worst, results):+.2f} nats per "
        f"character after {worst.curves[0][-1][0]} steps."
    )
    run.next("python -m stage1_foundations.gpt sample")


def draw(results: list[Result], path: Path) -> Path:
    """Small multiples: a panel a part, at most three in a row."""
    groups = list(dict.fromkeys(result.group for result in results))
    columns = min(3, len(groups)) if len(groups) != 4 else 2
    rows = -(-len(groups) // columns)
    fig, axes = new_figure(rows, columns, width=3.2 * columns, height=2.9 * rows, sharey=True, squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    for axis, group in zip(axes.flat, groups, strict=False):
        for result in (r for r in results if r.group == group):
            points = list(zip(*result.curves, strict=True))  # per evaluation: one (step, loss) a seed
            steps = [point[0][0] for point in points]
            axis.plot(steps, [statistics.mean(loss for _, loss in point) for point in points], label=result.name)
        axis.set(title=group, xlabel="step")
        axis.legend()
    for axis in axes[:, 0]:
        axis.set(ylabel="nats per character")
    return save_figure(fig, path)
