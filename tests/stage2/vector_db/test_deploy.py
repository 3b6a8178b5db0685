"""The files of deploy/milvus, as far as they can be checked without Docker and Kubernetes."""

import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "milvus"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
VALUES = {
    name: yaml.safe_load((FOLDER / f"values-{name}.yaml").read_text(encoding="utf-8"))
    for name in ("standalone", "cluster")
}


def test_compose_services_fit_together():
    """Catches: a dependency or volume that is not there, one without a health check that others wait for."""
    services = COMPOSE["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy" and "healthcheck" in services[other], (name, other)
        for volume in service["volumes"]:
            assert volume.split(":")[0] in COMPOSE["volumes"]
        assert service["healthcheck"]["interval"] == "10s"
    environment = services["milvus"]["environment"]
    assert environment["ETCD_ENDPOINTS"].split(":")[0] in services
    assert environment["MINIO_ADDRESS"].split(":")[0] in services
    assert environment["MINIO_ACCESS_KEY_ID"] == services["minio"]["environment"]["MINIO_ROOT_USER"]


def test_nothing_is_open_to_the_network():
    """Catches: an unprotected database on every interface of a laptop; a load balancer by accident."""
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for values in VALUES.values():
        assert values["service"]["type"] == "ClusterIP"
        assert yaml.safe_load(values["extraConfigFiles"]["user.yaml"])["common"]["security"]["authorizationEnabled"]


def test_versions_are_pinned_and_the_same():
    """Catches: `latest`, and a chart that runs another Milvus than the compose file."""
    images = [service["image"] for service in COMPOSE["services"].values()]
    assert all(re.search(r":(v\d|RELEASE\.\d)", image) for image in images)
    milvus = COMPOSE["services"]["milvus"]["image"]
    assert {f"{v['image']['all']['repository']}:{v['image']['all']['tag']}" for v in VALUES.values()} == {milvus}
    assert milvus.split(":v")[1].startswith("2.6.")  # the client's series


def test_the_cluster_is_one():
    """Catches: a part without a spare, a message queue for nobody, memory that cannot be granted."""
    cluster = VALUES["cluster"]
    assert cluster["cluster"]["enabled"] and not VALUES["standalone"]["cluster"]["enabled"]
    for part in ("proxy", "mixCoordinator", "queryNode", "streamingNode", "dataNode"):
        assert cluster[part]["replicas"] >= 2, part
        asked, limit = cluster[part]["resources"]["requests"], cluster[part]["resources"]["limits"]
        assert int(asked["memory"].removesuffix("Gi")) <= int(limit["memory"].removesuffix("Gi"))
        assert int(asked["cpu"]) <= int(limit["cpu"])
    assert cluster["etcd"]["replicaCount"] % 2 == 1 and cluster["minio"]["mode"] == "distributed"
    assert cluster["woodpecker"]["enabled"] and not cluster["pulsarv3"]["enabled"]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_files_that_exist(name):
    """Catches: a link to a file that was renamed."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (FOLDER / target).exists(), target
