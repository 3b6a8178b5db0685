"""The commands around the controller; each test names the bug that it catches."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from lab_cli import lab_cli
from light_pipeline import Customers, LightRecipe, figures, first_champion, light_parts, make_release

from labkit.errors import LabError
from stage3_agents_llmops.monitoring import RunRecord
from stage3_agents_llmops.pipeline import watch_command
from stage3_agents_llmops.pipeline.canary_alerts import read_alerts
from stage3_agents_llmops.pipeline.chaos import Chaos
from stage3_agents_llmops.pipeline.common_options import outcome
from stage3_agents_llmops.pipeline.controller import Controller, order_of
from stage3_agents_llmops.pipeline.evaluation import write_evaluation
from stage3_agents_llmops.pipeline.exposed import exposed_customers
from stage3_agents_llmops.pipeline.going_back import go_back
from stage3_agents_llmops.pipeline.notifications import Notifier
from stage3_agents_llmops.pipeline.processes import Processes, leftovers
from stage3_agents_llmops.pipeline.releases_view import releases
from stage3_agents_llmops.pipeline.timeline import draw_timeline
from stage3_agents_llmops.registry import CHAMPION


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """`python -m stage3_agents_llmops.pipeline` without the second process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    return lab_cli(capsys, "stage3_agents_llmops.pipeline")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A served champion, and one deployment that went live; the processes end with the module."""
    folder = tmp_path_factory.mktemp("commands") / "home"
    parts = light_parts(folder)
    with Controller(parts) as controller:
        first_champion(parts)
        controller.serve()
        assert deploy(controller).ending == "done"
    yield folder
    Processes(folder / "processes").stop_all(5)
    assert leftovers(folder / "processes") == []


def deploy(controller, **behaviour):
    """A deployment of a release with that behaviour."""
    folder = controller.parts.home.folder
    number = len(controller.parts.log.deployments()) + 1
    release = make_release(folder / "made" / str(number), seed=500 + number, **behaviour)
    evaluation = write_evaluation(folder / "made" / f"{number}.json", figures())
    return controller.deploy(order_of(release, evaluation, note=f"number {number}"))


class Hook:
    """A webhook that answers with a list of statuses, the last one for ever."""

    def __init__(self, *statuses):
        got = self.got = []
        left = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.end_headers()

            def log_message(self, *words):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def outcomes(path):
    return [json.loads(line)["outcome"] for line in path.read_text().splitlines()]


def test_notification_is_tried_again(tmp_path):
    """Catches: a message that is lost because the receiver had a bad second; one that is sent twice."""
    hook = Hook(500, 200)
    notifier = Notifier(hook.url, tmp_path / "sent.jsonl", pauses=(0.05, 0.05))
    notifier.send("rolled back", "it was slow", deployment="d001")
    notifier.close(10)
    assert len(hook.got) == 2 and hook.got[0] == hook.got[1]
    assert hook.got[0]["title"] == "rolled back" and hook.got[0]["deployment"] == "d001"
    assert outcomes(tmp_path / "sent.jsonl") == ["delivered"]


def test_refused_notification_is_not_tried_again(tmp_path):
    """Catches: a wrong address that is asked for ever."""
    hook = Hook(404)
    notifier = Notifier(hook.url, tmp_path / "sent.jsonl", pauses=(0.05, 0.05))
    notifier.send("x", "y")
    notifier.close(10)
    assert len(hook.got) == 1 and outcomes(tmp_path / "sent.jsonl") == ["not delivered: 404"]


def test_dead_webhook_never_holds_anybody_up(tmp_path):
    """Catches: a rollback that waits for a chat server."""
    notifier = Notifier("http://127.0.0.1:9", tmp_path / "sent.jsonl", pauses=(30.0,))
    began = time.monotonic()
    for number in range(1500):
        notifier.send("x", str(number))
    notifier.close(0.2)
    assert time.monotonic() - began < 5
    with pytest.raises(LabError, match="no webhook"):
        Notifier("ftp://somewhere", tmp_path / "sent.jsonl")


def test_status_shows_what_runs_and_what_was(home, cli):
    """Catches: a status that shows a dead process as running, or another release as live."""
    code, out, err = cli("status", "--home", str(home))
    assert code == 0, err
    live = light_parts(home).registry.get(CHAMPION).sha256[:12]
    assert live in out and "live" in out and "100%" in out and "gateway" in out and "d001" in out


def test_status_and_stop_without_a_pipeline_are_one_line(cli, tmp_path):
    """Catches: a traceback, or a folder that is made by looking."""
    for command in ("status", "stop", "rollback"):
        code, _, err = cli(command, "--home", str(tmp_path / "none"))
        assert code == 2 and err.startswith("error: there is no pipeline") and not (tmp_path / "none").exists()


@pytest.mark.parametrize("words, what", [
    (["run", "--gates", "none.toml"], "no gates"),
    (["run", "--evaluation", "x.json"], "--release"),
    (["run", "--webhook", "ftp://x"], "no webhook"),
    (["chaos", "--only", "kiled-worker"], "kiled-worker"),
    (["demo", "--bad", "wrnog"], "wrnog"),
    (["deploy", "--state", "none"], "--release"),
    (["platform"], "--shop"),
    (["watch", "--every", "0"], "--every"),
    (["evaluate"], "--release"),
])  # fmt: skip
def test_bad_input_is_one_line(cli, tmp_path, monkeypatch, words, what):
    """Catches: minutes of training before a typing error is told."""
    monkeypatch.chdir(tmp_path)
    extra = ["--home", str(tmp_path / "home")] if words[0] in ("run", "chaos", "demo", "watch") else []
    code, _, err = cli(*words, *extra)
    assert code == 2 and what in err and "Traceback" not in err


def test_releases_view_follows_a_deployment(home):
    """Catches: shares that do not add up; a canary that is called live; a release that was rolled back called live."""
    seen = {}

    def look(kind, data):
        if kind == "finished" and data["step"] in ("canary-25", "drain"):
            rows = releases(home, parts.fleet.gateway().routes())
            seen[data["step"]] = {row["status"]: row["share"] for row in rows if row["share"]}
            assert sum(row["share"] for row in rows) == pytest.approx(1)

    parts = light_parts(home)
    with Controller(parts, look) as controller:
        controller.serve()
        assert deploy(controller).ending == "done"
        back = deploy(controller, wrong=0.9)
    assert seen == {"canary-25": {"live": 0.75, "canary": 0.25}, "drain": {"live": 1.0}}
    rows = {row["release"]: row for row in releases(home, parts.fleet.gateway().routes())}
    row = rows[back.facts["register"]["sha256"][:12]]
    assert (row["status"], row["share"]) == ("rolled back", 0.0) and row["note"].startswith("number")
    assert [row["status"] for row in rows.values()].count("live") == 1


def test_harmed_canary_is_an_alert_that_ends(home):
    """Catches: a rollback that nobody is told of; an alert that fires for ever; a wrong family."""
    parts = light_parts(home)
    with Controller(parts) as controller:
        controller.serve()
        deployment = deploy(controller, fail=0.9)
    release = deployment.facts["register"]["sha256"][:12]
    alerts = [alert for alert in read_alerts(home) if alert["release"] == release]
    assert {alert["family"] for alert in alerts} >= {"errors"} and all(alert["state"] == "resolved" for alert in alerts)
    assert all(alert["since"] <= alert["until"] for alert in alerts)
    assert outcome(deployment)["status"] == "rolled back" and outcome(deployment)["release"] == release


def test_go_back_serves_the_champion_before(home):
    """Catches: an alias that goes back while customers stay; an old process that is not started."""
    parts = light_parts(home)
    now = parts.registry.aliases()[CHAMPION]
    with Controller(parts) as controller:
        controller.serve()
        with Customers(home, parts.fleet.gateway().url) as customers:
            target = go_back(parts, "a test")
            time.sleep(0.5)
    assert target != now and parts.registry.aliases()[CHAMPION] == target
    arms = parts.fleet.gateway().routes().arms
    assert [(arm.release, arm.weight) for arm in arms] == [(parts.registry.get(target).sha256[:12], 100)]
    assert customers.faults == [] and customers.answered


def test_watch_deploys_for_new_data_once(home, monkeypatch):
    """Catches: new data that nobody trains on; the same data that is trained on again and again."""
    parts = light_parts(home)
    config = watch_command.WatchConfig(home=home, every=0.05, deployments=1, quiet=True)
    monkeypatch.setattr(LightRecipe, "data", {"set": "cd" * 32})
    assert "new data" in watch_command.reason_to_deploy(parts, 600)
    with Controller(parts) as controller:
        controller.serve()
        assert watch_command.watch(controller, config) == 1
    assert parts.log.last().ending == "done" and "new data" in parts.log.last().order["note"]
    assert watch_command.reason_to_deploy(parts, 600) is None
    monkeypatch.setattr(LightRecipe, "data", {"set": "ef" * 32})
    assert watch_command.reason_to_deploy(parts, 600) == "new data: set"


def test_watch_deploys_for_drift_not_sooner_than_the_pause(home, monkeypatch):
    """Catches: a drift alert that starts a deployment every minute, or never."""
    parts = light_parts(home)
    now = time.time()
    rows = [RunRecord(run_id=f"drift-{n}", started=now - 900 + n, duration_s=0.1, intent="order_status", query_chars=30)
            for n in range(400)]  # fmt: skip
    rows += [RunRecord(run_id=f"later-{n}", started=now - 200 + n / 3, duration_s=0.1, intent="complaint",
                       query_chars=300) for n in range(400)]  # fmt: skip
    from stage3_agents_llmops.monitoring import RunLog

    parts.run_log = RunLog(home / "drift.sqlite")
    assert watch_command.drift(parts, 0, now) is None
    parts.run_log.add(*rows)
    assert watch_command.drift(parts, 0, now).startswith("drift")
    assert watch_command.drift(parts, 10_000, now) is None


def test_chaos_killed_worker_is_seen_and_put_right(home):
    """Catches: a service that stays away after it was killed; a recovery that nobody measures."""
    from stage3_agents_llmops.pipeline.chaos_command import table_of

    parts = light_parts(home)
    with Controller(parts) as controller:
        controller.serve()
        chaos = Chaos(controller, None, lambda: answered(parts))
        finding = chaos.killed_worker()
        bad = Chaos(controller, lambda kind, good, folder: make_release(folder, seed=77, fail=0.9), None).bad_release()
    assert finding.survived and finding.alert == "a process died" and finding.recovery_s > 0
    assert bad.survived and "CanaryHarmed (errors)" in bad.alert and bad.exposed == (0, 0)
    assert table_of([finding, bad]).row_count == 2


def answered(parts):
    import httpx

    client = httpx.Client(base_url=parts.fleet.gateway().url, trust_env=False, timeout=5, verify=False,
                          headers={"Authorization": f"Bearer {parts.fleet.token_of()('C1001')}"})  # fmt: skip
    with client:
        return client.post("/threads", json={}).status_code == 201


def test_exposed_counts_customers_until_the_rollback():
    """Catches: probes that count as customers; messages that count as customers; runs before the canary."""
    from stage3_agents_llmops.pipeline.event_log import replay
    from stage3_agents_llmops.registry.event_log import Event

    def event(kind, **data):
        return Event(1, "2026-11-29T09:00:00+00:00", kind, {"deployment": "d001", **data}, "", "")

    one = replay([event("deployment"), event("finished", step="register", sha256="ab" * 32),
                  event("weights", clock=100.0, weights={"canary": 1}),
                  event("weights", clock=110.0, weights={"stable": 100}, reason="bad")])[0]  # fmt: skip

    class Log:
        def window(self, since, until, probes):
            rows = [("C1", "canary", 101, False), ("C1", "canary", 102, False), ("C2", "stable", 103, False),
                    ("C3", "canary", 99, False), ("C4", "canary", 120, False), ("C5", "canary", 104, True)]  # fmt: skip
            return [RunRecord(run_id=f"{unit}{at}", unit=unit, arm=arm, release="ab" * 6, started=at, probe=probe)
                    for unit, arm, at, probe in rows if since <= at < until and probe == probes]  # fmt: skip

    assert exposed_customers(Log(), one) == (1, 2)
    assert exposed_customers(Log(), replay([event("deployment")])[0]) is None


def test_timeline_is_drawn_from_the_log(home, tmp_path):
    """Catches: a figure that fails for a deployment that ended early."""
    from PIL import Image

    for number, deployment in enumerate(light_parts(home).log.deployments()):
        path = draw_timeline(deployment, tmp_path / f"{number}.png")
        assert Image.open(path).size[0] > 800


def test_stop_leaves_nothing(home, cli):
    """Catches: orphans after `stop`. Runs last: it ends what the other tests of this module share."""
    parts = light_parts(home)
    with Controller(parts) as controller:
        controller.serve()
    assert len([one for one in parts.fleet.processes.records() if one.alive]) >= 2
    code, out, err = cli("stop", "--home", str(home))
    assert code == 0 and "gateway" in out, err
    assert parts.fleet.processes.records() == [] and leftovers(home / "processes") == []
    code, out, _ = cli("stop", "--home", str(home))
    assert code == 0 and "nothing was running" in out
