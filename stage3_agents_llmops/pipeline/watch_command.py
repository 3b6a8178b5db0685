"""`watch`: continuous mode. New data or a drift alert starts a deployment; what has died is started again.

python -m stage3_agents_llmops.pipeline watch --more new_utterances.jsonl
"""

import json
import time
from dataclasses import dataclass
from typing import Any

from labkit.cli import Command, option, require_at_least
from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.pipeline.common_options import PipelineOptions, outcome, parts_of


@dataclass(frozen=True)
class WatchConfig(PipelineOptions):
    """How often it looks, and when it ends."""

    every: float = option(10.0, "seconds between two looks")
    pause: float = option(600.0, "seconds after a deployment before drift may start the next one")
    deployments: int = option(0, "end after so many; 0: never")


PRESETS = {name: WatchConfig() for name in ("cpu", "smoke", "study", "gpu")}


def run_watch(config: WatchConfig, preset: str) -> None:
    """Look, deploy, look again, until Ctrl-C."""
    from stage3_agents_llmops.pipeline.controller import Controller
    from stage3_agents_llmops.pipeline.first_release import first_release
    from stage3_agents_llmops.pipeline.run_command import terminated

    require_at_least(config, 0, "deployments")
    if config.every <= 0:
        raise LabError(f"--every {config.every:g} is not possible", "--every 10")
    parts = parts_of(config, preset)
    with terminated(), Controller(parts) as controller:
        first_release(parts)
        controller.serve(config.port, config.host)
        watch(controller, config)


def watch(controller: Any, config: WatchConfig) -> int:
    """The loop of `watch`; returns how many deployments it has made."""
    from stage3_agents_llmops.pipeline.controller import order_of

    parts, made = controller.parts, 0
    if left := controller.resume():
        made += 1
        console.print(json.dumps(outcome(left), ensure_ascii=False), markup=False, soft_wrap=True)
    while not config.deployments or made < config.deployments:
        revive(parts)
        if why := reason_to_deploy(parts, config.pause):
            parts.notifier.send("a deployment begins", why)
            console.print(f"{time.strftime('%H:%M:%S')}  a deployment begins: {why}", markup=False)
            seed = config.seed + len(parts.log.deployments())
            parts.recipe.seed = seed
            done = controller.deploy(order_of(None, None, config.gates, note=why, seed=seed))
            made += 1
            console.print(json.dumps(outcome(done), ensure_ascii=False), markup=False, soft_wrap=True)
        else:
            time.sleep(config.every)
    return made


def revive(parts: Any) -> list[str]:
    """Start again what has died; the names."""
    dead = parts.fleet.dead()
    for name in dead:
        began = time.monotonic()
        parts.fleet.processes.restart(name)
        parts.fleet.processes.wait_ready(name)
        text = f"{name} was started again in {time.monotonic() - began:.1f} s"
        parts.log.append("notice", None, title="a process died", text=text, process=name)
        parts.notifier.send("a process died", text)
    return dead


def reason_to_deploy(parts: Any, pause: float, now: float | None = None) -> str | None:
    """New data since the last training, or a drift alert that no deployment has answered yet; None: neither."""
    data = parts.recipe.check_data()["data"]
    trained = [one for one in parts.log.deployments() if "data" in one.facts.get("data_check", {})]
    if trained and trained[-1].facts["data_check"]["data"] != data:
        changed = sorted(name for name in data if trained[-1].facts["data_check"]["data"].get(name) != data[name])
        return f"new data: {', '.join(changed)}"
    if not trained and data != first_data(parts):
        return "new data since the first release"
    return drift(parts, pause, time.time() if now is None else now)


def first_data(parts: Any) -> dict[str, str]:
    """The data that the champion was trained on, by its lineage."""
    from stage3_agents_llmops.registry import CHAMPION

    return dict(parts.registry.get(CHAMPION).manifest.lineage.data)


def drift(parts: Any, pause: float, now: float) -> str | None:
    """A drift alert that fires, when the last deployment is long enough ago: it cannot be answered every minute."""
    from datetime import datetime

    from stage3_agents_llmops.monitoring import firing

    last = parts.log.last()
    if last is not None and last.events:
        ended = datetime.fromisoformat(last.events[-1].time).timestamp()
        if now - ended < pause:
            return None
    alerts = [alert for alert in firing(parts.run_log, now=now) if alert.name.startswith("Drift")]
    return f"drift: {', '.join(sorted({alert.subject or alert.text for alert in alerts}))}" if alerts else None


COMMANDS = [
    Command("watch", "continuous mode: new data or a drift alert starts a deployment", WatchConfig, run_watch, PRESETS)
]
