"""`all`: the sweep, the task and the clusters, one after the other in one process (what `make stage1` runs)."""

from dataclasses import dataclass

from stage1_foundations.vector_index import clusters, sweep, task


@dataclass(frozen=True)
class AllConfig:
    """Nothing to set but the preset; the three commands have their own options."""


PRESETS = {name: AllConfig() for name in sweep.PRESETS}


def run_all(config: AllConfig, preset: str) -> None:
    """The three commands at a preset."""
    sweep.run_sweep(sweep.PRESETS[preset], preset)
    task.run_task(task.PRESETS[preset], preset)
    clusters.run_clusters(clusters.PRESETS[preset], preset)
