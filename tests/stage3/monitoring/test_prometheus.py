"""The lab's evaluator against Prometheus itself. Each test names the bug that it catches."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import httpx
import pytest
import yaml
from made_runs import NOW

from stage3_agents_llmops.monitoring import RunLog
from stage3_agents_llmops.monitoring.agreement import scraped
from stage3_agents_llmops.monitoring.alert_rules import ALERTS, load_rules
from stage3_agents_llmops.monitoring.alerting import STEP, Evaluator
from stage3_agents_llmops.monitoring.metrics import RunMetrics, exposition
from stage3_agents_llmops.monitoring.quantiles import bucket_quantile
from stage3_agents_llmops.monitoring.run_record import ended
from stage3_agents_llmops.monitoring.traffic import SHIFTED, Behaviour, Share, customer_runs, probe_runs

SECONDS = 420
GOOD, BAD = Behaviour(), Behaviour(median=1.6, errors=0.2, hits=0.3, thumbs_up=0.3, leaks=0.02)
WATCHED = ("llmops_runs_total", "llmops_run_seconds_bucket", "llmops_run_seconds_count", "llmops_run_seconds_sum",
           "llmops_first_token_seconds_bucket", "llmops_first_token_seconds_count", "llmops_probes_total",
           "llmops_probe_answers_total", "llmops_feedback_total", "llmops_handed_to_human_total",
           "llmops_unsafe_total", "llmops_drift_psi", "llmops_drift_p_value", "llmops_queue_waiting")  # fmt: skip


def need(program: str) -> str:
    """The program, or the reason why the test is left out."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: apt-get install prometheus")
    return path


def story() -> list:
    """Rows of seven minutes: all is well, the canary is bad for two minutes, then it is gone and questions shift."""
    start, rows = NOW - SECONDS, []
    for begin, seconds, how, mix in ((start, 150, GOOD, None), (start + 150, 120, BAD, None),
                                     (start + 270, 150, None, SHIFTED)):  # fmt: skip
        shares = [Share("stable", "old", 60), Share("baseline", "old", 20)]
        shares += [Share("canary", "new", 20, how)] if how else []
        seed = f"7-{len(rows)}"
        rows += customer_runs(seed, shares, begin, seconds, 5, mix)
        rows += probe_runs(seed, shares, begin, seconds, 4)
    return sorted(rows, key=ended)


def test_evaluator_and_prometheus_agree(tmp_path):
    """Catches: a threshold, a window, a count or a state that the two compute differently; at any of 84 moments."""
    promtool = need("promtool")
    log = RunLog(tmp_path / "runs.sqlite")
    clock = [0.0]
    metrics = RunMetrics(log, lambda: clock[0], debut=0.0)
    evaluator = Evaluator(log, drift=metrics.drift.at)
    rows, place = story(), 0
    series: dict[str, dict[int, float]] = defaultdict(dict)
    fired: dict[int, set[tuple[str, str]]] = {}
    for step in range(int(SECONDS / STEP) + 1):
        clock[0] = NOW - SECONDS + STEP * step
        first = place
        while place < len(rows) and ended(rows[place]) <= clock[0]:
            place += 1
        log.add(*rows[first:place])
        evaluator.step(clock[0])
        fired[step] = {(alert.name, alert.subject) for alert in evaluator.firing}
        for (name, labels), value in scraped(exposition(metrics).decode()).items():
            if name in WATCHED:
                words = ",".join(f'{key}="{text}"' for key, text in sorted(labels))
                series[f"{name}{{{words}}}"][step] = value
    log.close()
    steps = range(int(SECONDS / STEP) + 1)
    assert {name for each in fired.values() for name, _ in each} >= {
        "ErrorRateHigh", "SlowerThanBaseline", "RetrievalAccuracyLow", "WrongAnswers", "SatisfactionLow",
        "UnsafeAnswer", "Drift",
    }  # fmt: skip
    up = {'up{job="llmops"}': dict.fromkeys(steps, 1.0)}
    inputs = [{"series": name, "values": " ".join(str(values.get(step, "_")) for step in steps)}
              for name, values in (series | up).items()]  # fmt: skip
    assert run_promtool(promtool, tmp_path, inputs, fired) == ""
    # the control: one alert that the evaluator did not have, and one less than it had
    some = next(step for step in steps if ("ErrorRateHigh", "new") in fired[step])
    assert run_promtool(promtool, tmp_path, inputs, fired | {30: {("ErrorRateHigh", "old")}}) != ""
    assert run_promtool(promtool, tmp_path, inputs, fired | {some: set()}) != ""


