"""Servers as children: nothing is left of them, and why they ended is said. Each test names the bug that it catches."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import psutil
import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving import server_process
from stage2_rag_finetune_deploy.serving.server_process import (
    ServerProcess,
    check_port,
    free_port,
    group_members,
    reason,
)

TOY = str(Path(__file__).with_name("toy_server.py"))
ROOT = Path(__file__).parents[3]


def toy(*words: str, patience: float = 20, port: int | None = None, **more) -> ServerProcess:
    port = port or free_port()
    command = [sys.executable, TOY, str(port), *words]
    return ServerProcess(command, "127.0.0.1", port, "the toy", patience, **more)


def wait_until(true, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_healthy_then_gone(tmp_path):
    """Catches: a server that is used before it answers, a port that stays taken, a log that is lost."""
    lines = []
    with toy(log=tmp_path / "log", on_line=lines.append) as server:
        assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
        assert server.running() and server.seconds_to_ready < 20
    assert not server.running()
    check_port("127.0.0.1", server.port)
    assert "asked for /health" in (tmp_path / "log").read_text(encoding="utf-8") and "asked for /health" in lines


def test_a_child_that_ignores_the_polite_signal_goes_too():
    """Catches: an orphan that keeps the memory (vLLM's engine process), because only the parent was killed."""
    with toy("--stubborn", grace=0.5) as server:
        group = server.child.pid
        assert len(group_members(group)) == 2
    assert group_members(group) == []


def test_what_the_block_raises_does_not_leave_a_server():
    """Catches: a server that outlives the test that failed."""
    with pytest.raises(ZeroDivisionError), toy() as server:
        _ = 1 / 0
    assert group_members(server.child.pid) == []


def test_the_reason_of_an_end_while_starting():
    """Catches: 'not ready after 60 s' for a server that ended in the first second."""
    started = time.monotonic()
    message = "the toy ended while starting: ValueError: no weights"
    with pytest.raises(LabError, match=message), toy("--die", "no weights"):
        pass
    assert time.monotonic() - started < 15


def test_never_healthy_is_stopped():
    """Catches: a server that is left running because it was given up."""
    server = toy("--never", patience=1.0)
    with pytest.raises(LabError, match="was not ready after 1 s"), server:
        pass
    assert group_members(server.child.pid) == []


def test_a_port_in_use_is_said_before_anything_starts():
    """Catches: another server's /health taken for one's own."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = toy(port=port)
        with pytest.raises(LabError, match=f"port {port} of 127.0.0.1 is in use") as caught, server:
            pass
        assert server.child is None and caught.value.try_next.startswith("--port ")


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_there_is_no_such_port(port):
    """Catches: OverflowError from the socket module."""
    with pytest.raises(LabError, match=f"there is no port {port}"):
        check_port("127.0.0.1", port)


def test_a_host_that_is_not_ours():
    """Catches: a name of another machine tried for a minute."""
    with pytest.raises(LabError, match=r"port 8000 of 203\.0\.113\.1 cannot be had"):
        check_port("203.0.113.1", 8000)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_killed_with_its_parent():
    """Catches: `kill -9` of the command that leaves its server behind."""
    code = textwrap.dedent(f"""
        import sys, time
        from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port
        port = free_port()
        with ServerProcess([sys.executable, {TOY!r}, str(port)], "127.0.0.1", port, "the toy", 20) as server:
            print(server.child.pid, flush=True)
            time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not group_members(pid))


def test_the_line_that_says_why():
    """Catches: vLLM's last line ('resource_tracker: ...') shown instead of the reason."""
    lines = ["Traceback (most recent call last):", "  File x", "(EngineCore pid=1) ValueError: too long: 9 > 8",
             "/lib/resource_tracker.py:254: UserWarning: leaked"]  # fmt: skip
    assert "ValueError: too long: 9 > 8" in reason(lines)
    warning = "WARNING: may cause `OSError: [Errno 24] Too many open files`"
    assert "ValueError" in reason([*lines, warning]) and reason([warning, "the end"]) == "the end"
    assert reason([*lines, "error: port 1 is in use", "  try: --port 2"]) == "port 1 is in use"
    assert reason(["loading", ""]) == "loading"
    assert reason([]) == "it printed nothing"
    assert len(reason([f"{'x' * 500} RuntimeError: short"])) <= 300
    assert server_process.GRACE > 1
