"""Each test names the bug that it catches."""

import json
import shutil
from dataclasses import replace

import pytest
from made_runs import NOW, run_of, runs_over

from labkit.errors import LabError
from stage3_agents_llmops.monitoring import Alert, RunLog, firing
from stage3_agents_llmops.monitoring.alert_history import AlertHistory
from stage3_agents_llmops.monitoring.alert_rules import ALERTS, RULES, Rule, load_rules, prometheus_rules
from stage3_agents_llmops.monitoring.alerting import Evaluator, Webhook, next_state, notification
from stage3_agents_llmops.monitoring.demo_command import receiver
from stage3_agents_llmops.monitoring.monitor import Monitor
from stage3_agents_llmops.monitoring.signals import SIGNALS, Reading
from stage3_agents_llmops.monitoring.traffic import SHIFTED, Share, customer_runs

RULE = Rule("Errors", "errors", "page", "error_rate", window=60, hold=10, least=20, en="", zh="", above=0.05)


def names(alerts: list[Alert]) -> set[tuple[str, str]]:
    return {(alert.name, alert.subject) for alert in alerts}


def failing(share: float):
    """A status by number: this share of them fails."""
    return lambda number: "failed" if int(number * share) != int((number + 1) * share) else "answered"


# -- one rule


def test_past_the_threshold_with_enough_samples():
    """Catches: an alarm exactly on the threshold; one from too few samples."""
    assert RULE.broken(Reading(0.051, 20))
    assert not RULE.broken(Reading(0.05, 500))
    assert not RULE.broken(Reading(1.0, 19))
    assert replace(RULE, above=None, below=0.7).broken(Reading(0.69, 20))
    assert not replace(RULE, above=None, below=0.7).broken(Reading(0.7, 20))


def test_pending_then_firing():
    """Catches: an alert that fires at once, one that begins anew at every evaluation, one that forgets since when."""
    first = next_state(RULE, "a", None, 100.0)
    second = next_state(RULE, "a", first, 105.0)
    third = next_state(RULE, "a", second, 110.0)
    fourth = next_state(RULE, "a", third, 115.0)
    assert [each.state for each in (first, second, third, fourth)] == ["pending", "pending", "firing", "firing"]
    assert {each.since for each in (first, second, third, fourth)} == {100.0}
    assert (third.fired, fourth.fired) == (110.0, 110.0)
    assert next_state(replace(RULE, hold=0), "a", None, 100.0).state == "firing"


# -- the evaluator


def test_a_bad_release_fires_and_clears(log):
    """Catches: an alert about the wrong release, one that never clears, one without a notice of its end."""
    log.add(*runs_over(60, 120, release="good"), *runs_over(60, 60, release="bad", status=failing(0.2)))
    evaluator = Evaluator(log)
    assert evaluator.step(NOW) == []
    assert evaluator.step(NOW + 5) == []
    began = evaluator.step(NOW + 10)
    assert names(began) == names(evaluator.firing) == {("ErrorRateHigh", "bad")}
    assert began[0].value == pytest.approx(0.2, abs=0.03) and began[0].release == "bad"
    assert evaluator.step(NOW + 15) == []
    log.add(*runs_over(20, 30, end=NOW + 90, release="bad"))
    gone = evaluator.step(NOW + 90)
    assert [(alert.name, alert.state) for alert in gone] == [("ErrorRateHigh", "resolved")]
    assert evaluator.firing == []


def test_a_dip_begins_anew(log):
    """Catches: a condition that need not hold without a break."""
    bad = runs_over(10, 40, release="bad", status="failed")
    log.add(*bad)
    evaluator = Evaluator(log, [replace(RULE, window=10.0)])
    evaluator.step(NOW)
    log.add(*runs_over(1, 2000, end=NOW + 5, release="bad"))
    assert evaluator.step(NOW + 5) == []
    log.add(*runs_over(4, 30, end=NOW + 20, release="bad", status="failed"))
    assert evaluator.step(NOW + 20) == []
    assert evaluator.active["Errors", "bad"].since == NOW + 20


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"status": failing(0.2)}, "ErrorRateHigh"),
        ({"duration_s": lambda n: 7.0 if n % 5 == 0 else 0.5}, "LatencyObjectiveMissed"),
        ({"first_token_s": lambda n: 5.5 if n % 5 == 0 else 0.2}, "FirstTokenObjectiveMissed"),
        ({"probe": True, "retrieval_hit": lambda n: n % 2 == 0}, "RetrievalAccuracyLow"),
        ({"probe": True, "wrong": lambda n: n % 2 == 0}, "WrongAnswers"),
        ({"feedback": lambda n: 1 if n % 2 else -1}, "SatisfactionLow"),
        ({"handed_to_human": lambda n: n % 2 == 0}, "HandedToHumanHigh"),
        ({"unsafe": lambda n: int(n == 10)}, "UnsafeAnswer"),
        ({"unsafe": lambda n: int(n == 10), "probe": True}, "UnsafeAnswer"),
    ],
)
def test_each_fault_has_its_alert(log, fields, name):
    """Catches: a rule that looks at the wrong figure; an alert about the release that is well."""
    log.add(*runs_over(110, 220, release="good"), *runs_over(110, 220, release="bad", arm="canary", **fields))
    assert names(firing(log, now=NOW)) == {(name, "bad")}
    assert names(firing(log, now=NOW, release="good")) == set()


