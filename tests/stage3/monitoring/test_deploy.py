"""The files for Prometheus and Grafana. Each test names the bug that it catches."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from made_runs import NOW

from stage3_agents_llmops.monitoring.agreement import scraped
from stage3_agents_llmops.monitoring.alert_rules import ALERTS
from stage3_agents_llmops.monitoring.metrics import RunMetrics, exposition
from stage3_agents_llmops.monitoring.traffic import Share, customer_runs, probe_runs

FOLDER = Path(__file__).parents[3] / "deploy" / "monitoring"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "customer-service.json"


@pytest.fixture(scope="module")
def dashboard() -> dict:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def expressions(dashboard: dict) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_of_a_panel_is_exported(dashboard, log):
    """Catches: a panel that stays empty because a metric was renamed; a label that no metric has."""
    shares = [Share("stable", "a", 1)]
    log.add(*customer_runs(1, shares, NOW - 900, 400, 3), *probe_runs(1, shares, NOW - 900, 400, 10))
    metrics = RunMetrics(log, lambda: NOW, debut=0.0, queues=lambda: {"http://a": 1.0})
    samples = list(scraped(exposition(metrics).decode()))
    names = {name for name, _ in samples}
    labels = {key for _, found in samples for key, _ in found}
    for text in expressions(dashboard):
        used = set(re.findall(r"\bllmops_[a-z_]+", text))
        assert used or "ALERTS" in text
        assert used <= names, f"{text}: {used - names}"
        asked = {word for group in re.findall(r"\{([^}]*)\}", text) for word in re.findall(r"([a-z]+)[=!]", group)}
        assert asked <= labels | {"alertstate"}
    assert ("llmops_run_seconds_bucket", "6.0") in {(name, dict(found).get("le")) for name, found in samples}


def test_the_dashboard_is_one_that_grafana_loads(dashboard):
    """Catches: panels with one id or in one place, an unknown data source, a percentile of averages."""
    assert dashboard["uid"] and dashboard["schemaVersion"] >= 36
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) == 17
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    assert all("by (release, le)" in text for text in expressions(dashboard) if "histogram_quantile" in text)
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"release", "arm"}


def test_compose_mounts_what_is_there():
    """Catches: a path that was moved, a port that the world can reach."""
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert set(services) == {"prometheus", "grafana"}
    for service in services.values():
        assert ":" in service["image"] and not service["image"].endswith(":latest")
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["healthcheck"]["test"]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (FOLDER / source).exists(), source
    provider = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/course.yaml").read_text())["providers"][0]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in services["grafana"]["volumes"]
    url = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert url["url"] == "http://prometheus:9090"


def test_promtool_accepts_the_configuration(tmp_path):
    """Catches: a configuration that Prometheus refuses; a job that the alert ExporterDown does not know."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == ["llmops"]
    assert 'up{job="llmops"}' in ALERTS.read_text(encoding="utf-8")
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    shutil.copy(ALERTS, tmp_path / "alerts.yml")
    text = (FOLDER / "prometheus.yml").read_text().replace("/etc/prometheus/alerts.yml", "alerts.yml")
    (tmp_path / "prometheus.yml").write_text(text)
    result = subprocess.run([promtool, "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True,
                            text=True)  # fmt: skip
    assert result.returncode == 0, result.stderr
