"""A real Milvus server as a child process: its own folder, free ports, started, killed and started again.

    with MilvusServer("runs/milvus") as server:
        store = MilvusStore(server.uri)

A standalone server is one process that holds what a cluster spreads over many: proxy, coordinators, query and data
nodes, etcd for the metadata, RocksMQ for the log that every write goes through before it is acknowledged.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from labkit.errors import LabError
from labkit.files import write_json, write_text
from stage2_rag_finetune_deploy.vector_db.milvus_wheel import server_folder

PLACE = re.compile(r"\{\{\s*(\w+)(?:\(\w+\))?\s*(?::([^}]*))?\}\}")  # {{ name(type): default }}
READY_SECONDS = 120
GRACE_SECONDS = 2  # its parts wait for each other when they end, often for ever
PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
EXTRA_PORTS = ("etcd_peer", "metrics")


class MilvusServer:
    """One server.

    Args:
        folder: where its data, logs and configuration lie. An empty server takes 140 MB (logs written ahead).
        port: of the clients; None keeps the folder's last one if it is free, else any free one.
    """

    def __init__(self, folder: str | Path, port: int | None = None) -> None:
        self.folder, self._wanted_port = Path(folder).absolute(), port
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen | None = None
        self._lock: FileLock | None = None

    @property
    def uri(self) -> str:
        """What MilvusStore wants."""
        return f"http://127.0.0.1:{self.ports['proxy_port']}"

    @property
    def pid(self) -> int | None:
        """Of the running server."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> "MilvusServer":
        """Start and wait until it answers (2 to 9 s).

        Raises:
            LabError: no server for this machine, the port is taken, the folder is in use, or it did not come up.
        """
        program = server_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "LOCK")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LabError(f"a Milvus server runs in {self.folder} already", "its URI, or another folder") from None
        try:
            self.ports = self._choose_ports(program)
            self._write_configuration(program)
            self._process = self._spawn(program)
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ask it to end; kill it when it does not within GRACE_SECONDS. Acknowledged writes are safe either way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, as a crash would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> "MilvusServer":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        if self._process:
            if self._process.poll() is None:
                self._process.send_signal(how)
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock:
            self._lock.release()

    def _choose_ports(self, program: Path) -> dict[str, int]:
        """A port for each of the server's parts: the folder's last ones as long as all are free."""
        template = (program / "config.yaml.template").read_text(encoding="utf-8")
        names = [name for name, _ in PLACE.findall(template) if name.endswith("_port")] + list(EXTRA_PORTS)
        last = self._last_ports()
        if self._wanted_port is None and last.keys() == set(names) and all(map(is_free, last.values())):
            return last
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        if self._wanted_port is not None:
            if not is_free(self._wanted_port):
                raise LabError(f"port {self._wanted_port} is in use", "another --port, or none for any free one")
            ports["proxy_port"] = self._wanted_port
        write_json(self.folder / "ports.json", ports)
        return ports

    def _last_ports(self) -> dict[str, int]:
        try:
            return json.loads((self.folder / "ports.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _write_configuration(self, program: Path) -> None:
        """The wheel's template with our folders and ports, and what a laptop wants otherwise than a data centre."""
        data, logs, configs = (self.folder / name for name in ("data", "logs", "configs"))
        for path in (data, logs, configs):
            path.mkdir(exist_ok=True)
        values = {
            "etcd_log_path": logs / "etcd.log",
            "system_log_path": logs,
            "etcd_data_dir": data / "etcd.data",
            "local_storage_dir": data,
            "rocksmq_data_dir": data / "rocksmq",
            **self.ports,
        }
        template = (program / "config.yaml.template").read_text(encoding="utf-8")
        filled = PLACE.sub(lambda place: str(values.get(place[1], (place[2] or "").strip())), template)
        settings: dict[str, Any] = yaml.safe_load(filled)
        settings["log"]["level"] = "warn"
        settings["common"]["session"]["ttl"] = 5  # a killed server's lease: reads wait for its end (30 s by default)
        for part in PARTS:
            settings[part]["ip"] = "127.0.0.1"  # else the network's address, which changes when a laptop moves
        write_text(configs / "milvus.yaml", yaml.safe_dump(settings))
        write_text(configs / "glog.conf", (program / "glog.conf").read_text(encoding="utf-8"))
        client, peer = (f"http://127.0.0.1:{self.ports[name]}" for name in ("etcd_port", "etcd_peer"))
        etcd = {
            "name": "default",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        write_text(configs / "etcd.yaml", yaml.safe_dump(etcd))

    def _spawn(self, program: Path) -> subprocess.Popen:
        environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "METRICS_PORT": str(self.ports["metrics"]),
            "MILVUS_RUN_DIR": str(self.folder / "run"),
            "ETCD_CONFIG_PATH": str(self.folder / "configs" / "etcd.yaml"),
            "LD_LIBRARY_PATH": str(program / "bin"),
        }
        in_main = threading.current_thread() is threading.main_thread()  # the kernel watches the starting thread
        with open(self.folder / "logs" / "server.log", "ab") as log:
            return subprocess.Popen(
                [program / "bin" / "milvus", "run", "standalone"], cwd=self.folder, env=environment, stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent if in_main else None,
            )  # fmt: skip

    def _wait(self) -> None:
        address, deadline = f"http://127.0.0.1:{self.ports['metrics']}/healthz", time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise LabError(f"the Milvus server ended at once (code {self._process.returncode})", self._log_advice())
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    if b"OK" in answer.read():
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise LabError(f"the Milvus server did not answer within {READY_SECONDS} s", self._log_advice())

    def _log_advice(self) -> str:
        return f"tail {self.folder / 'logs' / 'server.log'}"


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except (OSError, OverflowError):
            return False


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on. Another program may take one before we do; then the start fails."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def die_with_parent() -> None:
    """In the child, before it becomes the server: the kernel ends it when this process is gone, however it went."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