def run_promtool(promtool: str, folder: Path, inputs: list, fired: dict[int, set[tuple[str, str]]]) -> str:
    """What `promtool test rules` has against these alerts; nothing when it agrees."""
    about = {rule.name: rule for rule in load_rules()}
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in rules:
        rule["annotations"] = {}
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "lab", "interval": "5s", "rules": rules}]}))
    subjects = {"Drift": "what", "QueueLong": "service", "NoTraffic": None, "ExporterDown": None}
    tests = []
    for step, alerts in fired.items():
        for rule in rules:
            name = rule["alert"]
            if STEP * step < about[name].window + 10:
                continue  # until its window is full, Prometheus extrapolates the counts that `least` is compared with
            label = subjects.get(name, "release")
            expected = []
            for fired_name, subject in sorted(alerts):
                if fired_name == name:
                    labels = {"severity": about[name].severity, "family": about[name].family}
                    expected.append({"exp_labels": labels | ({label: subject} if label else {})})
            tests.append({"eval_time": f"{int(STEP * step)}s", "alertname": name, "exp_alerts": expected})
    file = {"rule_files": ["rules.yml"], "evaluation_interval": "5s",
            "tests": [{"interval": "5s", "input_series": inputs, "alert_rule_test": tests}]}  # fmt: skip
    (folder / "test.yml").write_text(yaml.safe_dump(file))
    result = subprocess.run([promtool, "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True)
    return "" if result.returncode == 0 else (result.stdout + result.stderr)[-6000:] or "failed"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def wait_for(read, seconds: float = 60.0):
    """What `read` gives once it gives something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := read():
                return found
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise AssertionError("it did not come in time")


def test_prometheus_scrapes_the_exporter(tmp_path):
    """Catches: an exposition that the real server refuses, a histogram it reads otherwise, rules it cannot load."""
    prometheus = need("prometheus")
    log = RunLog(tmp_path / "runs.sqlite")
    log.add(*customer_runs(1, [Share("stable", "old", 1)], time.time() - 300, 200, 5))
    serve, port = free_port(), free_port()
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": "llmops", "static_configs": [{"targets": [f"127.0.0.1:{serve}"]}]}],
    }))  # fmt: skip
    processes = [
        subprocess.Popen([sys.executable, "-m", "stage3_agents_llmops.monitoring", "serve", "--log", str(log.path),
                          "--port", str(serve)], stdout=subprocess.DEVNULL),
        subprocess.Popen([prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", "--log.level=error",
                          f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
    ]  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:

            def query(text: str) -> list:
                reply = http.get("/api/v1/query", params={"query": text}).raise_for_status()  # 503 while it starts
                return reply.json()["data"]["result"]

            total = wait_for(lambda: query('sum(llmops_runs_total{release="old"}) > 0'))
            runs = [run for run in log.window() if ended(run) <= time.time()]
            assert float(total[0]["value"][1]) == len(runs)
            samples = scraped(httpx.get(f"http://127.0.0.1:{serve}/metrics", trust_env=False).text)
            edges, counts = [], []
            for (name, labels), value in samples.items():
                if name == "llmops_run_seconds_bucket":
                    edge = dict(labels)["le"]
                    counts.append(int(value))
                    edges += [] if edge == "+Inf" else [float(edge)]
            for q in (0.5, 0.95, 0.99):
                asked = query(f"histogram_quantile({q}, sum by (le) (llmops_run_seconds_bucket))")
                assert float(asked[0]["value"][1]) == pytest.approx(bucket_quantile(edges, counts, q))
            loaded = http.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
            assert {rule["name"] for rule in loaded} == {rule.name for rule in load_rules()}
            assert all(rule["health"] in ("ok", "unknown") for rule in loaded), json.dumps(loaded)
            log.add(*(run for run in customer_runs(9, [Share("canary", "new", 1, BAD)], time.time() - 8, 8, 20)))
            wait_for(lambda: query('ALERTS{alertname="ErrorRateHigh", release="new", alertstate="firing"}'), 90)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        log.close()
