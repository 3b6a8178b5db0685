"""Which releases there are and who gets them: the log of deployments beside the routes that are in force."""

from pathlib import Path
from typing import Any

from stage3_agents_llmops.pipeline.event_log import Deployment, DeploymentLog
from stage3_agents_llmops.pipeline.gateway.routes import Routes
from stage3_agents_llmops.pipeline.home import Home


def releases(home: Path, routes: Routes) -> list[dict[str, Any]]:
    """Every release that a deployment knows, the newest first: release, note, share of the customers, status.

    status is live (gets customers, and is or was champion), canary, shadow, waiting (registered, its deployment goes
    on), rolled back, held, or retired (was live once).
    """
    deployments = DeploymentLog(Home.at(home).log).deployments()
    shares: dict[str, float] = {}
    for arm in routes.arms:
        shares[arm.release] = shares.get(arm.release, 0.0) + arm.weight / 100
    canary = routes.arm("canary")
    found: dict[str, dict[str, Any]] = {}
    for one in reversed(deployments):
        release = one.facts.get("register", {}).get("sha256", "")[:12]
        if release and release not in found:
            shadow = routes.shadow is not None and routes.shadow.release == release
            status = _status(one, shares.get(release, 0.0), bool(canary and canary.release == release), shadow)
            found[release] = _row(release, one.order.get("note", ""), shares, status)
        before = (one.order.get("champion_sha256") or "")[:12]
        if before and before not in found and not any(_is(other, before) for other in deployments):
            found[before] = _row(before, "", shares, "live" if shares.get(before) else "retired")
    for arm in routes.arms:
        if arm.release not in found:
            found[arm.release] = _row(arm.release, "", shares, "live")
    return list(found.values())


def _row(release: str, note: str, shares: dict[str, float], status: str) -> dict[str, Any]:
    return {"release": release, "note": note, "share": round(shares.get(release, 0.0), 4), "status": status}


def _is(deployment: Deployment, release: str) -> bool:
    return deployment.facts.get("register", {}).get("sha256", "").startswith(release)


def _status(one: Deployment, share: float, canary: bool, shadow: bool) -> str:
    if one.running:
        return "shadow" if shadow else "canary" if canary else "live" if share else "waiting"
    if one.ending != "done":
        return one.ending
    return "live" if share else "retired"
