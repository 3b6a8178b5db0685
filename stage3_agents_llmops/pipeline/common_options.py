"""The options that every command of the pipeline has, and the parts that they stand for."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cli import option
from labkit.errors import LabError
from stage3_agents_llmops.pipeline.event_log import Deployment, DeploymentLog
from stage3_agents_llmops.pipeline.home import Home
from stage3_agents_llmops.pipeline.schedule import SCHEDULES

PROG = "python -m stage3_agents_llmops.pipeline"
STATUS = {"done": "live", "rolled back": "rolled back", "held": "paused"}
EXIT = {"live": 0, "rejected": 3, "paused": 3, "rolled back": 4, "failed": 4}


@dataclass(frozen=True)
class HomeOptions:
    """Where the pipeline keeps what it has."""

    home: Path | None = option(None, "the pipeline's folder; none is runs/stage3/pipeline/home")


@dataclass(frozen=True)
class PipelineOptions(HomeOptions):
    """What a controller works with."""

    registry: str = option("", "a folder, or sqlite:///FILE, postgresql://... for MLflow; empty: in the home")
    artifacts: str = option("", "where a new MLflow registry keeps its files, s3://BUCKET/PATH; empty: beside SQLite")
    webhook: str = option("", "notifications are POSTed there; empty: only written to notifications.jsonl")
    gates: Path | None = option(None, "what a candidate has to show; none is gates.toml of the lab")
    port: int | None = option(None, "of the gateway; none is the one that it has, or a free one")
    host: str = option("127.0.0.1", "where the gateway listens; 0.0.0.0 in a container")
    seed: int = option(1, "of the training")
    more: Path | None = option(None, "new labelled utterances to train on, JSON lines; checked first")
    quiet: bool = option(False, "print the end only")


def parts_of(config: PipelineOptions, preset: str, command: Any = None, recipe: Any = None) -> Any:
    """Everything that a controller needs.

    Args:
        command: words of a service; None: stage 3's agents.
        recipe: how candidates are made; None: the course's own.
    """
    from stage3_agents_llmops.monitoring import RunLog
    from stage3_agents_llmops.pipeline.fleet import Fleet, agent_command
    from stage3_agents_llmops.pipeline.notifications import Notifier
    from stage3_agents_llmops.pipeline.processes import Processes
    from stage3_agents_llmops.pipeline.recipe import Recipe
    from stage3_agents_llmops.pipeline.rollout import Parts
    from stage3_agents_llmops.registry import open_registry

    home = Home.at(config.home)
    home.folder.mkdir(parents=True, exist_ok=True)
    registry = open_registry(config.registry or home.registry, artifacts=config.artifacts or None)
    if missing := [name for name in ("compare_and_set", "rollback") if name not in registry.capabilities]:
        raise LabError(f"the registry {config.registry} has no {missing[0]}", "its database's URL, or a folder")
    wrap = home.folder / "wrap"
    words = shlex.split(wrap.read_text(encoding="utf-8")) if wrap.exists() else []
    probes = home.folder / "probes.jsonl"
    return Parts(
        home, DeploymentLog(home.log), registry,
        Fleet(home, Processes(home.processes, words), command or agent_command),
        recipe or Recipe(preset, config.seed, config.more), SCHEDULES[preset],
        Notifier(config.webhook or None, home.folder / "notifications.jsonl"), RunLog(home.run_log),
        probes if probes.exists() else None, config.quiet,
    )  # fmt: skip


def outcome(deployment: Deployment) -> dict[str, Any]:
    """How a deployment ended, as the last line of `run` and `deploy`."""
    status = STATUS[deployment.ending]
    if status == "paused" and deployment.end.get("verdict") == "fail":
        status = "rejected"
    release = deployment.facts.get("register", {}).get("sha256", "")[:12] or None
    return {"status": status, "deployment": deployment.id, "release": release, "reason": deployment.end["reason"]}


def finish(deployment: Deployment) -> int:
    """Print the outcome as JSON; returns the exit code."""
    result = outcome(deployment)
    sys.stdout.flush()
    print(json.dumps(result, ensure_ascii=False), flush=True)
    return EXIT[result["status"]]


def existing_home(config: HomeOptions) -> Home:
    """The home that commands read which start nothing.

    Raises:
        LabError: there is none yet.
    """
    home = Home.at(config.home)
    if not home.folder.is_dir():
        raise LabError(f"there is no pipeline in {home.folder}", f"{PROG} run, or --home FOLDER")
    return home