def test_a_canary_three_times_as_slow_as_its_baseline(log):
    """Catches: a slow release whose answers are still within the objective; a busy machine taken for a bad release."""
    log.add(*runs_over(110, 200, arm="baseline"), *runs_over(110, 200, release="new", arm="canary"))
    assert firing(log, now=NOW) == []
    log.add(*runs_over(110, 400, release="new", arm="canary", duration_s=1.2))
    assert names(firing(log, now=NOW)) == {("SlowerThanBaseline", "new")}


def test_no_traffic_is_an_alert_only_where_there_was_some(log):
    """Catches: an alert for a shop that has not opened; silence when everything has stopped."""
    assert firing(log, now=NOW) == []
    log.add(*runs_over(60, 50))
    assert firing(log, now=NOW) == []
    assert names(firing(log, now=NOW + 300)) == {("NoTraffic", "")}


def test_drift_is_an_alert(log):
    """Catches: drift that is drawn and never said."""
    shares = [Share("stable", "good", 1)]
    log.add(*customer_runs(1, shares, NOW - 500, 250, 4))
    assert firing(log, now=NOW - 250) == []
    log.add(*customer_runs(2, shares, NOW - 250, 250, 4, SHIFTED))
    found = [alert for alert in firing(log, now=NOW) if alert.name == "Drift"]
    assert ("Drift", "intent") in names(found)
    assert all(alert.release is None for alert in found)


def test_a_queue_and_a_lost_table_are_alerts(log):
    """Catches: a monitor that is quiet because it is blind."""
    log.add(*runs_over(60, 50))
    evaluator = Evaluator(log, queues=lambda: {"http://a": 30.0, "http://b": 3.0})
    for step in range(8):
        evaluator.step(NOW + 5 * step)
    assert names(evaluator.firing) == {("QueueLong", "http://a")}
    log._db.execute("DROP TABLE runs")
    for step in range(8, 16):
        evaluator.step(NOW + 5 * step)
    assert ("ExporterDown", "") in names(evaluator.firing)


# -- telling


def test_the_webhook_is_told_of_both_ends(log, tmp_path):
    """Catches: a notice for every evaluation, none for the end; a history that loses what was."""
    log.add(*runs_over(60, 60, release="bad", status=failing(0.3)))
    with receiver() as (url, came):
        monitor = Monitor(log, webhook=url, history=tmp_path / "alerts.jsonl")
        for step in range(16):
            monitor.step(NOW + 5 * step)
    told = [json.loads(body) for body in came]
    first, last = (
        told[0]["alerts"][0],
        [each for body in told for each in body["alerts"] if each["status"] == "resolved"],
    )
    assert (first["status"], first["labels"]["alertname"], first["labels"]["release"]) == (
        "firing",
        "ErrorRateHigh",
        "bad",
    )
    assert [each["labels"]["alertname"] for each in last] == ["ErrorRateHigh"]
    entries = {entry["name"]: entry for entry in monitor.alerts()}
    assert entries["ErrorRateHigh"]["state"] == "resolved"
    assert entries["ErrorRateHigh"]["since"] == NOW + 10 < entries["ErrorRateHigh"]["until"]
    assert entries["ErrorRateHigh"]["threshold"] == 0.05 and entries["ErrorRateHigh"]["family"] == "errors"


def test_a_receiver_that_is_down_stops_nothing(log):
    """Catches: a loop that ends with the first notice that nobody takes."""
    log.add(*runs_over(60, 60, release="bad", status=failing(0.3)))
    monitor = Monitor(log, webhook="http://127.0.0.1:9/none")
    for step in range(4):
        monitor.step(NOW + 5 * step)
    assert monitor.webhook.failed == 1
    assert names(monitor.evaluator.firing) == {("ErrorRateHigh", "bad")}
    assert Webhook("no url at all").send(monitor.evaluator.firing) is False


def test_history_survives_a_restart(log, tmp_path):
    """Catches: alerts that are gone with the process; one that stays "firing" for ever after a restart."""
    log.add(*runs_over(60, 60, release="bad", status=failing(0.3)))
    monitor = Monitor(log, history=tmp_path / "alerts.jsonl")
    for step in range(4):
        monitor.step(NOW + 5 * step)
    with (tmp_path / "alerts.jsonl").open("a") as file:
        file.write('{"name": "cut of')
    again = AlertHistory(tmp_path / "alerts.jsonl").entries()
    assert [(entry["name"], entry["state"]) for entry in again] == [("ErrorRateHigh", "firing")]
    later = Monitor(log, history=tmp_path / "alerts.jsonl", rules=[RULE])
    later.step(NOW + 500)
    assert [entry["state"] for entry in later.alerts() if entry["name"] == "ErrorRateHigh"] == ["resolved"]


