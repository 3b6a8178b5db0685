"""Beside the course's gateway in Kubernetes: labelled questions to the canary and to the baseline, the same to both.

    python deploy/llmops/probe_arms.py --gateway http://127.0.0.1:8040 --home /home/course/home --secret FOLDER

Customers tell late and rarely that an answer was wrong; a question whose article is known tells at once. The probes go
to the pods themselves, past the weights, and their rows into the gateway's table of runs, from where they come out as
`llmops_probes_total`: what analysis.yaml asks Prometheus for.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from stage3_agents_llmops.agent.service.auth import Tokens
from stage3_agents_llmops.monitoring import RunLog
from stage3_agents_llmops.monitoring.probes import send_probes

COMPARED = ("canary", "baseline")


def arms(gateway: str, token: Path) -> dict[str, dict]:
    """The gateway's arms that are compared, by name; none while no canary is under way."""
    headers = {"Authorization": f"Bearer {token.read_text(encoding='utf-8').strip()}"}
    request = urllib.request.Request(f"{gateway}/admin/routes", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        found = {arm["name"]: arm for arm in json.load(reply)["arms"]}
    return {name: found[name] for name in COMPARED} if set(COMPARED) <= set(found) else {}


async def ask(found: dict[str, dict], tokens: Tokens, log: RunLog, count: int, seed: int) -> int:
    """The same questions to every arm; returns how many rows there are more."""
    sent = await asyncio.gather(*(
        send_probes(arm["backend"], tokens.issue, log, arm=name, release=arm["release"], count=count, seed=seed)
        for name, arm in found.items()
    ))  # fmt: skip
    return sum(map(len, sent))


def main() -> int:
    """Ask again and again while there is a canary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--home", required=True, type=Path, help="the gateway's folder")
    parser.add_argument("--secret", required=True, type=Path, help="the folder with service.secret")
    parser.add_argument("--count", type=int, default=4, help="questions to each arm, each time")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two times")
    options = parser.parse_args()
    tokens, log = Tokens.open(options.secret), RunLog(options.home / "run_log.sqlite")
    for seed in itertools.count():
        try:
            found = arms(options.gateway, options.home / "gateway" / "token")
            if found:
                asyncio.run(ask(found, tokens, log, options.count, seed))
        except (OSError, urllib.error.URLError, ValueError) as error:
            print(f"waiting: {error}", flush=True)
        time.sleep(options.every)
    return 0


if __name__ == "__main__":
    sys.exit(main())
