"""Back to the champion before this one, when no deployment is under way: start it, switch, then end the other."""

from dataclasses import replace
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.pipeline.gateway.routes import Arm
from stage3_agents_llmops.registry import CHAMPION
from stage3_agents_llmops.registry.interface import rollback_target


def go_back(parts: Any, reason: str) -> int:
    """Serve the champion before the present one; returns its version.

    The old release is up before customers are sent there, and the alias moves last: whoever is killed in between finds
    a champion that is still served, and can do it again.

    Raises:
        LabError: there is no champion before this one.
    """
    registry, fleet = parts.registry, parts.fleet
    now = registry.aliases()[CHAMPION]
    target = rollback_target(registry.history(CHAMPION))
    if target is None:
        raise LabError(f"champion was never anything but version {now}", "python -m stage3_agents_llmops.registry list")
    release = registry.get(target)
    folder = registry.load(target, parts.home.release(release.sha256))
    name = f"back-{len(registry.history(CHAMPION))}-v{target}"
    one = fleet.start_service(name, folder)
    fleet.processes.wait_ready(name)
    stable = Arm("stable", release.sha256[:12], one.url, 100.0)
    fleet.gateway().change(lambda routes: replace(routes, arms=(stable,), shadow=None, salt=""))
    registry.rollback(CHAMPION, expected=now, actor="pipeline", reason=reason)
    fleet.processes.drain_all([other for other in fleet.services() if other != name], parts.schedule.drain)
    parts.log.append("notice", None, title="went back", text=f"from version {now} to {target}: {reason}")
    parts.notifier.send("went back", f"from version {now} to {target}: {reason}")
    return target
