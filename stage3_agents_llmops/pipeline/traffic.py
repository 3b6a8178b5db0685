"""Simulated customers beside a deployment: the load generator in a process of its own."""

import json
import sys
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.pipeline.fleet import GATEWAY, LOAD, THREADS, Fleet


class Traffic:
    """Customers who talk to the gateway until `stop`. Those that a killed controller left are adopted."""

    def __init__(self, fleet: Fleet, customers: int) -> None:
        self.fleet, self.customers = fleet, customers
        self.out = fleet.home.folder / "load" / "seen.json"

    def start(self) -> None:
        """Let the customers in."""
        gateway = self.fleet.processes.find(GATEWAY)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.unlink(missing_ok=True)
        words = [sys.executable, "-m", "stage3_agents_llmops.pipeline", "load", "--gateway", gateway.url, "--home",
                 self.fleet.home.folder, "--customers", self.customers, "--seconds", 0, "--out", self.out]  # fmt: skip
        self.fleet.processes.start_unwrapped(LOAD, words, gateway.url, THREADS)

    def stop(self) -> dict[str, Any]:
        """Let them finish, and read what they saw.

        Raises:
            LabError: the load generator ended without a word.
        """
        self.fleet.processes.drain(LOAD, 60.0)
        return read_seen(self.out)


def read_seen(path: Path) -> dict[str, Any]:
    """What the customers saw.

    Raises:
        LabError: nothing is there.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise LabError("the load generator ended without a report", f"its log: {path.parent.parent}/processes/load.log"
                       ) from None  # fmt: skip
