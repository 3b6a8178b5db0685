"""A gateway in front of real services, each on a real port; the services share state as those of one shop do."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "agent" / "service"))  # the agent's own small service

from service_under_test import ALICE, Running, running  # noqa: E402
from small_service import small_app  # noqa: E402

from stage3_agents_llmops.agent.service.limits import Limits  # noqa: E402
from stage3_agents_llmops.monitoring import RunRecord  # noqa: E402
from stage3_agents_llmops.pipeline.gateway.app import Extras, GatewayFiles, make_app  # noqa: E402

PLAIN = Extras(monitor=False)
RELEASES = {"stable": "ab12", "baseline": "ab12", "canary": "cd34"}


@dataclass
class GatewayRunning(Running):
    """A gateway under test; what it inherits speaks to it as a customer does."""

    files: GatewayFiles

    @property
    def gateway(self) -> Any:
        return self.app.state.gateway

    def admin(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {(self.files.folder / 'token').read_text()}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20)

    def put(self, backends: dict[str, str], weights: dict[str, float], **more: Any) -> httpx.Response:
        """Put arms in force: name -> address, name -> weight."""
        arms = [{"name": name, "release": RELEASES[name], "backend": backends[name], "weight": weight}
                for name, weight in weights.items()]  # fmt: skip
        with self.admin() as admin:
            number = more.pop("number", None)
            number = admin.get("/admin/routes").json()["number"] if number is None else number
            return admin.put("/admin/routes", json={"number": number, "arms": arms, **more})

    def rows(self, **wanted: Any) -> list[RunRecord]:
        return self.gateway.recorder.run_log.window(**wanted)


@contextmanager
def gateway_running(
    home: Path, folder: Path, extras: Extras = PLAIN, **limits: Any
) -> Iterator[GatewayRunning]:
    """A gateway; `folder` is the services' state, for the customers' tokens."""
    files = GatewayFiles.below(home)
    with running(make_app(files, Limits(**limits), extras), folder) as started:
        yield GatewayRunning(started.url, started.app, folder, started.tokens, files)


@contextmanager
def shop_running(home: Path, folder: Path, names: tuple[str, ...] = ("stable", "canary"), **options: Any) -> Iterator[
    tuple[GatewayRunning, dict[str, Running]]
]:  # fmt: skip
    """A gateway and services on one state folder; nothing is routed yet."""
    with ExitStack() as stack:
        backends = {name: stack.enter_context(running(small_app(folder, instance=name, **options), folder))
                    for name in names}  # fmt: skip
        yield stack.enter_context(gateway_running(home, folder)), backends


def urls(backends: dict[str, Running]) -> dict[str, str]:
    return {name: backend.url for name, backend in backends.items()}


__all__ = ["ALICE", "GatewayRunning", "Running", "gateway_running", "running", "shop_running", "small_app", "urls"]
