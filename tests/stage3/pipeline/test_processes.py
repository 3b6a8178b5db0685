"""Processes that outlive their controller; each test names the bug that it catches."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.server_process import free_port
from stage3_agents_llmops.pipeline.processes import TOKEN, Processes, leftovers, running

SERVER = (
    "import http.server,signal,sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self): self.send_response(int(sys.argv[2])); self.end_headers()\n"
    "    def log_message(self,*a): pass\n"
    "exec(sys.argv[3])\n"
    "http.server.HTTPServer(('127.0.0.1',int(sys.argv[1])),H).serve_forever()\n"
)


@pytest.fixture
def processes(tmp_path):
    """A folder of processes; nothing of it is left afterwards."""
    here = Processes(tmp_path / "processes")
    yield here
    here.stop_all(2)
    assert leftovers(here.folder) == []


def start(processes, name="one", status=200, extra="pass"):
    port = free_port()
    words = [sys.executable, "-c", SERVER, port, status, extra]
    return processes.start(name, words, f"http://127.0.0.1:{port}")


def gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_start_is_idempotent_and_has_a_session_of_its_own(processes):
    """Catches: a second process under one name; a service that ends with the terminal's Ctrl-C."""
    one = start(processes)
    assert start(processes).pid == one.pid
    processes.wait_ready("one", 20)
    assert os.getsid(one.pid) == one.pid != os.getsid(0)


def test_service_survives_the_controller_and_is_found_again(processes, tmp_path):
    """Catches: services that die with a killed controller; a controller that starts a second one."""
    program = (
        "import sys,os,signal;from pathlib import Path;from stage3_agents_llmops.pipeline.processes import Processes\n"
        f"Processes(Path({str(processes.folder)!r})).start('one',[sys.executable,'-c',{SERVER!r},{free_port()},200,'pass'],"
        "'http://127.0.0.1:1');os.kill(os.getpid(),signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    one = processes.find("one")
    assert one.alive and processes.dead() == []


def test_killed_between_record_and_start_is_found_by_its_token(processes):
    """Catches: an orphan whose number nobody wrote down."""
    one = start(processes)
    path = processes.folder / "one.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": None, "started": None}))
    assert processes.find("one").pid == one.pid
    assert processes.drain("one", 5) and gone(one.pid)


def test_number_that_was_used_again_is_not_taken_for_the_service(processes):
    """Catches: a stranger's process that is signalled because it has the number of a dead service."""
    one = start(processes)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        path = processes.folder / "two.json"
        path.write_text(json.dumps(json.loads((processes.folder / "one.json").read_text())
                                   | {"name": "two", "token": "x", "pid": stranger.pid, "started": one.started - 100}))
        assert "two" in processes.dead()
        processes.drain("two", 1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert running(one)


def test_drain_waits_then_kills(processes):
    """Catches: a service that refuses to end and stays; one that ends by itself and is called killed."""
    polite = start(processes, "polite")
    rude = start(processes, "rude", extra="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    for name in ("polite", "rude"):
        processes.wait_ready(name, 20)
    assert processes.drain("polite", 5)
    assert not processes.drain("rude", 0.3)
    assert gone(polite.pid) and gone(rude.pid) and processes.records() == []


def test_children_of_a_service_end_with_it(processes):
    """Catches: a wrapper that is ended while its child goes on."""
    spawn = "import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    one = start(processes, extra=spawn)
    processes.wait_ready("one", 20)
    child = psutil.Process(one.pid).children()[0].pid
    processes.drain("one", 1)
    assert gone(one.pid) and gone(child)


def test_killed_service_is_dead_and_can_be_started_again(processes):
    """Catches: a zombie that counts as alive; a restart on another port."""
    one = start(processes)
    os.kill(one.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while processes.dead() != ["one"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = processes.restart("one")
    assert again.pid != one.pid and again.url == one.url and again.words == one.words
    processes.wait_ready("one", 20)


def test_service_that_ends_while_starting_is_told(processes):
    """Catches: waiting to the end of patience for a process that is gone; its own words lost."""
    start(processes, extra="sys.exit('error: no such model')")
    with pytest.raises(LabError, match="no such model"):
        processes.wait_ready("one", 20)


def test_service_that_is_never_healthy_is_given_up(processes):
    """Catches: 503 that counts as ready."""
    start(processes, status=503)
    with pytest.raises(LabError, match="not ready"):
        processes.wait_ready("one", 1.0)
    assert processes.wait_ready("one", 20, statuses=(200, 503)) >= 0


def test_wrap_comes_before_services_only(tmp_path):
    """Catches: a wrapper around the gateway, or none around a service."""
    wrapped = Processes(tmp_path, ["env", "SIDECAR=1"])
    try:
        one = wrapped.start("one", [sys.executable, "-c", "import time; time.sleep(30)"], "http://127.0.0.1:1")
        two = wrapped.start_unwrapped("two", [sys.executable, "-c", "import time; time.sleep(30)"], "http://127.0.0.1:1")
        assert one.words[:2] == ("env", "SIDECAR=1") and two.words[0] == sys.executable
        assert psutil.Process(one.pid).environ()[TOKEN] == one.token
        assert wrapped.restart("one").words == one.words
    finally:
        wrapped.stop_all(1)


def test_fork_does_not_take_its_parents_services_for_dead(processes):
    """Catches: `waitpid` in a fork, which says that a process that is nobody's child has ended."""
    one = start(processes)
    child = os.fork()
    if child == 0:
        os._exit(0 if running(replace(one)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
