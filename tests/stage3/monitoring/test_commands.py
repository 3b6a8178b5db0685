"""The lab's commands. Each test names the bug that it catches."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from made_runs import runs_over

from labkit.runs import latest_run, read_report
from stage3_agents_llmops.monitoring import RunLog
from stage3_agents_llmops.monitoring.__main__ import COMMANDS
from stage3_agents_llmops.monitoring.agreement import disagreements
from stage3_agents_llmops.monitoring.demo_command import DemoConfig, Story, traffic

ROOT = Path(__file__).parents[3]
MODULE = "stage3_agents_llmops.monitoring"


def lab(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess:
    """The command line, in a process of its own."""
    env = os.environ | ({"COURSE_LAB_RUNS": str(folder)} if folder else {})
    return subprocess.run([sys.executable, "-m", MODULE, *words], capture_output=True, text=True, env=env, cwd=ROOT,
                          timeout=240)  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The folder of one demo."""
    runs = tmp_path_factory.mktemp("runs")
    result = lab("demo", "--preset", "smoke", folder=runs)
    assert result.returncode == 0, result.stderr
    before = os.environ.get("COURSE_LAB_RUNS")
    os.environ["COURSE_LAB_RUNS"] = str(runs)
    try:
        folder = latest_run("stage3", "monitoring", "demo")
    finally:
        if before is None:
            del os.environ["COURSE_LAB_RUNS"]
        else:
            os.environ["COURSE_LAB_RUNS"] = before
    return folder


def test_the_demo_sees_what_happens(demo):
    """Catches: a fault that no alert reports, an alert about the good release, metrics that are not the rows'."""
    report = read_report(demo)
    figures = {name: entry["value"] for name, entry in report["metrics"].items()}
    assert report["status"] == "finished"
    assert figures["right_alerts"] == 3 and figures["false_alerts"] == 0 and figures["disagreements"] == 0
    assert figures["same_bucket"] == 1 and figures["notifications"] >= 2
    assert 0 < figures["detection"] <= 60 and 0 < figures["clearing"] <= 200
    assert abs(figures["p95_buckets"] - figures["p95_exact"]) < abs(figures["p95_averaged"] - figures["p95_exact"])
    for name in ("alerts.png", "percentiles.png", "drift.png"):
        assert (demo / name).read_bytes().startswith(b"\x89PNG")


def test_a_seed_draws_the_same_customers_at_any_hour():
    """Catches: traffic that depends on the clock, so that one demo in 25 shows an alert made by chance."""

    def drawn(start: float, seed: int) -> list[tuple]:
        rows = traffic(Story(start, 60.0), DemoConfig(rate=5.0, seed=seed), lambda row, seen: None)
        return [(round(row.started - start, 3), row.arm, row.status, row.duration_s, row.retrieval_hit) for row in rows]

    at_noon = drawn(1_800_000_000.0, 1)
    assert len(at_noon) > 1000 and drawn(1_800_012_345.6, 1) == at_noon
    assert drawn(1_800_000_000.0, 2) != at_noon


