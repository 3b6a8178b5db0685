"""Look at the canary again and again until it may go on, or must go back."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from stage3_agents_llmops.monitoring import RunRecord
from stage3_agents_llmops.monitoring.probes import send_probes
from stage3_agents_llmops.pipeline.canary_alerts import harmed, write_alerts
from stage3_agents_llmops.pipeline.canary_analysis import Look, look
from stage3_agents_llmops.pipeline.rollout import SKEW, Abort, Rollout
from stage3_agents_llmops.pipeline.schedule import CANARY_STEPS

LEAST_LOOKS = 5  # before a pause is too long: on a busy machine one look may take as long as the patience


def watch_canary(rollout: Rollout, step: str) -> Mapping[str, Any]:
    """Looks at canary and baseline, over all that happened since the first canary step.

    Returns the facts of the step: looks and seconds.

    Raises:
        Abort: harmed, or no verdict within the schedule's patience.
    """
    least = rollout.schedule.looks[CANARY_STEPS.index(step)]
    old, new = _ids(rollout)
    since = first_clock(rollout)
    return _watch(rollout, step, least, {"canary": ("canary", new), "baseline": ("baseline", old)}, since)


def watch_shadow(rollout: Rollout) -> Mapping[str, Any]:
    """The same with the shadow in the canary's place, before any customer has met the candidate."""
    old, new = _ids(rollout)
    since = rollout.gateway.clock()
    arms = {"canary": ("shadow", new), "baseline": ("baseline", old)}
    return _watch(rollout, "shadow", rollout.schedule.shadow, arms, since)


def _watch(
    rollout: Rollout, step: str, least: float, arms: Mapping[str, tuple[str, str]], since: float
) -> Mapping[str, Any]:
    began, looks = time.monotonic(), 0
    skew = clock_skew(rollout)
    even = even_until(rollout)
    while True:
        rollout.heed()
        send(rollout, arms, looks, step)
        found = {role: rows_of(rollout, arm, release, since, skew) for role, (arm, release) in arms.items()}
        balanced = step not in ("shadow", CANARY_STEPS[-1])
        now = rollout.gateway.clock()
        seen = look(found["canary"], found["baseline"], now, balanced=balanced, even_until=even)
        looks, seconds = looks + 1, time.monotonic() - began
        rollout.note("verdict", step=step, look=looks, seconds=round(seconds, 2), **seen.as_dict())
        rollout.say(f"{step:10} look {looks:2}  {seen.verdict:8}  {told(seen)}")
        if seen.verdict == "abort":
            bad = [each for each in seen.compared if each.verdict == "abort"]
            unsafe = sum(run.unsafe for run in found["canary"])
            alerts = harmed(arms["canary"][1], bad, unsafe, rollout.gateway.clock())
            write_alerts(rollout.home.folder, alerts)
            raise Abort(f"{step}: {'; '.join(seen.reasons)}", alerts)
        if seen.verdict == "continue" and seconds >= least:
            return {"looks": looks, "seconds": round(seconds, 2)}
        tired = looks >= LEAST_LOOKS and seconds >= max(least, rollout.schedule.patience)
        if seen.verdict == "pause" and tired:
            raise Abort(f"{step}: paused for {seconds:.0f} s: {'; '.join(seen.reasons)}")
        time.sleep(rollout.schedule.every)


def send(rollout: Rollout, arms: Mapping[str, tuple[str, str]], number: int, step: str) -> list[RunRecord]:
    """Labelled questions to both arms, the same ones to each."""
    count = rollout.schedule.probes * (rollout.schedule.shadow_times if step == "shadow" else 1)
    if not count:
        return []

    def one(role: str, arm: str, release: str) -> Any:
        name = rollout.name_of(arm if role == "canary" else "baseline")
        backend = rollout.fleet.processes.find(name).url
        return send_probes(
            backend, rollout.fleet.token_of(shadow=arm == "shadow"), rollout.parts.run_log, arm=arm, release=release,
            count=count, seed=seed_of(step, number), concurrency=rollout.schedule.concurrency,
            probes=rollout.parts.probes, instance=name,
        )  # fmt: skip

    async def both() -> list[list[RunRecord]]:
        return await asyncio.gather(*(one(role, *place) for role, place in arms.items()))

    return [record for records in asyncio.run(both()) for record in records]


def rows_of(rollout: Rollout, arm: str, release: str, since: float, skew: float) -> list[RunRecord]:
    """Rows of an arm. Customers' rows bear the gateway's time, those of probes this process's."""
    window: Callable[..., list[RunRecord]] = rollout.parts.run_log.window
    return [*window(release, arm, since, probes=False), *window(release, arm, since - skew, probes=True)]


def clock_skew(rollout: Rollout) -> float:
    """How far the gateway's clock is ahead of this one; told when it is more than a moment."""
    before = time.time()
    skew = rollout.gateway.clock() - (before + time.time()) / 2
    if abs(skew) > SKEW:
        rollout.alert("clocks differ", f"the gateway's clock is {skew:+.1f} s from the controller's", skew=skew)
    return skew


def first_clock(rollout: Rollout) -> float:
    """The gateway's time when the first customer could meet the canary."""
    began = clock_of(rollout, least=0.001)
    if began is None:
        raise Abort("nobody has written down when the canary began")
    return began


def even_until(rollout: Rollout) -> float:
    """The gateway's time when the canary got everybody, and the baseline nobody; infinity as long as it has not."""
    ended = clock_of(rollout, least=100.0)
    return math.inf if ended is None else ended


def clock_of(rollout: Rollout, least: float) -> float | None:
    """The gateway's time when the canary first had so many per cent of the customers."""
    for event in rollout.deployment.events:
        if event.kind == "weights" and event.data["weights"].get("canary", 0) >= least:
            return float(event.data["clock"])
    return None


def seed_of(step: str, number: int) -> int:
    """Other questions at every look."""
    return number + 1000 * (1 + (CANARY_STEPS.index(step) if step in CANARY_STEPS else -1))


def told(seen: Look) -> str:
    """A look in one line."""
    if seen.reasons:
        return "; ".join(seen.reasons)[:160]
    figures = [f"{each.name} {each.canary:.2f}/{each.baseline:.2f} ({each.n_canary}/{each.n_baseline})"
               for each in seen.compared if each.canary is not None and each.baseline is not None]  # fmt: skip
    return "  ".join(figures[:4])


def _ids(rollout: Rollout) -> tuple[str, str]:
    order = rollout.deployment.order
    return order["champion_sha256"][:12], rollout.facts("register")["sha256"][:12]
