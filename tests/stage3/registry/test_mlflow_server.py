"""A real `mlflow server` over HTTP: what it can do, and what it says that it cannot. Started once."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest

from labkit.errors import LabError
from stage3_agents_llmops.registry.conformance import Bench, load_checks, run_check
from stage3_agents_llmops.registry.registries import open_registry
from stage3_agents_llmops.registry.targets import empty_database

CHECKS = {check.name: check for check in load_checks()}
OVER_HTTP = ("a_release_comes_back_byte_for_byte", "lineage_is_kept")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its address."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_database())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True,
                                   env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})  # fmt: skip
    try:
        deadline = time.monotonic() + 150
        while not answers(port):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port):
    """Whether the server is up."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
        return reply.read() == b"OK"
    return False


@pytest.mark.parametrize("name", OVER_HTTP)
def test_conformance(server, tmp_path, name):
    """Catches: a registry that only works with the database at hand."""
    result = run_check(CHECKS[name], lambda folder: open_registry(server, f"m-{name}"), tmp_path)
    assert result.status == "passed", result.message


def test_what_a_server_cannot_do_is_said(server, tmp_path):
    """Catches: a condition that is silently ignored; a collection that fails for want of a history."""
    bench = Bench(lambda folder: open_registry(server, "said"), tmp_path)
    assert bench.registry.capabilities == frozenset()
    bench.publish("a", "b", "c")
    assert bench.registry.set_alias("champion", 1).version == 1
    with pytest.raises(LabError, match="has no compare-and-set"):
        bench.registry.set_alias("champion", 2, expected=1)
    for call in (bench.registry.history, lambda: bench.registry.rollback("champion")):
        with pytest.raises(LabError, match="keeps no history"):
            call()
    assert bench.registry.aliases() == {"champion": 1}
    assert bench.registry.collect_garbage(keep=1).versions == (2,) and bench.registry.verify() == []


def test_another_server_is_not_taken_for_mlflow(tmp_path):
    """Catches: "version 1 does not exist" from a web server that knows nothing of versions."""
    from hub_server import HubServer

    with HubServer() as other, pytest.raises(LabError, match="it has no /health of MLflow"):
        open_registry(other.url)
