"""Service processes that outlive whoever started them: start, find again, drain, stop.

    processes = Processes(home.processes)
    processes.start("d003-canary", words, "http://127.0.0.1:8041")     returns at once; the same call again adopts it
    processes.wait_ready("d003-canary", patience=90)
    processes.drain("d003-canary", limit=30)              SIGTERM; it finishes its runs; SIGKILL at the limit

A process of this kind has a session of its own: Ctrl-C or `kill -9` of the controller does not reach it. So the next
controller must find it. A number alone does not do, the system uses numbers again: the record holds number *and* start
time. Between the record and the start there is a moment in which a killed controller leaves a process without a number
in its record; so the record is written first, with a token that the child has in its environment, and `adopt` looks
for that token among all processes.
"""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from json import JSONDecodeError, loads
from pathlib import Path

import httpx
import psutil

from labkit.environment import process_alive
from labkit.errors import LabError
from labkit.files import write_json, write_text
from stage2_rag_finetune_deploy.serving.server_process import group_members, reason

TOKEN = "COURSE_LAB_PIPELINE_PROCESS"  # environment variable of every process that a pipeline starts
PATIENCE = 120.0  # seconds until a service has to answer /health
DRAIN = 30.0  # seconds that running answers have to end


@dataclass(frozen=True)
class ServiceProcess:
    """The record of one process. `pid` is None in the moment between the record and the start."""

    name: str
    words: tuple[str, ...]
    url: str
    token: str
    log: str
    env: Mapping[str, str]
    pid: int | None = None
    started: float | None = None  # as the system counts it; number and start time together are unique

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return self.pid is not None and process_alive(self.pid, self.started)


