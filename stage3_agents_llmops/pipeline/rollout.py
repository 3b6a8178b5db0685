"""What all steps of a deployment share: the log, the gateway, the registry, the processes, and the way back."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.monitoring import RunLog
from stage3_agents_llmops.pipeline.event_log import Deployment, DeploymentLog
from stage3_agents_llmops.pipeline.fleet import GATEWAY, Fleet
from stage3_agents_llmops.pipeline.gateway.client import GatewayClient
from stage3_agents_llmops.pipeline.gateway.routes import Arm, Routes
from stage3_agents_llmops.pipeline.home import Home
from stage3_agents_llmops.pipeline.notifications import Notifier
from stage3_agents_llmops.pipeline.recipe import Recipe
from stage3_agents_llmops.pipeline.schedule import Schedule
from stage3_agents_llmops.registry import CHAMPION, Conflict, Damaged, Refused, Registry, Unknown

Value = TypeVar("Value")
FOR_GOOD = (Conflict, Damaged, Refused, Unknown)  # asking the registry again changes nothing
ROLES = ("shadow", "canary", "baseline")  # processes of a deployment
SLOW = 2.0  # seconds after which a registry that does not answer is worth telling
SKEW = 2.0  # seconds between two clocks that are worth telling


class Abort(Exception):
    """The candidate must go back; the reason is the message. `alerts` say what was harmed."""

    def __init__(self, reason: str, alerts: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(reason)
        self.alerts = list(alerts)


class Hold(Exception):
    """The candidate is not let in; nothing was deployed. `verdict` is "fail" or "hold"."""

    def __init__(self, reason: str, verdict: str = "hold") -> None:
        super().__init__(reason)
        self.verdict = verdict


@dataclass
class Parts:
    """What a controller works with."""

    home: Home
    log: DeploymentLog
    registry: Registry
    fleet: Fleet
    recipe: Recipe
    schedule: Schedule
    notifier: Notifier
    run_log: RunLog
    probes: Path | None = None  # labelled questions instead of the help centre's
    quiet: bool = False
    deaths: dict[str, int] = field(default_factory=dict)


class Rollout:
    """One deployment under way. `facts(step)` are what finished steps left in the log."""

    def __init__(self, parts: Parts, deployment: Deployment) -> None:
        self.parts, self.deployment = parts, deployment
        self.home, self.log, self.registry = parts.home, parts.log, parts.registry
        self.fleet, self.schedule = parts.fleet, parts.schedule

    @property
    def id(self) -> str:
        """The deployment's name."""
        return self.deployment.id

    @property
    def gateway(self) -> GatewayClient:
        """A client of the gateway."""
        return self.fleet.gateway()

    def facts(self, step: str) -> Mapping[str, Any]:
        """What a finished step left; empty if it is not finished."""
        return self.deployment.facts.get(step, {})

    def refresh(self) -> None:
        """Read the log again: somebody may have asked for a rollback."""
        found = next(one for one in self.log.deployments() if one.id == self.id)
        self.deployment = found

    def note(self, kind: str, **data: Any) -> None:
        """Write an event of this deployment."""
        self.log.append(kind, self.id, **data)

    def say(self, text: str) -> None:
        """Tell whoever watches."""
        if not self.parts.quiet:
            console.print(f"{time.strftime('%H:%M:%S')}  {text}", markup=False, soft_wrap=True)

    def alert(self, title: str, text: str, **facts: Any) -> None:
        """A notice in the log and a message to the webhook; a full disk stops neither."""
        self.say(f"{title}: {text}")
        with suppress(OSError):
            self.note("notice", title=title, text=text, **facts)
        self.parts.notifier.send(title, text, deployment=self.id, **facts)

    @property
    def name_of(self) -> Callable[[str], str]:
        """Role -> name of this deployment's process."""
        return lambda role: f"{self.id}-{role}"

    def heed(self) -> None:
        """Between two looks: has somebody asked for a rollback, has a process died?

        Raises:
            Abort: asked for, or a process of the candidate dies again and again.
        """
        self.refresh()
        if self.deployment.requested:
            raise Abort(f"asked for: {self.deployment.requested}")
        self.supervise()

    def supervise(self) -> None:
        """Start again what has died; customers' runs are taken up by the gateway."""
        for name in self.fleet.dead():
            deaths = self.parts.deaths[name] = self.parts.deaths.get(name, 0) + 1
            if name in (self.name_of("canary"), self.name_of("shadow")) and deaths > self.schedule.restarts:
                raise Abort(f"{name} has died {deaths} times")
            began = time.monotonic()
            self.fleet.processes.restart(name)
            self.fleet.processes.wait_ready(name)
            seconds = round(time.monotonic() - began, 2)
            self.alert("a process died", f"{name} was started again in {seconds:.1f} s", process=name, seconds=seconds)

    def set_arms(self, make: Callable[[Routes], Routes], **facts: Any) -> Routes:
        """Change the routes and write down what they are now, with the time at the gateway."""
        routes = self.gateway.change(make)
        weights = {arm.name: arm.weight for arm in routes.arms}
        with suppress(OSError):  # customers have moved already: not writing it down must not stop a rollback
            self.note("weights", number=routes.number, weights=weights, clock=self.gateway.clock(), **facts)
        return routes

    def ask_registry(self, what: str, ask: Callable[[], Value]) -> Value:
        """Ask the registry, again while it is away.

        Raises:
            Abort: it stayed away, or refuses.
        """
        deadline, told = time.monotonic() + self.schedule.registry, False

        def tell(text: str) -> None:
            nonlocal told
            if not told:
                self.alert("the registry is away", f"{what}: {text[:200]}")
            told = True

        with ThreadPoolExecutor(1) as worker:  # a locked database answers late, if at all
            while True:
                answer = worker.submit(ask)
                if not wait([answer], SLOW).done:
                    tell(f"no answer for {SLOW:g} s")
                try:
                    return answer.result()
                except FOR_GOOD as error:
                    raise Abort(f"{what}: {error}") from None
                except Exception as error:  # a database or a server that is away raises whatever its library does
                    text = " ".join(str(error).split())
                    if time.monotonic() > deadline:
                        raise Abort(f"{what}: the registry is away: {text[:200]}") from None
                    tell(text)
                    time.sleep(min(1.0, self.schedule.every))

    def back(self, reason: str) -> dict[str, Any]:
        """Roll back: customers first, then the alias, then the processes. Can be repeated, and needs no disk.

        Returns the facts for the log: how long it took until no customer met the candidate any more.
        """
        began = time.monotonic()
        with suppress(OSError):
            self.note("begun", step="rollback", reason=reason)
        self._ensure_gateway()
        self.set_arms(only_stable, reason=reason)
        seconds = time.monotonic() - began
        self.say(f"rolled back in {seconds:.2f} s: {reason}")
        self._move_alias_back(reason)
        self.fleet.processes.drain_all([self.name_of(role) for role in ROLES], self.schedule.drain)
        return {"rollback_s": round(seconds, 3)}

    def _ensure_gateway(self) -> None:
        if GATEWAY in self.fleet.dead():
            self.fleet.processes.restart(GATEWAY)
            self.fleet.processes.wait_ready(GATEWAY)

    def _move_alias_back(self, reason: str) -> None:
        """Only where this deployment had moved it, and nobody has since."""
        version = self.facts("register").get("version")
        try:
            if version is not None and self.registry.aliases().get(CHAMPION) == version:
                self.registry.rollback(CHAMPION, expected=version, actor=f"pipeline {self.id}", reason=reason[:500])
        except Refused:  # the first champion there ever was
            pass
        except Exception as error:
            self.alert("the registry is away", f"champion may still be version {version}: {error}")


def only_stable(routes: Routes) -> Routes:
    """All customers in the stable arm, nothing beside it."""
    stable = routes.arm("stable")
    if stable is None:
        raise LabError("the gateway has no stable arm", "python -m stage3_agents_llmops.pipeline status")
    return replace(routes, arms=(replace(stable, weight=100),), shadow=None, salt="")


def with_weights(routes: Routes, weights: Mapping[str, float], arms: Mapping[str, Arm], salt: str) -> Routes:
    """Routes with these arms and weights; the stable arm is the one that is there."""
    known = {"stable": routes.arm("stable"), **arms}
    return replace(routes, arms=tuple(replace(known[name], weight=float(weight)) for name, weight in weights.items()),
                   shadow=None, salt=salt)  # fmt: skip
