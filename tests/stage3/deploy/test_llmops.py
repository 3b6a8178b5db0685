"""The files of deploy/llmops, as far as they can be checked without Docker and Kubernetes. Each test names its bug."""

import copy
import itertools
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stage3_agents_llmops.agent.serve_command import ServeConfig
from stage3_agents_llmops.experiments.ramping import STEPS
from stage3_agents_llmops.monitoring import RunLog, RunRecord
from stage3_agents_llmops.monitoring.metrics import RunMetrics
from stage3_agents_llmops.monitoring.run_record import STATUSES
from stage3_agents_llmops.pipeline.canary_analysis import METRICS
from stage3_agents_llmops.pipeline.gateway_command import GatewayConfig
from stage3_agents_llmops.pipeline.run_command import RunConfig
from stage3_agents_llmops.pipeline.watch_command import WatchConfig
from stage3_agents_llmops.registry.release_commands import ListConfig, LoadConfig

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "llmops"
SCHEMAS = yaml.safe_load((Path(__file__).with_name("kubernetes_schemas.yaml")).read_text(encoding="utf-8"))
DOCUMENTS = [
    document
    for path in sorted((FOLDER / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
OTHER_KINDS = {"PersistentVolumeClaim", "ServiceAccount", "Role", "RoleBinding", "ServiceMonitor"}
ROLLOUT = next(document for document in DOCUMENTS if document["kind"] == "Rollout")
CANARY = ROLLOUT["spec"]["strategy"]["canary"]
TEMPLATES = {each["metadata"]["name"]: each["spec"] for each in DOCUMENTS if each["kind"] == "AnalysisTemplate"}
COMPARED = {metric["name"]: metric for metric in TEMPLATES["canary-against-baseline"]["metrics"]}
FREE = {"Deployment": 6, "Rollout": 1}  # objects that no schema looks into: projected volumes, items of a secret
IN_PROMQL = {  # what the course's canary compares -> how it is called here
    "errors": "errors", "latency": "latency", "wrong answers": "wrong-answers", "right article": "right-article",
    "unhappy": "unhappy", "handed to a person": "handed-to-a-person", "tokens": "tokens",
}  # fmt: skip


def schema(kind: str) -> dict[str, Any]:
    return {"definitions": SCHEMAS["definitions"], **SCHEMAS["kinds"][kind]}


def named(kind: str) -> dict[str, dict[str, Any]]:
    """Documents of a kind by their names."""
    return {each["metadata"]["name"]: each for each in DOCUMENTS if each["kind"] == kind}


def pods() -> Iterator[dict[str, Any]]:
    """Every pod's specification."""
    for document in (*named("Rollout").values(), *named("Deployment").values()):
        yield document["spec"]["template"]["spec"]
    yield TEMPLATES["offline-gates"]["metrics"][0]["provider"]["job"]["spec"]["template"]["spec"]


def containers() -> list[dict[str, Any]]:
    return [each for pod in pods() for each in (*pod.get("initContainers", ()), *pod["containers"])]


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from inside(each)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: f"{each['kind']} {each['metadata']['name']}")
def test_manifests_have_the_fields_of_their_kind(document):
    """Catches: a field that is misspelt or in the wrong place, which a cluster drops or refuses."""
    assert document["metadata"]["namespace"] == "llmops"
    if document["kind"] not in OTHER_KINDS:
        jsonschema.Draft202012Validator(schema(document["kind"])).validate(document)


@pytest.mark.parametrize("kind", sorted(SCHEMAS["kinds"]))
def test_the_schemas_find_slips_of_the_pen(kind):
    """Catches: a schema that lets everything through: each object gets a field too many, one at a time."""
    document = next(each for each in DOCUMENTS if each["kind"] == kind)
    validator = jsonschema.Draft202012Validator(schema(kind))
    refused = []
    for place in range(len(list(inside(document)))):
        spoilt = copy.deepcopy(document)
        list(inside(spoilt))[place]["setWieght"] = {"not": "a text"}
        refused.append(not validator.is_valid(spoilt))
    assert sum(refused) >= 3 and refused.count(False) <= FREE.get(kind, 0), (kind, refused)


def test_the_rollout_takes_the_courses_steps():
    """Catches: another ramp than the course's, a step without a look, a look before anybody is there."""
    steps = CANARY["steps"]
    weights = [step["setWeight"] for step in steps if "setWeight" in step]
    assert weights == list(STEPS) == [1, 5, 25, 50, 100]
    for step, following in itertools.pairwise(steps):
        if "setWeight" in step:
            assert following["analysis"]["templates"] == [{"templateName": "canary-against-baseline"}]
    first = next(place for place, step in enumerate(steps) if step.get("setWeight"))
    assert CANARY["analysis"]["startingStep"] == first
    assert [step["analysis"]["templates"][0]["templateName"] for step in steps[:first] if "analysis" in step] == [
        "offline-gates"
    ]


def test_margins_are_the_courses():
    """Catches: a canary that is judged otherwise in the cluster than on a laptop; a metric that is left out."""
    assert {metric.name for metric in METRICS} == set(IN_PROMQL) and set(IN_PROMQL.values()) == set(COMPARED)
    for metric in METRICS:
        here = COMPARED[IN_PROMQL[metric.name]]
        for condition, sign in (("successCondition", "<="), ("failureCondition", ">")):
            found = re.search(rf"result\[0\] {sign} ([\d.]+)$", here[condition])
            assert found and float(found[1]) == metric.margin, (metric.name, condition)
        missing = "len(result) == 0 ||" if metric.minimum == 0 else "len(result) > 0 &&"
        assert here["successCondition"].startswith(missing), metric.name
        assert (metric.kind == "ratio") == (") / (" in " ".join(here["provider"]["prometheus"]["query"].split()))


def test_a_metric_that_nobody_can_measure_does_not_promote():
    """Catches: Argo's trap: a metric that reaches `count` is successful, even if every measurement was inconclusive."""
    for metric in COMPARED.values():
        assert metric["inconclusiveLimit"] < metric["count"] and metric["failureLimit"] < metric["count"]
        assert "len(result) > 0" in metric["failureCondition"]
    safe = TEMPLATES["canary-is-safe"]["metrics"][0]
    assert safe["failureLimit"] == 0 and "count" not in safe  # to the end of the rollout


def queries() -> dict[str, str]:
    """PromQL by the metric's name."""
    metrics = [metric for spec in TEMPLATES.values() for metric in spec["metrics"]]
    found = {metric["name"]: metric["provider"].get("prometheus") for metric in metrics}
    return {name: provider["query"] for name, provider in found.items() if provider}


def test_queries_ask_for_what_the_gateway_exports(tmp_path):
    """Catches: a metric, a label or a label's value that does not exist, which is an empty answer for ever."""
    log = RunLog(tmp_path / "runs.sqlite")
    common = {"release": "ab12", "instance": "a", "started": 1.0, "duration_s": 0.2, "first_event_s": 0.1}
    for number, arm in enumerate(("canary", "baseline")):
        log.add(RunRecord(run_id=f"c{number}", arm=arm, status="answered", **common))
        log.add(RunRecord(run_id=f"p{number}", arm=arm, status="answered", probe=True, retrieval_hit=True, **common))
    exported: dict[str, dict[str, set[str]]] = {}
    for family in RunMetrics(log, debut=0.0).collect():
        for sample in family.samples:
            labels = exported.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    exported["llmops_runs_total"]["status"] |= set(STATUSES)
    for name, query in queries().items():
        for metric, matchers in re.findall(r"(llmops_\w+)\{([^}]*)\}", query):
            assert metric in exported, (name, metric)
            for label, value in re.findall(r'(\w+)(?:=~|!=|=)"([^"]*)"', matchers):
                assert label in exported[metric], (name, metric, label)
                assert value == "{{args.release}}" or set(value.split("|")) <= exported[metric][label], (name, label)


def test_queries_are_whole_and_compare_like_with_like():
    """Catches: an open bracket; a canary that is compared with itself, or over another time than its baseline."""
    for name, query in queries().items():
        for opening, closing in ("()", "{}", "[]"):
            assert query.count(opening) == query.count(closing), name
        if name in COMPARED:
            arms = re.findall(r'arm="(\w+)"', query)
            assert arms.count("canary") == arms.count("baseline") > 0 and set(arms) == {"canary", "baseline"}, name
            assert set(re.findall(r"\[(\w+)\]", query)) == {"5m"}, name


def test_arguments_arrive():
    """Catches: a template whose argument nobody gives, and a release that is annotated in one place only."""
    used = [CANARY["analysis"], *(step["analysis"] for step in CANARY["steps"] if "analysis" in step)]
    for analysis in used:
        for reference in analysis["templates"]:
            spec = TEMPLATES[reference["templateName"]]
            needed = {arg["name"] for arg in spec["args"] if "value" not in arg}
            assert needed == {arg["name"] for arg in analysis["args"]}, reference
            text = yaml.safe_dump(spec["metrics"])
            assert set(re.findall(r"\{\{args\.(\w+)\}\}", text)) <= {arg["name"] for arg in spec["args"]}
    assert ROLLOUT["metadata"]["annotations"] == ROLLOUT["spec"]["template"]["metadata"]["annotations"]
    paths = set(re.findall(r"metadata\.annotations\['([^']+)'\]", yaml.safe_dump(DOCUMENTS)))
    assert paths == set(ROLLOUT["metadata"]["annotations"])


def test_parts_fit_together():
    """Catches: a service that selects nothing, a route to nowhere, a volume, claim or account of another name."""
    labels = ROLLOUT["spec"]["template"]["metadata"]["labels"]
    services = named("Service")
    for name in (CANARY["stableService"], CANARY["canaryService"]):
        spec = services[name]["spec"]
        assert spec["selector"] == labels and spec["clusterIP"] == "None"  # Argo adds the hash of the pods
    gateway = services["gateway"]
    assert gateway["spec"]["selector"] == named("Deployment")["gateway"]["spec"]["template"]["metadata"]["labels"]
    assert named("ServiceMonitor")["gateway"]["spec"]["selector"]["matchLabels"] == gateway["metadata"]["labels"]
    plugin = CANARY["trafficRouting"]["plugins"]["argoproj-labs/gatewayAPI"]
    route = named("HTTPRoute")[plugin["httpRoute"]]
    backends = [backend["name"] for rule in route["spec"]["rules"] for backend in rule["backendRefs"]]
    assert backends == [CANARY["stableService"], CANARY["canaryService"]]
    for pod in pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes), container["name"]
            probes = [probe for name, probe in container.items() if name.endswith("Probe")]
            asked = {(probe.get("httpGet") or probe["tcpSocket"])["port"] for probe in probes}
            assert asked <= {port["name"] for port in container.get("ports", ())}
        claims = [volume["persistentVolumeClaim"] for volume in volumes.values() if "persistentVolumeClaim" in volume]
        assert {claim["claimName"] for claim in claims} <= set(named("PersistentVolumeClaim"))
        assert pod.get("serviceAccountName", "gateway") in named("ServiceAccount")


def words(container: dict[str, Any]) -> list[str]:
    return [*container["command"], *container.get("args", ())]


def config_options(config: type) -> set[str]:
    """The options of a command, from its dataclass; flags have a --no- form as well."""
    names = [field.name.replace("_", "-") for field in fields(config)]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in names}


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("stage3_agents_llmops.agent serve", ServeConfig),
        ("stage3_agents_llmops.pipeline gateway", GatewayConfig),
        ("stage3_agents_llmops.registry load", LoadConfig),
    ],
)
def test_options_are_the_commands(command, config):
    """Catches: an option that was renamed."""
    found = [words(each) for each in containers() if command in " ".join(words(each))]
    assert found
    for each in found:
        assert {word for word in each if word.startswith("--")} <= config_options(config), each


