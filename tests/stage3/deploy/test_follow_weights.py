"""follow_weights.py between a cluster's API and the course's gateway: the gateway's command, a small API server."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "deploy" / "llmops"))

from follow_weights import Follower, Target, Unready, arms_for, canary_weight, fetched, first_address  # noqa: E402

OLD, NEW = Target("http://10.0.0.1:8030", "ab12"), Target("http://10.0.0.2:8030", "cd34")


def route(*weights: int | None) -> dict:
    backends = [{"name": name, "port": 8030} | ({} if weight is None else {"weight": weight})
                for name, weight in zip(("old", "new"), weights, strict=True)]  # fmt: skip
    return {"spec": {"rules": [{"backendRefs": backends}]}}


def shares(arms: list[dict]) -> dict[str, float]:
    return {arm["name"]: arm["weight"] for arm in arms}


@pytest.mark.parametrize(
    ("weights", "canary"), [((None, None), 0.0), ((100, 0), 0.0), ((95, 5), 5.0), ((0, 100), 100.0), ((3, 1), 25.0)]
)
def test_weights_are_argos(weights, canary):
    """Catches: a route that nobody has written weights into yet taken for half and half, as Gateway API would."""
    assert canary_weight(route(*weights), "old", "new") == canary


def test_a_route_for_something_else_changes_nothing():
    """Catches: everybody sent to one release because the other's name was not found."""
    for wrong in (route(100, 0), {"spec": {"rules": []}}, route(0, 0)):
        with pytest.raises(Unready):
            canary_weight(wrong, "old", "somebody-elses" if wrong == route(100, 0) else "new")


@given(st.sampled_from([0.0, 1.0, 5.0, 25.0, 50.0, 100.0]) | st.floats(0, 100))
def test_the_baseline_is_as_large_as_the_canary(weight):
    """Catches: weights that do not sum to 100, a comparison of unequal sizes, an arm that nobody can be in."""
    found = shares(arms_for(weight, OLD, NEW))
    assert sum(found.values()) == pytest.approx(100, abs=1e-4)
    assert found.get("canary", 0.0) == pytest.approx(weight, abs=1e-4)
    assert found.get("baseline", 0.0) == pytest.approx(min(weight, 100 - weight), abs=1e-4)
    assert all(share > 0 for name, share in found.items() if name != "stable")


def test_a_release_without_a_pod_gets_nobody():
    """Catches: customers sent to a pod that is not there; two arms of one release after the promotion."""
    assert shares(arms_for(25, OLD, None)) == {"stable": 100}
    assert shares(arms_for(100, OLD, Target("http://10.0.0.3:8030", "ab12"))) == {"stable": 100}
    assert arms_for(0, None, NEW)[-1] == {"name": "canary", "release": "cd34", "backend": NEW.backend, "weight": 100.0}
    with pytest.raises(Unready, match="no pod"):
        arms_for(5, None, None)


def test_pods_that_are_not_ready_are_passed_over():
    """Catches: a starting or ending pod that gets customers."""
    endpoints = [{"addresses": [f"10.0.0.{n}"], "conditions": {"ready": n > 1}} for n in (1, 2, 3)]
    slices = {"items": [{"endpoints": endpoints, "ports": [{"port": 8030}]}]}
    assert first_address(slices) == "http://10.0.0.2:8030"
    assert first_address({"items": [{"endpoints": None, "ports": None}]}) is None


