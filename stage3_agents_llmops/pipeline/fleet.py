"""The processes of one shop: the gateway, and the services that answer behind it."""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.server_process import free_port
from stage3_agents_llmops.agent.service.auth import Tokens
from stage3_agents_llmops.pipeline.gateway.client import GatewayClient
from stage3_agents_llmops.pipeline.home import Home
from stage3_agents_llmops.pipeline.processes import Processes, ServiceProcess, running

GATEWAY, LOAD = "gateway", "load"  # processes that are no services
GRACE = 20.0  # seconds that a service's runs may go on after SIGTERM
THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM")}
Command = Callable[[Home, str, Path, int, bool], list[str]]  # home, instance, release, port, shadow -> words


def agent_command(home: Home, instance: str, release: Path, port: int, shadow: bool) -> list[str]:
    """The customer service of stage 3 with a release."""
    place = home.shadow if shadow else home.folder
    words = [sys.executable, "-m", "stage3_agents_llmops.agent", "serve", "--release", release, "--port", port]
    words += ["--instance", instance, "--shop", place / "shop.sqlite", "--state", place / "state", "--no-demo"]
    words += ["--grace", GRACE]
    return list(map(str, words))


class Fleet:
    """Starts and finds processes of a home.

    Args:
        command: words of a service; another one in tests.
    """

    def __init__(self, home: Home, processes: Processes, command: Command = agent_command) -> None:
        self.home, self.processes, self.command = home, processes, command

    def start_gateway(self, port: int | None = None, host: str = "127.0.0.1") -> ServiceProcess:
        """The one address that customers know; the one that runs is kept, and one that died keeps its port.

        Raises:
            LabError: it runs on another port than the one that is asked for.
        """
        known = self.processes.find(GATEWAY)
        port_before = int(known.url.rsplit(":", 1)[1]) if known else None
        if known and running(known) and port not in (None, port_before):
            raise LabError(f"the gateway runs on port {port_before}", f"--port {port_before}, or pipeline stop")
        port = port or port_before or free_port()
        words = [sys.executable, "-m", "stage3_agents_llmops.pipeline", "gateway", "--home", str(self.home.folder),
                 "--port", str(port), "--host", host]  # fmt: skip
        return self.processes.start_unwrapped(GATEWAY, words, f"http://127.0.0.1:{port}", THREADS)

    def gateway(self) -> GatewayClient:
        """A client of the gateway that runs.

        Raises:
            LabError: none runs here.
        """
        one = self.processes.find(GATEWAY)
        if one is None:
            raise LabError(f"no gateway runs in {self.home.folder}", "python -m stage3_agents_llmops.pipeline run")
        return GatewayClient.of_home(self.home.folder, one.url)

    def start_service(self, name: str, release: Path, shadow: bool = False) -> ServiceProcess:
        """A service process; the one that runs under the name is kept."""
        known = self.processes.find(name)
        if known and running(known):
            return known
        port = int(known.url.rsplit(":", 1)[1]) if known else free_port()
        words = self.command(self.home, name, release, port, shadow)
        return self.processes.start(name, words, f"http://127.0.0.1:{port}", THREADS)

    def token_of(self, shadow: bool = False) -> Callable[[str], str]:
        """Customer -> bearer token, for probes."""
        return Tokens.open(self.home.shadow / "state" if shadow else self.home.state).issue

    def copy_for_shadow(self) -> None:
        """A shop of its own for the release that only listens, and the secret, so that customers' tokens hold there."""
        shutil.rmtree(self.home.shadow, ignore_errors=True)
        (self.home.shadow / "state").mkdir(parents=True)
        copy_database(self.home.shop, self.home.shadow / "shop.sqlite")
        secret = self.home.state / "service.secret"
        if secret.exists():
            shutil.copy2(secret, self.home.shadow / "state")

    def named(self, backend: str) -> ServiceProcess | None:
        """The process that answers at an address."""
        return next((one for one in self.processes.records() if one.url == backend), None)

    def services(self) -> Mapping[str, ServiceProcess]:
        """Those that answer customers' messages, by name."""
        return {one.name: one for one in self.processes.records() if one.name not in (GATEWAY, LOAD)}

    def dead(self) -> list[str]:
        """Names of gateway and services that should run and do not."""
        return [name for name in self.processes.dead() if name != LOAD]


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of an SQLite file that others are writing."""
    if not source.exists():
        return
    temporary = target.with_name(f".tmp-{target.name}")
    temporary.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(temporary)) as two:
        one.backup(two)
    os.replace(temporary, target)