def test_the_pipelines_verdicts_are_listed_too(log, tmp_path):
    """Catches: a canary that was taken back with no alert to be seen; a verdict that is read only once."""
    monitor, path = Monitor(log), tmp_path / "canary_alerts.jsonl"
    assert monitor.alerts() == []
    verdict = {"name": "CanaryHarmed", "family": "errors", "release": "ab", "subject": "ab", "state": "firing",
               "since": NOW, "until": None}  # fmt: skip
    path.write_text(json.dumps(verdict) + "\n")
    assert [(each["name"], each["state"]) for each in monitor.alerts()] == [("CanaryHarmed", "firing")]
    with path.open("a") as file:
        file.write(json.dumps(verdict | {"state": "resolved", "until": NOW + 9}) + "\n")
    assert [(each["name"], each["state"]) for each in monitor.alerts()] == [("CanaryHarmed", "resolved")]


def test_a_full_disk_costs_the_history_only(log, tmp_path):
    """Catches: an alert that is not told because it cannot be noted."""
    (tmp_path / "file").write_text("")
    history = AlertHistory(tmp_path / "file" / "alerts.jsonl")
    history.add([replace(next_state(RULE, "a", None, 1.0), state="firing")], {"Errors": 0.05}, 1.0)
    assert history.unwritten == 1 and len(history.entries()) == 1


def test_a_notification_is_alertmanagers():
    """Catches: a body that receivers written for Alertmanager cannot read."""
    alert = replace(next_state(RULE, "ab", None, NOW), state="firing", value=0.1)
    body = notification([alert, replace(alert, state="resolved")])
    assert body["version"] == "4" and body["status"] == "firing"
    assert body["alerts"][0]["startsAt"].endswith("Z")


# -- the rules' files


def test_alerts_yml_is_made_from_the_rules():
    """Catches: rules for Prometheus that were not made anew after a change."""
    assert ALERTS.read_text(encoding="utf-8") == prometheus_rules(load_rules())


def test_scale_stretches_windows():
    """Catches: a scale that stretches thresholds or leaves `for` as it is."""
    plain, scaled = load_rules(), load_rules(scale=5)
    assert [(5 * one.window, 5 * one.hold, one.above, one.least) for one in plain] == [
        (each.window, each.hold, each.above, each.least) for each in scaled
    ]
    assert "[5m]" in scaled[0].query() and "[1m]" in plain[0].query()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('signal = "error_rate"', 'signal = "eror_rate"', "error_rate"),
        ("above = 0.05", "abve = 0.05", "above"),
        ("above = 0.05", "above = 0.05\nbelow = 0.1", "above or below"),
        ("window = 60", 'window = "1m"', "numbers"),
        ('severity = "page"', 'severity = "scream"', "severity"),
        ('zh = "超过 5% 的请求失败、被拒绝或中断"', "", "zh"),
        ("[[rule]]", "[[rule", "TOML"),
        ('name = "WrongAnswers"', 'name = "ErrorRateHigh"', "two rules"),
    ],
)
def test_a_typo_in_a_rule_is_said(tmp_path, old, new, said):
    """Catches: a rule that watches nothing because of a typo, and says nothing."""
    text = RULES.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "rules.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LabError) as error:
        load_rules(tmp_path / "rules.toml")
    assert said in f"{error.value.message} {error.value.try_next}"


def test_every_signal_is_watched():
    """Catches: a signal that no rule reads."""
    assert {rule.signal for rule in load_rules()} == set(SIGNALS)


def test_missing_metrics_raise_no_alarm(log):
    """Catches: a release without probes, thumbs or first tokens taken for one that is bad."""
    log.add(*runs_over(110, 200, first_token_s=None, first_event_s=None, intent=None))
    assert firing(log, now=NOW) == []


def test_clock_skew_raises_no_alarm(log):
    """Catches: rows of an hour ahead that count for now."""
    log.add(*runs_over(110, 200), *runs_over(60, 60, end=NOW + 3600, status="failed", release="bad"))
    assert firing(log, now=NOW) == []


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own checker, or the reason why it is left out."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return path


def test_promtool_accepts_the_rules(promtool, tmp_path):
    """Catches: PromQL that Prometheus cannot read; the check itself, were it blind."""
    import subprocess

    good = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert f"{len(load_rules())} rules found" in good.stdout
    (tmp_path / "bad.yml").write_text(ALERTS.read_text(encoding="utf-8").replace("sum by (release)", "sum by release"))
    assert subprocess.run([promtool, "check", "rules", str(tmp_path / "bad.yml")], capture_output=True).returncode != 0


def test_a_table_of_another_day_is_read(tmp_path):
    """Catches: `firing` on an empty table that raises."""
    with RunLog(tmp_path / "empty.sqlite") as log:
        log.add(run_of(started=1.0))
        assert names(firing(log, now=NOW)) == {("NoTraffic", "")}
