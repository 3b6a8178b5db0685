"""The files of deploy/mlflow, as far as they can be checked without Docker. Each test names the bug that it catches."""

import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from labkit.cli import parse
from stage3_agents_llmops.registry.__main__ import COMMANDS
from stage3_agents_llmops.registry.mlflow_places import DRIVERS, artifact_place

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "mlflow"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
MLFLOW = SERVICES["mlflow"]


def default(text: str) -> str:
    """A value with its `${NAME:-default}` filled in."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_services_fit_together():
    """Catches: a dependency or volume that is not there, one without a health check that others wait for."""
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy" and "healthcheck" in SERVICES[other], (name, other)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
        assert service["healthcheck"]["interval"] == "10s" and service["healthcheck"]["test"][0] == "CMD"
    assert set(MLFLOW["depends_on"]) == set(SERVICES) - {"mlflow"}
    assert set(COMPOSE["volumes"]) == {volume.split(":")[0] for each in SERVICES.values()
                                       for volume in each.get("volumes", [])}  # fmt: skip


def test_the_server_finds_database_and_store():
    """Catches: a password, a user or a bucket that one side has otherwise than the other."""
    url = default(MLFLOW["environment"]["MLFLOW_BACKEND_STORE_URI"])
    found = re.fullmatch(r"(\S+)://(\w+):(\w+)@(\w+):5432/(\w+)", url)
    scheme, user, password, host, database = found.groups()
    there = {name: default(value) for name, value in SERVICES[host]["environment"].items()}
    assert (user, password, database) == tuple(there[f"POSTGRES_{key}"] for key in ("USER", "PASSWORD", "DB"))
    assert scheme in DRIVERS
    store = re.fullmatch(r"http://(\w+):9000", MLFLOW["environment"]["MLFLOW_S3_ENDPOINT_URL"])[1]
    keys = [SERVICES[store]["environment"][name] for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")]
    assert keys == [MLFLOW["environment"][name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    bucket = next(word for word in MLFLOW["command"] if "s3://" in word).split("s3://")[1].split("/")[0]
    assert f"mkdir -p /data/{bucket} " in SERVICES[store]["entrypoint"][-1]
    assert SERVICES[store]["volumes"] == ["minio:/data"]


def test_the_words_are_mlflows():
    """Catches: an option or a setting that this MLflow does not have."""
    import mlflow.environment_variables as known
    from mlflow.cli import cli

    words = MLFLOW["command"]
    assert words[:2] == ["mlflow", "server"]
    context = cli.commands["server"].make_context("server", list(words[2:]), resilient_parsing=False)
    assert context.params["artifacts_destination"] == "s3://mlflow/runs" and context.params["serve_artifacts"]
    assert f":{context.params['port']}" in MLFLOW["ports"][0]
    for name in MLFLOW["environment"]:
        if name.startswith("MLFLOW_") and name != "MLFLOW_BACKEND_STORE_URI":  # the option's own variable
            assert hasattr(known, name), name
    option = next(each for each in cli.commands["server"].params if "--backend-store-uri" in each.opts)
    assert option.envvar == "MLFLOW_BACKEND_STORE_URI"


def test_the_server_lets_its_own_names_in():
    """Catches: 403 for the browser, the other containers or the health check."""
    from mlflow.server.security_utils import is_allowed_host_header

    hosts = MLFLOW["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for host in ("localhost:5000", "127.0.0.1:5000", "mlflow:5000"):
        assert is_allowed_host_header(hosts, host)
    assert not is_allowed_host_header(hosts, "evil.example")


def test_nothing_is_open_to_the_network():
    """Catches: an unprotected database on every interface of a laptop."""
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_versions_are_pinned_and_the_same():
    """Catches: `latest`; a server of another version than the library that migrates the tables."""
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert all(re.search(r":(v?\d+\.\d+|RELEASE\.\d{4})", image) for image in images.values())
    assert images["mlflow"].split(":")[1] == f"v{version('mlflow')}-full"
    milvus = yaml.safe_load((FOLDER.parent / "milvus" / "compose.yaml").read_text(encoding="utf-8"))
    assert images["minio"] == milvus["services"]["minio"]["image"], "one version of MinIO in the course"


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_is_right(name, monkeypatch):
    """Catches: a link to a file that was renamed; a command that the lab does not have; another database's name."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (FOLDER / target).exists(), target
    for target in re.findall(r"`((?:tests|registry)/\S+\.py)`", text):
        root = FOLDER.parents[1]
        assert (root / target).exists() or (root / "stage3_agents_llmops" / target).exists(), target
    commands = {command.name: command for command in COMMANDS}
    lines = re.findall(r"^python -m stage3_agents_llmops\.registry (\w+) (.+)$", text, re.MULTILINE)
    assert [command for command, _ in lines] == ["publish", "promote"]
    for command, words in lines:
        config, _ = parse("registry", commands[command], shlex.split(words))
        assert config.artifacts == ("s3://mlflow/registry" if command == "publish" else None)  # asked for once
    assert f"@127.0.0.1:5432/{SERVICES['postgres']['environment']['POSTGRES_DB']}" in text


def test_without_boto3_it_is_said(monkeypatch):
    """Catches: a ModuleNotFoundError from deep inside MLflow."""
    from labkit.errors import LabError
    from stage3_agents_llmops.registry import mlflow_places

    monkeypatch.setattr(mlflow_places, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="an S3 store needs boto3"):
        artifact_place("postgresql://mlflow@127.0.0.1/mlflow", "s3://mlflow/registry")
