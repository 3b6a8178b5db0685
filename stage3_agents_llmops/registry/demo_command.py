"""`demo`: the life of five releases, with everything that can happen to them; what `make stage3` runs."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from labkit.cli import option, require_at_least
from labkit.progress import console, progress
from labkit.runs import shown, start_run
from labkit.summary import metric_table
from stage3_agents_llmops.registry.interface import PROG


@dataclass(frozen=True)
class DemoConfig:
    """How much of it."""

    share: float = option(1.0, "of the training utterances: less is quicker and worse")
    races: int = option(4, "rounds of two processes that want the same alias")
    kills: int = option(6, "publishers that are killed")
    payload: int = option(24, "MB that each of them wanted to publish")


PRESETS = {"smoke": DemoConfig(0.2, races=2, kills=3, payload=8), "cpu": DemoConfig()}
PRESETS["study"] = DemoConfig(races=20, kills=40, payload=64)
PRESETS["gpu"] = PRESETS["study"]  # nothing here computes on a GPU


def run_demo(config: DemoConfig, preset: str) -> None:
    """The whole story; one table with what was to be expected."""
    from stage3_agents_llmops.registry import demo_story as story  # matplotlib, scikit-learn: seconds

    require_at_least(config, 1, "races", "kills", "payload")
    with start_run("stage3", "registry", "demo", config, preset) as run, tempfile.TemporaryDirectory() as scratch:
        told = story.Story(run, config, Path(scratch))
        for step in progress(story.STEPS, description="registry"):
            step(told)
        story.draw(told)
        words = [line for each in told.races for line in each.told]
        console.print(f"two writers: {words[-1] if words else 'nobody was told'}", markup=False, soft_wrap=True)
        console.print(story.releases_table(told))
        console.print(metric_table(run.report["metrics"]))
        run.learnt("A version never changes and an alias is one line in a log: going back is as quick as going live")
        run.learnt("Compare-and-set: of two who promote at once one wins, and the other is told")
        run.next(f"{PROG} history --registry {shown(told.folder)}")
        console.print(f"next: {PROG} history --registry {shown(told.folder)}", markup=False, soft_wrap=True)
