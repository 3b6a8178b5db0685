"""`run`: one deployment from data to 100 %, or back; goes on with the one that a killed controller left.

python -m stage3_agents_llmops.pipeline run --preset cpu
python -m stage3_agents_llmops.pipeline run --release FOLDER --customers 20
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cli import Command, option
from labkit.errors import LabError
from labkit.runs import Run, start_run
from stage3_agents_llmops.pipeline.common_options import PipelineOptions, finish, parts_of


@dataclass(frozen=True)
class RunConfig(PipelineOptions):
    """What is deployed, and who talks to the shop meanwhile."""

    release: Path | None = option(None, "a release's folder that was made elsewhere; none: train one")
    evaluation: Path | None = option(None, "its evaluation, believed without a check; none: evaluate it here")
    adapter: Path | None = option(None, "a LoRA adapter of stage 2 as the model; none: train a classifier")
    shadow: bool = option(True, "let it listen to copies of messages before it answers anybody")
    note: str = option("", "why, for people; another note is another release")
    customers: int = option(0, "simulated customers at once while it runs; 0: only those who are there anyway")


PRESETS = {name: RunConfig() for name in ("cpu", "smoke", "study", "gpu")}


def run_pipeline(config: RunConfig, preset: str) -> int:
    """Deploy, print the outcome; exit code 0 live, 3 not let in, 4 rolled back."""
    from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_adapter
    from stage3_agents_llmops.pipeline.controller import Controller, order_of
    from stage3_agents_llmops.pipeline.first_release import first_release

    order = order_of(config.release, config.evaluation, config.gates, config.adapter, note=config.note, preset=preset,
                     seed=config.seed, shadow=config.shadow)  # fmt: skip
    if config.evaluation and not config.release:
        raise LabError("--evaluation belongs to a --release that was made elsewhere", "leave it out")
    if config.adapter and config.release:
        raise LabError("--release has a model already", "--release or --adapter")
    if config.adapter:
        check_adapter(config.adapter)
    with start_run("stage3", "pipeline", "run", config, preset, config.seed) as run:
        parts = parts_of(config, preset)
        with terminated(), Controller(parts) as controller:
            first_release(parts)
            controller.serve(config.port, config.host)
            with traffic(parts, config.customers, run):
                deployment = controller.resume() or controller.deploy(order)
        parts.notifier.close()
        record(run, parts, deployment)
    return finish(deployment)


@contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM ends the controller as Ctrl-C does; processes and deployment stay, the next `run` goes on."""
    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def traffic(parts: Any, customers: int, run: Run | None = None) -> Iterator[None]:
    """Simulated customers for as long as the block lasts; what they saw becomes metrics of the run."""
    from stage3_agents_llmops.pipeline.traffic import Traffic

    if customers < 1:
        yield
        return
    crowd = Traffic(parts.fleet, customers)
    crowd.start()
    try:
        yield
    finally:
        seen = crowd.stop()
    if run is not None:
        for name in ("streams", "dropped", "duplicated"):
            band = None if name == "streams" else (None, 0)
            run.metric(name, seen[name], "", band, f"event streams of {customers} customers at once")


def record(run: Run, parts: Any, deployment: Any) -> None:
    """The figures of a deployment; the champion and the timeline as artefacts of the run."""
    from stage3_agents_llmops.pipeline.exposed import exposed_share
    from stage3_agents_llmops.pipeline.timeline import draw_timeline

    end = deployment.end
    run.metric("live", deployment.ending == "done", "", None, "1: the release got to 100 %")
    run.metric("seconds", end.get("seconds", 0.0), "s", None, "from the order to the end")
    for name, meaning in (("detection_s", "from the first customer to the verdict"),
                          ("rollback_s", "from the verdict until no customer met it")):  # fmt: skip
        if name in end:
            run.metric(name, end[name], "s", (None, 30), meaning)
    share = exposed_share(parts.run_log, deployment)
    if share is not None:
        run.metric("exposed", share, "", (None, 0.1) if deployment.ending == "rolled back" else None,
                   "share of the customers who met the candidate")  # fmt: skip
    keep_champion(run, parts)
    if deployment.ending:
        draw_timeline(deployment, run.dir / "timeline.png")
        run.figure("timeline.png", "weights over time, with the verdict of every look")
    run.next("python -m stage3_agents_llmops.pipeline status")


def keep_champion(run: Run, parts: Any) -> None:
    """The release that customers get now, as an artefact: what the month's grader deploys."""
    from stage3_agents_llmops.registry import CHAMPION

    champion = parts.registry.get(CHAMPION)
    parts.registry.load(champion.version, run.dir / "release")
    run.artefact("release/release.json", kind="release")


COMMANDS = [
    Command("run", "one deployment: data, training, gates, registry, shadow, canary, 100 % or back", RunConfig,
            run_pipeline, PRESETS)
]  # fmt: skip
