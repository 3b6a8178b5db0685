"""Beside the course's gateway in Kubernetes: Argo Rollouts decides the weights, this hands them on.

    python deploy/llmops/follow_weights.py --namespace llmops --route customer-service
        --stable customer-service-stable --canary customer-service-canary --gateway http://127.0.0.1:8040 --token FILE

Argo Rollouts writes the canary's weight into an HTTPRoute. A router that splits single requests by it would send a
customer's message to one release and their event stream to the other. So no router reads the route but this program,
which puts the weights into the gateway's table, where the unit is the customer. The stable pod plays two arms: as many
customers as the canary has are the *baseline*, a comparison of the same size; the rest are *stable*.

Python's own library and the API server's REST interface only.
"""

import argparse
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{name}"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={selector}"
SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True)
class Target:
    """A pod that serves a release."""

    backend: str
    release: str


class Unready(Exception):
    """Something that the next look may find."""


def fetched(url: str, token: str = "", body: Any = None, context: ssl.SSLContext | None = None) -> Any:
    """The JSON that a GET answers, or a PUT of a body.

    Raises:
        Unready: nobody answers, or with an error; the status is in `args[1]`, 0 where there is none.
    """
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method="PUT" if data else "GET")
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the answer's connection
        raise Unready(f"{url} answers {error.code}", error.code) from None
    except (OSError, ValueError) as error:
        raise Unready(f"{url}: {error}", 0) from None


def canary_weight(route: Mapping[str, Any], stable: str, canary: str) -> float:
    """The canary's weight in per cent, from an HTTPRoute. Weights that are not written are 1 (Gateway API).

    Raises:
        Unready: the route does not name both services.
    """
    backends = [backend for rule in route["spec"]["rules"] for backend in rule.get("backendRefs", ())]
    weights = {backend["name"]: float(backend.get("weight", 1)) for backend in backends}
    if stable not in weights or canary not in weights or not sum(weights.values()):
        raise Unready(f"the route has weights for {', '.join(weights) or 'nothing'}")
    if not any("weight" in backend for backend in backends):
        return 0.0  # as it was written by hand: no rollout has been there yet
    return 100 * weights[canary] / (weights[stable] + weights[canary])


def first_address(slices: Mapping[str, Any]) -> str | None:
    """http://IP:PORT of a ready pod behind a service, from its EndpointSlices; the same one as long as it is there."""
    found = [
        f"http://{address}:{port['port']}"
        for item in slices.get("items", ())
        for endpoint in item.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready")
        for address in endpoint["addresses"]
        for port in item.get("ports") or ()
    ]
    return min(found, default=None)


def arms_for(weight: float, stable: Target | None, canary: Target | None) -> list[dict[str, Any]]:
    """The gateway's arms for a canary's weight. A release without a ready pod gets nobody.

    Raises:
        Unready: there is no pod at all.
    """
    if stable is None and canary is None:
        raise Unready("no pod is ready")
    if canary is None or stable is None or stable.release == canary.release:
        weight = 0.0 if stable else 100.0
    weight = round(weight, 4)
    compared = min(weight, 100 - weight)
    rows = [("stable", stable, 100 - weight - compared), ("baseline", stable, compared), ("canary", canary, weight)]
    return [
        {"name": name, "release": target.release, "backend": target.backend, "weight": round(share, 4)}
        for name, target, share in rows
        if target and (share > 0 or name == "stable")
    ]


class Follower:
    """Looks at the cluster and tells the gateway.

    Args:
        api: the API server's address; `account`: its token's file, read at every look because it is renewed.
        token: file with the gateway's token.
    """

    def __init__(
        self, api: str, account: Path, namespace: str, route: str, stable: str, canary: str, gateway: str, token: Path,
        context: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.api, self.account, self.namespace, self.context = api, account, namespace, context
        self.route, self.stable, self.canary = route, stable, canary
        self.gateway, self.token = gateway, token

    def look(self) -> list[dict[str, Any]] | None:
        """Compare and, where they differ, put; the arms that were put, or None.

        Raises:
            Unready: part of the cluster or the gateway does not answer. The gateway keeps what it has.
        """
        route = self.cluster(ROUTES.format(namespace=self.namespace, name=self.route))
        weight = canary_weight(route, self.stable, self.canary)
        arms = arms_for(weight, self.target(self.stable), self.target(self.canary))
        secret = self.token.read_text(encoding="utf-8").strip()
        table = fetched(f"{self.gateway}/admin/routes", secret)
        if [{name: arm[name] for name in arms[0]} for arm in table["arms"]] == arms:
            return None
        canary = next((arm["release"] for arm in arms if arm["name"] == "canary"), "")
        wanted = {"number": table["number"], "arms": arms, "shadow": None, "salt": canary or table.get("salt", "")}
        fetched(f"{self.gateway}/admin/routes", secret, wanted)
        return arms

    def target(self, service: str) -> Target | None:
        """The pod behind a service, and the release that it says it serves."""
        selector = quote(f"{SERVICE_LABEL}={service}")
        address = first_address(self.cluster(SLICES.format(namespace=self.namespace, selector=selector)))
        if address is None:
            return None
        return Target(address, str(fetched(f"{address}/health")["release"]))

    def cluster(self, path: str) -> Any:
        """What the API server says."""
        return fetched(self.api + path, self.account.read_text(encoding="utf-8").strip(), context=self.context)


def main() -> int:
    """Look every second until the pod ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("namespace", "route", "stable", "canary", "gateway", "token"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--api", default="https://kubernetes.default.svc")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks")
    options = parser.parse_args()
    context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt") if options.api.startswith("https:") else None
    follower = Follower(
        options.api, ACCOUNT / "token", options.namespace, options.route, options.stable, options.canary,
        options.gateway, Path(options.token), context,
    )  # fmt: skip
    last = ""
    while True:
        try:
            arms = follower.look()
            said = "" if arms is None else ", ".join(f"{arm['name']} {arm['weight']:g} %" for arm in arms)
        except (Unready, OSError, KeyError) as error:
            said = f"waiting: {error}"
        if said and said != last:
            print(said, flush=True)
            last = said
        time.sleep(options.every)


if __name__ == "__main__":
    sys.exit(main())
