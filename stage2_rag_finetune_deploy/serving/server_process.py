"""A server as a child: started in a process group of its own, waited for until it is healthy, ended without a trace.

    with ServerProcess(words, "127.0.0.1", 8000, title="vLLM", patience=60) as server:
        ...                                   # server.url answers
                                              # here the port is free again and no process of the group is left

A server of two processes (vLLM: the HTTP front end and the engine) leaves the second behind when only the first is
killed. So signals go to the group: first the polite one, then, after `GRACE` seconds, the one that cannot be refused.
Where the kernel can do it (Linux), the child is also told to end when this process dies, however it dies.
"""

import ctypes
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO

import httpx
import psutil

from labkit.errors import LabError
from labkit.progress import progress

GRACE = 15.0  # seconds between the polite signal and SIGKILL
TAIL = 400  # lines of the log that are kept to explain an end
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def check_port(host: str, port: int) -> None:
    """Refuse a port that is taken, or that there is none of.

    Raises:
        LabError: in use, not allowed, or out of range; the host is none of this machine's.
    """
    if not 1 <= port <= 65535:
        raise LabError(f"there is no port {port}", "--port 8000")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
            raise LabError(f"port {port} of {host} {reason}", f"--port {free_port()}") from None


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent() -> None:
    """In the child, before it becomes the server: SIGTERM when the parent dies. Nothing outside Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class ServerProcess:
    """A server in a child process group; use it as a context.

    Args:
        words: the command.
        title: what errors call it.
        patience: seconds until it has to be healthy.
        on_line: gets every line that it prints; `log` gets them as a file.
        grace: seconds that it has to end by itself; less than GRACE for a server inside a server.
    """

    def __init__(
        self, words: Sequence[str], host: str, port: int, title: str, patience: float,
        env: Mapping[str, str] | None = None, on_line: Callable[[str], None] | None = None, log: Path | None = None,
        grace: float = GRACE,
    ) -> None:  # fmt: skip
        self.words, self.host, self.port, self.title, self.patience = list(words), host, port, title, patience
        self.env, self.on_line, self.log, self.grace = env, on_line, log, grace
        self.lines: deque[str] = deque(maxlen=TAIL)
        self.child: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}"

    def __enter__(self) -> "ServerProcess":
        check_port(self.host, self.port)
        self.child = subprocess.Popen(
            self.words, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(self.child.stdout,), daemon=True)
        self._reader.start()
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _read(self, stream: IO[str]) -> None:
        with stream, open(self.log or os.devnull, "w", encoding="utf-8") as file:
            for line in stream:
                file.write(line)
                file.flush()
                self.lines.append(line.rstrip())
                if self.on_line:
                    self.on_line(self.lines[-1])

    def _wait_until_healthy(self) -> None:
        started = time.monotonic()
        bar = nullcontext() if self.on_line else progress(description=f"start {self.title}", total=self.patience)
        with httpx.Client(trust_env=False, timeout=2) as client, bar:
            while (waited := time.monotonic() - started) < self.patience:
                if self.child.poll() is not None:
                    self._reader.join(2)
                    raise LabError(f"{self.title} ended while starting: {reason(self.lines)}", self._advice())
                with suppress(httpx.HTTPError):
                    if client.get(f"{self.url}/health").status_code == 200:
                        self.seconds_to_ready = waited
                        return
                if not self.on_line:
                    bar.update(round(waited, 1))
                time.sleep(0.2)
        raise LabError(f"{self.title} was not ready after {self.patience:.0f} s", self._advice())

    def _advice(self) -> str:
        return f"the whole log: {self.log}" if self.log else "the lines above, or --patience with more seconds"

    def wait(self) -> int:
        """Wait for its own end; the exit code."""
        return self.child.wait()

    def running(self) -> bool:
        """Whether it is still there."""
        return self.child is not None and self.child.poll() is None

    def stop(self) -> None:
        """End the whole group and wait until nothing of it is left."""
        if self.child is None:
            return
        group = self.child.pid  # a new session: the child leads its group
        grace = self.grace if self.child.poll() is None else 1.0  # nobody is left to end the rest in order
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.child.poll() is not None and not group_members(group):
                break
            with suppress(ProcessLookupError):
                os.killpg(group, number)
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and (self.child.poll() is None or group_members(group)):
                time.sleep(0.05)
        self.child.wait()
        self._reader.join(2)


def group_members(group: int) -> list[int]:
    """The processes of a group that still run; a zombie, which only waits for its parent to look, does not."""
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members


def reason(lines: Sequence[str]) -> str:
    """The line of a log that says what was wrong: a command's own `error: `, else the last that names an error."""
    kept = [line for line in lines if line.strip()]
    own = [line.removeprefix("error: ") for line in kept if line.startswith("error: ")]
    named = [line for line in kept if re.search(r"\b\w*(Error|Exception): ", line) and "WARNING" not in line]
    line = (own or named or kept or ["it printed nothing"])[-1]
    return line[max(line.find("Error: ") - 40, 0) if len(line) > 300 else 0 :][:300].strip()