@pytest.mark.parametrize("script", ["follow_weights.py", "probe_arms.py", "offline_gates.py"])
def test_helpers_are_in_the_image_and_know_their_options(script):
    """Catches: a helper that the image lacks, or that is started with words that it does not know."""
    text = (FOLDER / script).read_text(encoding="utf-8")
    known = set(re.findall(r'add_argument\("(--[\w-]+)"', text))
    for names in re.findall(r"for name in \(([^)]*)\):\n\s+parser", text):
        known |= {f"--{name}" for name in re.findall(r'"(\w+)"', names)}
    started = [words(each) for each in containers() if f"deploy/llmops/{script}" in words(each)]
    assert started and all({word for word in each if word.startswith("--")} <= known for each in started)
    assert f"deploy/llmops/{script}" in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


def test_nothing_is_open_and_everything_is_pinned():
    """Catches: `latest`, a load balancer by accident, a secret in a file, a token of the cluster for everybody."""
    images = {container["image"] for container in containers()}
    assert len(images) == 1 and re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", images.pop())
    assert {each["spec"].get("type", "ClusterIP") for each in named("Service").values()} == {"ClusterIP"}
    for container in containers():
        for entry in container.get("env", ()):
            if re.search("KEY|SECRET|REGISTRY", entry["name"]):
                assert "secretKeyRef" in entry["valueFrom"], entry["name"]
    role = named("Role")["gateway"]
    assert all(set(rule["verbs"]) <= {"get", "list"} for rule in role["rules"])
    assert "FROM python:3.11." in (FOLDER / "Dockerfile").read_text(encoding="utf-8")


COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_fits_together():
    """Catches: a file that is not there, a dependency without a health check, a port on every interface."""
    services: dict[str, Any] = {}
    for place in COMPOSE["include"]:
        services |= yaml.safe_load((FOLDER / place).read_text(encoding="utf-8"))["services"]
    assert not set(services) & set(COMPOSE["services"])
    services |= COMPOSE["services"]
    for service in COMPOSE["services"].values():
        for other, how in service["depends_on"].items():
            assert how["condition"] == "service_healthy" and "healthcheck" in services[other], other
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert all(volume.split(":")[0] in COMPOSE["volumes"] for volume in service["volumes"])
    environment = COMPOSE["services"]["platform"]["environment"]
    assert re.search(r"@([\w-]+):\d+/", environment["REGISTRY"])[1] in services
    assert re.match(r"http://([\w-]+):", environment["MLFLOW_S3_ENDPOINT_URL"])[1] in services
    assert (FOLDER / COMPOSE["services"]["platform"]["build"]["context"]).resolve() == ROOT


def test_compose_starts_commands_that_exist():
    """Catches: an option that was renamed, in a command that is started by a shell."""
    text = COMPOSE["services"]["platform"]["command"][-1]
    commands = [part.replace("exec ", "").split() for part in text.split("&&")]
    configs = {"list": ListConfig, "run": RunConfig, "watch": WatchConfig}
    assert [command[3] for command in commands] == list(configs)
    for command in commands:
        assert {word for word in command if word.startswith("--")} <= config_options(configs[command[3]]), command


def test_nobody_counts_twice():
    """Catches: a port under which Prometheus scrapes the same table a second time."""
    scraped = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = [config for job in scraped["scrape_configs"] for config in job["static_configs"]]
    targets = [target for config in jobs for target in config["targets"]]
    assert "platform:8040" in targets
    published = {port.split(":")[1] for port in COMPOSE["services"]["platform"]["ports"]}
    assert not published & {target.split(":")[1] for target in targets if target.startswith("host.docker")}


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_files_that_exist(name):
    """Catches: a link to a file that was renamed."""
    for target in re.findall(r"\]\(([^)#]+)\)", (FOLDER / name).read_text(encoding="utf-8")):
        assert target.startswith("http") or (FOLDER / target).exists(), target
