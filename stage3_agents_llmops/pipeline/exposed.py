"""How many customers met a candidate: the damage that a bad release could do."""

from typing import Any

from stage3_agents_llmops.monitoring import RunLog
from stage3_agents_llmops.pipeline.event_log import Deployment


def exposed_customers(run_log: RunLog, deployment: Deployment) -> tuple[int, int] | None:
    """(customers who met the candidate, all customers) since the first canary step; None: there was none, or nobody."""
    clock = next((event.data["clock"] for event in deployment.events
                  if event.kind == "weights" and event.data["weights"].get("canary", 0) > 0), None)  # fmt: skip
    if clock is None:
        return None
    until = next((event.data["clock"] for event in deployment.events
                  if event.kind == "weights" and event.data.get("reason")), None)  # fmt: skip
    runs: list[Any] = run_log.window(since=float(clock), until=until and float(until) + 1.0, probes=False)
    release = deployment.facts["register"]["sha256"][:12]
    everybody = {run.unit for run in runs}
    met = {run.unit for run in runs if run.release == release and run.arm == "canary"}
    return (len(met), len(everybody)) if everybody else None


def exposed_share(run_log: RunLog, deployment: Deployment) -> float | None:
    """The same as a share."""
    counts = exposed_customers(run_log, deployment)
    return counts[0] / counts[1] if counts else None


def met_by(met: int | None, everybody: int | None) -> str:
    """The same for a table: "nobody", or "2 of 40"."""
    return f"{met} of {everybody}" if met else "nobody"
