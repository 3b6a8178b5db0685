"""`status`, `stop`, `rollback`: commands that look at a pipeline, end it, or take a release back."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.table import Table

from labkit.cli import Command, option
from labkit.errors import LabError
from labkit.progress import console
from labkit.timing import human_seconds
from stage3_agents_llmops.pipeline.common_options import (
    PROG,
    HomeOptions,
    PipelineOptions,
    existing_home,
    finish,
    parts_of,
)


@dataclass(frozen=True)
class StatusConfig(HomeOptions):
    """Which pipeline."""

    events: int = option(12, "of the newest deployment that are shown")


@dataclass(frozen=True)
class StopConfig(HomeOptions):
    """Which pipeline, and how long answers may take to end."""

    limit: float = option(30.0, "seconds that a service has to finish what it has begun")


@dataclass(frozen=True)
class RollbackConfig(PipelineOptions):
    """Why."""

    reason: str = option("asked for at the command line", "for the log")


def run_status(config: StatusConfig, preset: str) -> None:
    """Routes, processes, deployments, the last events."""
    from stage3_agents_llmops.pipeline.event_log import DeploymentLog
    from stage3_agents_llmops.pipeline.fleet import Fleet
    from stage3_agents_llmops.pipeline.processes import Processes
    from stage3_agents_llmops.pipeline.releases_view import releases

    home = existing_home(config)
    processes = Processes(home.processes)
    console.print(process_table(processes))
    try:
        routes = Fleet(home, processes).gateway().routes()
    except LabError as error:
        console.print(f"no routes: {error.message}", markup=False)
    else:
        table = plain_table("release", "status", "share", "note")
        for row in releases(home.folder, routes):
            table.add_row(row["release"], row["status"], f"{row['share']:.0%}", row["note"])
        console.print(table)
    deployments = DeploymentLog(home.log).deployments()
    table = plain_table("deployment", "began", "ended", "after", "reason")
    for one in deployments[-8:]:
        seconds = one.end.get("seconds")
        table.add_row(one.id, f"{datetime.fromisoformat(one.started).astimezone():%m-%d %H:%M:%S}",
                      one.ending or f"in {one.pending}", human_seconds(seconds) if seconds else "",
                      str(one.end.get("reason", ""))[:60])  # fmt: skip
    console.print(table)
    for event in deployments[-1].events[-config.events :] if deployments else ():
        console.print(f"  {event_line(event)}", markup=False, soft_wrap=True)


def run_stop(config: StopConfig, preset: str) -> None:
    """End gateway, services and customers; nothing of the pipeline runs afterwards."""
    from stage3_agents_llmops.pipeline.processes import Processes, leftovers
    from stage3_agents_llmops.pipeline.recipe import end_evaluations

    home = existing_home(config)
    end_controller(home)
    processes = Processes(home.processes)
    names = [one.name for one in processes.records() if one.alive]
    killed = processes.stop_all(config.limit)
    end_evaluations(home.folder)
    left = leftovers(home.processes)
    console.print(f"ended: {', '.join(names) or 'nothing was running'}", markup=False)
    if killed:
        console.print(f"killed after {config.limit:g} s: {', '.join(killed)}", markup=False)
    if left:
        raise LabError(f"processes are left: {left}", "kill them by number")


def run_rollback(config: RollbackConfig, preset: str) -> int:
    """Take back the deployment that runs, or the champion where none does.

    Raises:
        LabError: there is nothing to go back to.
    """
    from stage3_agents_llmops.pipeline.controller import Controller
    from stage3_agents_llmops.pipeline.going_back import go_back

    existing_home(config)
    parts = parts_of(config, "cpu")
    last = parts.log.last()
    if last is None:
        raise LabError("nothing was ever deployed here", f"{PROG} run")
    if last.running:
        parts.log.append("requested", last.id, reason=config.reason)
        if controller_runs(parts.home):
            console.print(f"{last.id} will be rolled back by the controller that runs", markup=False)
            return 0
        with Controller(parts) as controller:
            controller.serve()
            return finish_back(controller.resume())
    with Controller(parts) as controller:
        controller.serve()
        version = go_back(parts, config.reason)
    parts.notifier.close()
    console.print(f"champion is version {version} again, and customers have it", markup=False)
    return 0


def finish_back(deployment: Any) -> int:
    """A rollback that was asked for has succeeded when the deployment was rolled back."""
    finish(deployment)
    return 0 if deployment.ending == "rolled back" else 1


def controller_runs(home: Any) -> bool:
    """Whether a controller holds the lock."""
    from filelock import FileLock, Timeout

    with suppress(Timeout), FileLock(home.lock).acquire(timeout=0):
        return False
    return True


def end_controller(home: Any) -> None:
    """Ask the controller that runs to end, and wait; it goes on at the next `run`.

    Raises:
        LabError: it does not end.
    """
    import json
    import signal
    import time

    from labkit.environment import process_alive
    from stage3_agents_llmops.pipeline.controller import RUNNING

    try:
        known = json.loads((home.folder / RUNNING).read_text())
    except (OSError, ValueError):
        return
    if not controller_runs(home) or not process_alive(known["pid"], known["started"]):
        return
    import os

    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(known["pid"], number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not process_alive(known["pid"], known["started"]):
                return
            time.sleep(0.1)
    raise LabError(f"the controller, process {known['pid']}, does not end", f"kill -9 {known['pid']}")


def process_table(processes: Any) -> Table:
    """Who runs where."""
    from stage3_agents_llmops.pipeline.processes import running

    table = plain_table("process", "number", "address", "")
    for one in processes.records():
        table.add_row(one.name, str(one.pid or ""), one.url, "runs" if running(one) else "[red]dead[/red]")
    return table


def plain_table(*titles: str) -> Table:
    """A table without lines."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def event_line(event: Any) -> str:
    """An event for people."""
    left_out = ("deployment", "metrics", "gates", "clock")
    data = {name: value for name, value in event.data.items() if name not in left_out}
    text = " ".join(f"{name}={value}" for name, value in data.items() if value not in (None, [], {}))
    return f"{datetime.fromisoformat(event.time).astimezone():%H:%M:%S} {event.kind:9} {text[:150]}"


COMMANDS = [
    Command("status", "processes, routes, releases, deployments", StatusConfig, run_status),
    Command("stop", "end everything that a pipeline has started", StopConfig, run_stop),
    Command("rollback", "take back what is being deployed, or the champion", RollbackConfig, run_rollback),
]