class Cluster:
    """The API server's answers, and two pods that say which release they serve."""

    def __init__(self) -> None:
        self.route, self.pods, self.asked = route(None, None), {}, []
        self.releases = {"old": "ab12ab12ab12", "new": "cd34cd34cd34"}
        self.ports = {name: self._listen(self._pod(name)) for name in self.releases}
        self.url = f"http://127.0.0.1:{self._listen(self._api())}"

    def _listen(self, handler: type[BaseHTTPRequestHandler]) -> int:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def _answering(self, answer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = json.dumps(answer(self)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _pod(self, name: str) -> type[BaseHTTPRequestHandler]:
        return self._answering(lambda request: {"status": "ready", "release": self.releases[name]})

    def _api(self) -> type[BaseHTTPRequestHandler]:
        def answer(request: BaseHTTPRequestHandler) -> dict:
            self.asked.append((request.path, request.headers["Authorization"]))
            if "httproutes" in request.path:
                return self.route
            name = request.path.rsplit("%3D", 1)[-1]
            ready = name in self.pods
            endpoints = [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}]
            return {"items": [{"endpoints": endpoints, "ports": [{"port": self.ports[name]}]}]}

        return self._answering(answer)


@pytest.fixture
def following(tmp_path) -> Iterator[tuple[Cluster, Follower]]:
    """A cluster, and a follower between it and the gateway's own command."""
    words = ["-m", "stage3_agents_llmops.pipeline", "gateway", "--home", str(tmp_path / "home"), "--port"]
    process = subprocess.Popen([sys.executable, *words, "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().split()[0]
        cluster, account = Cluster(), tmp_path / "account"
        account.write_text("cluster-token")
        token = tmp_path / "home" / "gateway" / "token"
        yield cluster, Follower(cluster.url, account, "llmops", "route", "old", "new", url, token)
    finally:
        process.terminate()
        process.wait(20)


def test_a_rollout_is_handed_on(following):
    """Catches: weights that stay where they were; customers without a release while pods come and go."""
    cluster, follower = following
    with pytest.raises(Unready, match="no pod"):
        follower.look()
    cluster.pods = {"old"}
    assert shares(follower.look()) == {"stable": 100}
    assert follower.look() is None  # nothing new: the table keeps its number
    cluster.pods = {"old", "new"}
    cluster.route = route(95, 5)
    assert shares(follower.look()) == {"stable": 90, "baseline": 5, "canary": 5}
    table = fetched(f"{follower.gateway}/admin/routes", follower.token.read_text())
    assert table["salt"] == "cd34cd34cd34" and table["number"] == 2
    cluster.route = route(100, 0)  # aborted
    assert shares(follower.look()) == {"stable": 100}
    cluster.route = route(0, 100)
    assert shares(follower.look()) == {"stable": 0, "canary": 100}
    cluster.releases["old"], cluster.pods, cluster.route = "cd34cd34cd34", {"old"}, route(100, 0)  # promoted
    assert [(arm["name"], arm["release"]) for arm in follower.look()] == [("stable", "cd34cd34cd34")]
    assert {token for _, token in cluster.asked} == {"Bearer cluster-token"}
    asked = {path for path, _ in cluster.asked}
    assert "/apis/gateway.networking.k8s.io/v1/namespaces/llmops/httproutes/route" in asked


def test_somebody_elses_change_is_not_undone(following, monkeypatch):
    """Catches: two writers of one table. Who comes second is told, looks again, and then writes."""
    cluster, follower = following
    cluster.pods, cluster.route = {"old", "new"}, route(95, 5)
    admin = f"{follower.gateway}/admin/routes"

    def interrupted(url: str, token: str = "", body: object = None, context: object = None) -> dict:
        answer = fetched(url, token, body, context)
        if url == admin and body is None and answer["number"] == 0:  # between the follower's look and its word
            arm = {"name": "stable", "release": "ffff", "backend": "http://10.0.0.9:1", "weight": 100}
            fetched(url, token, {"number": 0, "arms": [arm], "shadow": None, "salt": "other"})
        return answer

    monkeypatch.setattr("follow_weights.fetched", interrupted)
    with pytest.raises(Unready) as error:
        follower.look()
    assert error.value.args[1] == 409
    secret = follower.token.read_text()
    assert fetched(admin, secret)["arms"][0]["release"] == "ffff"
    assert shares(follower.look()) == {"stable": 90, "baseline": 5, "canary": 5}
    assert fetched(admin, secret)["number"] == 2


def test_what_does_not_answer_is_said():
    """Catches: a traceback in the pod's log, and weights that are made up."""
    with pytest.raises(Unready, match="127.0.0.1:9"):
        fetched("http://127.0.0.1:9/nothing")