class Processes:
    """The processes of one pipeline, one record a file. One controller at a time writes it.

    Args:
        folder: records and logs.
        wrap: words before every service's command, as `nice` or a sidecar's.
    """

    def __init__(self, folder: Path, wrap: Sequence[str] = ()) -> None:
        self.folder, self.wrap = folder, tuple(wrap)

    def records(self) -> list[ServiceProcess]:
        """What should be running."""
        return [one for path in sorted(self.folder.glob("*.json")) if (one := self._read(path))]

    def find(self, name: str) -> ServiceProcess | None:
        """The record of a name; a process that lost its number is looked for by its token."""
        one = self._read(self.folder / f"{name}.json")
        return self._adopted(one) if one else None

    def start(
        self, name: str, words: Sequence[str], url: str, env: Mapping[str, str] | None = None
    ) -> ServiceProcess:
        """Start a service, or adopt the one that runs under this name. Returns before it is ready.

        Args:
            words: the command; `wrap` comes before it.
            url: where it will answer GET /health.
            env: added to this process's environment.
        """
        return self.start_unwrapped(name, [*self.wrap, *words], url, env)

    def start_unwrapped(
        self, name: str, words: Sequence[str], url: str, env: Mapping[str, str] | None = None
    ) -> ServiceProcess:
        """As `start`, without the words of `wrap`."""
        known = self.find(name)
        if known and running(known):
            return known
        if known:
            self._end_group(known, 0)  # its children may be there still
        log = self.folder / f"{name}.log"
        planned = ServiceProcess(name, tuple(map(str, words)), url, secrets.token_hex(16), str(log), dict(env or {}))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{name}.token", planned.token)  # stays when the record is gone: see `leftovers`
        self._write(planned)
        with open(log, "ab") as file:
            child = subprocess.Popen(
                planned.words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
                env={**os.environ, **(env or {}), TOKEN: planned.token},
            )  # fmt: skip
        with suppress(psutil.Error):
            planned = replace(planned, pid=child.pid, started=psutil.Process(child.pid).create_time())
        _children[child.pid] = child
        self._write(planned)
        return planned

    def restart(self, name: str) -> ServiceProcess:
        """Start a service again that has died: same command, same address."""
        one = self.find(name)
        if one is None:
            raise LabError(f"no process is called {name}", "python -m stage3_agents_llmops.pipeline status")
        self._end_group(one, 0)
        return self.start_unwrapped(name, one.words, one.url, one.env)

    def wait_ready(
        self, name: str, patience: float = PATIENCE, between: Callable[[], None] = lambda: None,
        statuses: Sequence[int] = (200,),
    ) -> float:  # fmt: skip
        """Wait until GET /health answers; returns the seconds that it took.

        Args:
            statuses: that count as ready; a gateway that nobody told of services says 503.
            between: called while waiting; what it raises ends the waiting.

        Raises:
            LabError: the process ended, or was not ready in time.
        """
        began = time.monotonic()
        one = self.find(name)
        with httpx.Client(trust_env=False, timeout=2, verify=False) as client:  # http: no certificates to read
            while one and (waited := time.monotonic() - began) < patience:
                with suppress(httpx.HTTPError):
                    if client.get(f"{one.url}/health").status_code in statuses:
                        return waited
                if not running(one):
                    raise LabError(f"{name} ended while starting: {self.said(one)}", f"its log: {one.log}")
                between()
                time.sleep(0.1)
        raise LabError(f"{name} was not ready after {patience:.0f} s", f"its log: {self.folder / name}.log")

    def dead(self) -> list[str]:
        """Names whose process should be running and is not."""
        return [one.name for one in self.records() if not running(self._adopted(one))]

    def drain(self, name: str, limit: float = DRAIN, told: Sequence[int] = ()) -> bool:
        """Ask a service to finish and end; whether it did so by itself. Nobody of its group is left afterwards.

        Args:
            told: signals that it has got already.
        """
        one = self.find(name)
        if one is None:
            return True
        clean = self._end_group(one, limit, told)
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        return clean

    def drain_all(self, names: Sequence[str], limit: float = DRAIN) -> list[str]:
        """Drain several at the same time; returns the names of those that had to be killed."""
        for one in map(self.find, names):
            if one and one.alive:
                signal_group(one.pid, signal.SIGTERM)
        deadline = time.monotonic() + limit
        return [name for name in names
                if not self.drain(name, max(0.1, deadline - time.monotonic()), (signal.SIGTERM,))]  # fmt: skip

    def stop_all(self, limit: float = DRAIN) -> list[str]:
        """End everything; returns the names of those that had to be killed."""
        return self.drain_all([one.name for one in self.records()], limit)

    def said(self, one: ServiceProcess) -> str:
        """The line of its log that says what was wrong."""
        with suppress(OSError):
            return reason(Path(one.log).read_text(encoding="utf-8", errors="replace").splitlines()[-200:])
        return "its log is gone"

    def _end_group(self, one: ServiceProcess, limit: float, told: Sequence[int] = ()) -> bool:
        """Polite signal, then the other. A second polite one may mean "at once": `told` are those that it has got."""
        if one.pid is None:
            return True
        alive, clean = running(one), True
        if not alive and not self._group_is_ours(one):
            return True
        for number, patience in ((signal.SIGTERM, limit if alive else 1.0), (signal.SIGKILL, 10.0)):
            if number not in told:
                signal_group(one.pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and (running(one) or group_members(one.pid)):
                time.sleep(0.05)
            if not running(one) and not group_members(one.pid):
                break
            clean = False
        return clean

    def _group_is_ours(self, one: ServiceProcess) -> bool:
        """Whether the group that bears the process's number still holds its children."""
        return any(_token_of(pid) == one.token for pid in group_members(one.pid))

    def _adopted(self, one: ServiceProcess) -> ServiceProcess:
        if one.pid is not None:
            return one
        for process in psutil.process_iter():
            if _token_of(process.pid) == one.token and os.getpgid(process.pid) == process.pid:
                one = replace(one, pid=process.pid, started=process.create_time())
                self._write(one)
                break
        return one

    def _read(self, path: Path) -> ServiceProcess | None:
        try:
            row = loads(path.read_text(encoding="utf-8"))
            return ServiceProcess(**{**row, "words": tuple(row["words"])})
        except (FileNotFoundError, JSONDecodeError, TypeError, KeyError):
            return None

    def _write(self, one: ServiceProcess) -> None:
        write_json(self.folder / f"{one.name}.json", asdict(one))


_children: dict[int, subprocess.Popen] = {}  # this process's own: a child that ended is a zombie until it is asked
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_children.clear)  # they are not the fork's children: it would take them for dead


def running(one: ServiceProcess) -> bool:
    """Whether a record's process runs; its own child's exit is noticed, too."""
    if one.pid in _children and _children[one.pid].poll() is not None:
        return False
    return one.alive


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group; nothing happens when it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def leftovers(folder: Path) -> list[int]:
    """Processes that bear the token of a record that was here: nothing may be left after `stop_all`."""
    known = {path.read_text().strip() for path in folder.glob("*.token")}
    return [process.pid for process in psutil.process_iter() if _token_of(process.pid) in known]


def _token_of(pid: int) -> str | None:
    with suppress(psutil.Error, OSError):
        return psutil.Process(pid).environ().get(TOKEN)
    return None
