"""`platform` and `deploy`: the pipeline as others drive it, over command lines and HTTP only.

python -m stage3_agents_llmops.pipeline platform --shop FILE --state FOLDER --release FOLDER --probes FILE --port PORT
python -m stage3_agents_llmops.pipeline deploy --state FOLDER --release FOLDER
"""

import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cli import Command, option
from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.pipeline.common_options import PROG, PipelineOptions, finish, parts_of
from stage3_agents_llmops.registry import CHAMPION

EVERY = 0.5  # seconds between two looks at the processes


@dataclass(frozen=True)
class PlatformConfig:
    """A shop, a first release, and where to listen."""

    shop: Path | None = option(None, "the shop's database")
    state: Path | None = option(None, "the pipeline's folder; service.secret in it is the services' secret")
    release: Path | None = option(None, "the release that is served at first, a folder that `registry load` wrote")
    probes: Path | None = option(None, "labelled questions, JSON lines; none: the help centre's own")
    wrap: str = option("", "words before the command of every service, as of `nice` or of a sidecar")
    port: int = option(8040, "of the gateway")
    host: str = option("127.0.0.1", "where the gateway listens; 0.0.0.0 in a container")
    webhook: str = option("", "notifications are POSTed there")


@dataclass(frozen=True)
class DeployConfig:
    """Which platform, which release."""

    state: Path | None = option(None, "the folder of the platform that runs")
    release: Path | None = option(None, "the release, a folder that `registry load` wrote, with its evaluation")
    gates: Path | None = option(None, "what it has to show; none is gates.toml of the lab")
    webhook: str = option("", "notifications are POSTed there")
    quiet: bool = option(False, "print the outcome only")


DEPLOY_PRESETS = {name: DeployConfig() for name in ("cpu", "smoke", "study", "gpu")}


def run_platform(config: PlatformConfig, preset: str) -> int:
    """Gateway, service and monitoring until SIGTERM or Ctrl-C, which ends everything that was started."""
    home = prepare(config)
    parts = parts_of(PipelineOptions(home=home, webhook=config.webhook), "cpu")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve_first(parts, config)
        console.print(f"http://127.0.0.1:{config.port}", markup=False, soft_wrap=True)
        while not stop.wait(EVERY):
            keep_alive(parts)
    finally:
        from stage3_agents_llmops.pipeline.state_commands import end_controller

        end_controller(parts.home)
        parts.fleet.processes.stop_all(10.0)
        parts.notifier.close()
    return 0


def prepare(config: PlatformConfig) -> Path:
    """The folder with everything that was given.

    Raises:
        LabError: something is missing.
    """
    for name in ("shop", "state", "release"):
        if getattr(config, name) is None:
            raise LabError(f"platform needs --{name}", f"{PROG} platform --shop FILE --state FOLDER --release FOLDER")
    if not config.shop.is_file():
        raise LabError(f"there is no shop at {config.shop}", "--shop FILE")
    home = config.state.expanduser().absolute()
    (home / "state").mkdir(parents=True, exist_ok=True)
    (home / "wrap").write_text(config.wrap, encoding="utf-8")
    if config.shop.absolute() != home / "shop.sqlite":
        (home / "shop.sqlite").unlink(missing_ok=True)
        (home / "shop.sqlite").symlink_to(config.shop.absolute())
    if (home / "service.secret").exists():
        shutil.copy2(home / "service.secret", home / "state" / "service.secret")
    if config.probes is not None:
        from stage3_agents_llmops.monitoring.probes import load_probes

        load_probes(config.probes)
        shutil.copyfile(config.probes, home / "probes.jsonl")
    return home


def serve_first(parts: Any, config: PlatformConfig) -> None:
    """The first release as champion, its process and the gateway.

    Raises:
        LabError: the folder is no release that was evaluated; the port is taken.
    """
    from stage3_agents_llmops.pipeline.controller import Controller
    from stage3_agents_llmops.pipeline.recipe import registered_draft

    draft = registered_draft(config.release)
    if draft is None:
        raise LabError(f"{config.release} is no release with an evaluation", "the folder that `registry load` wrote")
    with Controller(parts) as controller:
        release = parts.registry.publish(draft)
        if CHAMPION not in parts.registry.aliases():
            parts.registry.set_alias(CHAMPION, release.version, expected=None, actor="platform", reason="the first one")
        controller.serve(config.port, config.host)


def keep_alive(parts: Any) -> None:
    """Start again what has died, unless a controller runs: then that is its task."""
    from stage3_agents_llmops.pipeline.controller import Controller

    if not parts.fleet.dead():
        return
    try:
        with Controller(parts):
            for name in parts.fleet.dead():
                parts.fleet.processes.restart(name)
                parts.log.append("notice", None, title="a process died", text=f"{name} was started again")
                parts.notifier.send("a process died", f"{name} was started again")
    except LabError:
        return


def run_deploy(config: DeployConfig, preset: str) -> int:
    """One rollout of a release that was evaluated already; the last line is the outcome as JSON."""
    from stage3_agents_llmops.pipeline.controller import Controller, order_of
    from stage3_agents_llmops.pipeline.recipe import registered_draft
    from stage3_agents_llmops.pipeline.run_command import terminated
    from stage3_agents_llmops.registry.release import EVALUATION

    if config.state is None or config.release is None:
        raise LabError("deploy needs --state and --release", f"{PROG} deploy --state FOLDER --release FOLDER")
    draft = registered_draft(config.release)
    if draft is None:
        raise LabError(f"{config.release} is no release with an evaluation", "the folder that `registry load` wrote")
    options = PipelineOptions(home=config.state, webhook=config.webhook, quiet=config.quiet)
    if not (Path(config.state) / "registry").is_dir():
        raise LabError(f"no platform runs in {config.state}", f"{PROG} platform --state {config.state} ...")
    parts = parts_of(options, preset)
    order = order_of(config.release, config.release / EVALUATION, config.gates, note=draft.note, preset=preset)
    with terminated(), Controller(parts) as controller:
        controller.serve()
        deployment = controller.resume() or controller.deploy(order)
    parts.notifier.close()
    return finish(deployment)


COMMANDS = [
    Command("deploy", "one rollout of a release that was evaluated, on a platform that runs", DeployConfig, run_deploy,
            DEPLOY_PRESETS),
    Command("platform", "gateway, service and monitoring of a first release, until Ctrl-C", PlatformConfig,
            run_platform),
]  # fmt: skip