def test_another_seed_tells_the_same_story(demo, tmp_path):
    """Catches: a demo that passes by luck: another seed, other traffic, another second to begin at."""
    result = lab("demo", "--preset", "smoke", "--seed", "2", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = next((tmp_path / "stage3" / "monitoring").glob("demo-*"))
    figures = {name: entry["value"] for name, entry in read_report(folder)["metrics"].items()}
    assert figures["right_alerts"] == 3 and figures["false_alerts"] == 0


def test_alerts_drift_and_traces_of_the_demo(demo):
    """Catches: a command that looks at another table or another moment; an exit code that says nothing."""
    table = str(demo / "runs.sqlite")
    alerts = lab("alerts", "--log", table, "--at-end")
    assert alerts.returncode == 1 and "Drift" in alerts.stdout and "ErrorRateHigh" not in alerts.stdout
    drift = lab("drift", "--log", table, "--save", str(demo / "normal.json"))
    assert drift.returncode == 1 and "shifted" in drift.stdout
    assert lab("drift", "--log", table, "--reference", str(demo / "normal.json")).stdout == drift.stdout
    with RunLog(table) as log:
        known = dict(log.query("SELECT trace_id, run_id FROM runs WHERE NOT probe"))
    listed = lab("traces", "--log", table)
    run_id = next(known[id] for id in re.findall(r"[0-9a-f]{32}", listed.stdout) if id in known)
    shown = lab("traces", "--log", table, "--id", run_id)
    assert shown.returncode == 0 and "invoke_agent customer-service" in shown.stdout and run_id in shown.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["alerts", "--log", "none.sqlite"], "no table of runs"),
        (["serve", "--log", "/nowhere/runs.sqlite"], "no folder"),
        (["serve", "--rules", "none.toml"], "cannot be read"),
        (["serve", "--scale", "0"], "scale"),
        (["serve", "--reference", "none.json"], "cannot be read"),
        (["demo", "--minutes", "1"], "minutes"),
        (["demo", "--rate", "0"], "rate"),
        (["traces", "--store", "none.sqlite"], "no traces"),
        (["traces", "--store", __file__, "--send", "mlruns"], "no MLflow"),
        (["traces", "--store", __file__], "cannot hold traces"),
        (["drift", "--log", __file__], "cannot hold runs"),
        (["drft"], "drift"),
    ],
)
def test_bad_input_is_said_in_a_line(words, said, tmp_path, monkeypatch, capsys):
    """Catches: a traceback; an error without a next step; something half done."""
    from labkit.cli import lab_main

    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    assert lab_main("lab", "Monitoring.", COMMANDS, words) == 2
    told = capsys.readouterr().err
    assert said in told and "try:" in told and "Traceback" not in told
    assert not list(tmp_path.rglob("*.sqlite"))


@pytest.fixture
def served(tmp_path):
    """`serve` over a table with a bad canary: its address and the table."""
    log = RunLog(tmp_path / "runs.sqlite")
    now = time.time()
    bad = {"release": "bad", "arm": "canary", "status": "failed", "error": "internal"}
    log.add(*runs_over(100, 150, end=now - 1, release="good"), *runs_over(100, 60, end=now - 1, **bad))
    process = subprocess.Popen([sys.executable, "-m", MODULE, "serve", "--log", str(log.path), "--port", "0"],
                               stdout=subprocess.PIPE, text=True, cwd=ROOT)  # fmt: skip
    try:
        url = re.search(r"http://[\d.:]+", process.stdout.readline())[0]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/alerts", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, log
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stdout.close()
        log.close()


def test_serve(served):
    """Catches: a page that is not there, metrics that lag behind the table, a stream that tells nothing new, an alert
    that only the terminal sees, a port that is taken in silence."""
    url, log = served
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        assert http.get("/dashboard").text.startswith("<!doctype html>")
        assert http.get("/").status_code == 307
        for name in ("dashboard.js", "dashboard.css", "words.js", "chart.js", "icon.svg"):
            assert http.get(f"/dashboard/static/{name}").status_code == 200
        assert http.get("/dashboard/static/..%2Fmonitor.py").status_code == 404
        text = http.get("/metrics").text
        assert disagreements(text, log.window()) == []
        with http.stream("GET", "/dashboard/events?seconds=120") as stream:
            pictures = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
            first = next(pictures)
            assert {each["release"] for each in first["releases"]} == {"good", "bad"}
            bad = next(each for each in first["releases"] if each["release"] == "bad")
            assert bad["figures"]["error_rate"] == {"value": 1.0, "n": 60}
            assert bad["figures"]["p95"] == {"value": None, "n": 0}
            fired = next(each for each in pictures if each["alerts"])  # pending for ten seconds, then it fires
            assert {(alert["name"], alert["release"]) for alert in fired["alerts"]} == {("ErrorRateHigh", "bad")}
        listed = http.get("/alerts").json()["alerts"]
        assert [(each["name"], each["state"], each["family"]) for each in listed] == [
            ("ErrorRateHigh", "firing", "errors")
        ]
        assert http.get("/dashboard/picture?seconds=nonsense").status_code == 200
    port = url.rpartition(":")[2]
    taken = lab("serve", "--log", str(log.path), "--port", port)
    assert taken.returncode == 2 and "try:" in taken.stderr
