"""The controller: one step after the other, each written down before and after; killed anywhere, it goes on from there.

    controller = Controller(parts)
    controller.serve(first_release)                      once: a champion, its process, the gateway
    deployment = controller.deploy(order)                a new deployment, from its first step to its end
    deployment = controller.resume()                     the one that a killed controller left

The controller holds a lock for as long as it runs; the system frees it when the process is gone, however it went. The
customers do not need it: gateway and services are processes of their own.

| it dies | the next one finds | and |
|---|---|---|
| before `begun` is written | the step not begun | begins it |
| in a step | `begun`, no `finished` | does the step again |
| after the weights, before they are written down | routes that the log does not know | sends the same weights again |
| after the alias moved | champion is the candidate already | writes `finished` |
| in a rollback | `begun: rollback` | rolls back again |
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit.environment import process_identity
from labkit.errors import LabError
from labkit.files import write_json
from stage3_agents_llmops.pipeline import steps
from stage3_agents_llmops.pipeline.canary_alerts import resolved, write_alerts
from stage3_agents_llmops.pipeline.event_log import Deployment, next_step
from stage3_agents_llmops.pipeline.fleet import GATEWAY
from stage3_agents_llmops.pipeline.gateway.routes import Arm
from stage3_agents_llmops.pipeline.recipe import end_evaluations
from stage3_agents_llmops.pipeline.rollout import Abort, Hold, Parts, Rollout
from stage3_agents_llmops.pipeline.schedule import STEPS
from stage3_agents_llmops.registry import CHAMPION, Release

RUNNING = "controller.json"  # who holds the lock
FIRST = "first"  # name of the process that serves the first champion


class Controller:
    """Runs deployments of one home. Use it as a context: it holds the home's lock.

    Args:
        after: called with every event that a deployment has written; tests end the process there.
    """

    def __init__(self, parts: Parts, after: Callable[[str, Mapping[str, Any]], None] = lambda kind, data: None) -> None:
        self.parts, self.after = parts, after
        self._lock = FileLock(parts.home.lock)

    def __enter__(self) -> "Controller":
        self.parts.home.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LabError(f"another controller runs in {self.parts.home.folder}",
                           "python -m stage3_agents_llmops.pipeline status") from None  # fmt: skip
        pid, started = process_identity()
        with suppress(OSError):
            write_json(self.parts.home.folder / RUNNING, {"pid": pid, "started": started})
        self.parts.log.load_ballast()
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def serve(self, port: int | None = None, host: str = "127.0.0.1") -> Release:
        """See that the champion answers behind the gateway; what runs already is adopted.

        Raises:
            LabError: the registry has no champion; a port is taken; a process does not start.
        """
        fleet, registry = self.parts.fleet, self.parts.registry
        if CHAMPION not in registry.aliases():
            raise LabError("the registry has no champion to serve", "python -m stage3_agents_llmops.pipeline run")
        champion = registry.get(CHAMPION)
        gateway = fleet.start_gateway(port, host)
        fleet.processes.wait_ready(GATEWAY, statuses=(200, 503))
        routes = fleet.gateway().routes()
        routed = {arm.backend for arm in routes.arms}
        for name in fleet.dead():
            if fleet.processes.find(name).url in routed:
                fleet.processes.restart(name)
            else:  # nobody is sent there: the step that needs it starts it
                fleet.processes.drain(name)
        if routes.arm("stable") is None or fleet.named(routes.arm("stable").backend) is None:
            folder = registry.load(champion.version, self.parts.home.release(champion.sha256))
            one = fleet.start_service(FIRST, folder)
            stable = Arm("stable", champion.sha256[:12], one.url, 100.0)
            fleet.processes.wait_ready(one.name)
            fleet.gateway().change(lambda now: type(now)(number=now.number, arms=(stable,)))
        for one in fleet.services().values():
            fleet.processes.wait_ready(one.name)
        self.parts.notifier.send("serving", f"version {champion.version} behind {gateway.url}")
        return champion

    def deploy(self, order: Mapping[str, Any]) -> Deployment:
        """A new deployment.

        Args:
            order: `release` (folder, or None to train), `evaluation`, `gates`, `adapter`, `note`, `preset`, `seed`.

        Raises:
            LabError: another deployment has not ended.
        """
        last = self.parts.log.last()
        if last and last.running:
            raise LabError(f"deployment {last.id} has not ended", "python -m stage3_agents_llmops.pipeline run")
        name = self.parts.log.next_id()
        champion = self.parts.registry.get(CHAMPION)
        facts = {"champion": champion.version, "champion_sha256": champion.sha256}
        self.parts.log.append("deployment", name, **facts, **order)
        self.after("deployment", {})
        return self._run(name)

    def resume(self) -> Deployment | None:
        """Go on with the deployment that did not end; None when there is none."""
        last = self.parts.log.last()
        if last is None or not last.running:
            return None
        end_evaluations(self.parts.home.folder)
        return self._run(last.id)

    def _run(self, name: str) -> Deployment:
        rollout = Rollout(self.parts, next(one for one in self.parts.log.deployments() if one.id == name))
        began = time.monotonic()
        try:
            if rollout.deployment.pending == "rollback":
                events = [event for event in rollout.deployment.events if event.data.get("step") == "rollback"]
                raise Abort(events[-1].data["reason"])
            while step := next_step(rollout.deployment, STEPS):
                self._step(rollout, step)
            self._end(rollout, "done", "live", began)
        except Hold as hold:
            self._end(rollout, "held", str(hold), began, verdict=hold.verdict)
        except Abort as abort:
            self._back(rollout, str(abort), began)
            write_alerts(self.parts.home.folder, resolved(abort.alerts, rollout.gateway.clock()))
        except (OSError, LabError) as error:  # a full disk, a process that does not start: customers first
            self._back(rollout, f"{type(error).__name__}: {error}", began)
        return rollout.deployment

    def _step(self, rollout: Rollout, step: str) -> None:
        rollout.say(f"{step} ...")
        rollout.note("begun", step=step)
        self.after("begun", {"step": step})
        began = time.monotonic()
        facts = steps.ALL[step](rollout)
        rollout.note("finished", step=step, **facts, step_s=round(time.monotonic() - began, 2))
        self.after("finished", {"step": step})
        rollout.refresh()

    def _back(self, rollout: Rollout, reason: str, began: float) -> None:
        detection = detection_seconds(rollout)
        facts = rollout.back(reason)
        self.after("rollback", {})
        if detection is not None:
            facts["detection_s"] = detection
        self._end(rollout, "rolled back", reason, began, **facts)

    def _end(self, rollout: Rollout, ending: str, reason: str, began: float, **facts: Any) -> None:
        with suppress(OSError):
            rollout.note("ended", ending=ending, reason=reason, seconds=round(time.monotonic() - began, 2), **facts)
        rollout.refresh()
        if rollout.deployment.running:  # the disk was full: the log does not know, but whoever called must
            rollout.deployment.ending, rollout.deployment.end = ending, {"ending": ending, "reason": reason, **facts}
        rollout.say(f"{rollout.id} {ending}: {reason}")
        self.parts.notifier.send(f"deployment {ending}", reason, deployment=rollout.id, **facts)


def detection_seconds(rollout: Rollout) -> float | None:
    """Seconds since the first customer could meet the candidate; None: nobody could."""
    for event in rollout.deployment.events:
        if event.kind == "weights" and event.data["weights"].get("canary", 0) > 0:
            with suppress(LabError):
                return round(rollout.gateway.clock() - float(event.data["clock"]), 2)
    return None


def order_of(
    release: Path | None = None, evaluation: Path | None = None, gates: Path | None = None,
    adapter: Path | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """A deployment's order as JSON values; paths are made absolute, because the next controller may start elsewhere."""
    from stage3_agents_llmops.pipeline.gates import DEFAULT_FILE, load_gates

    load_gates(gates or DEFAULT_FILE)  # a typing error is told now, not after the training
    paths = {"release": release, "evaluation": evaluation, "gates": gates or DEFAULT_FILE, "adapter": adapter}
    return {name: str(Path(path).absolute()) if path else None for name, path in paths.items()} | more
