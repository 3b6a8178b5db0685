"""The grader's eye and hand at each service that the learner's platform starts: a launcher with a relay in it.

    python -P watched_service.py SETTINGS.json COMMAND ... --release FOLDER ... --port PORT

starts COMMAND on another port and answers on PORT itself, passing everything on. It writes down which release served
which run of which customer, as a line of JSON in the settings' `log` folder, and tells runs as service_faults.py says.
The release is known by the `note` in its release.json. SIGTERM is passed on; it ends when the service ends, with the
same exit code, and takes the service with it when it is killed.
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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from milestones.service_faults import SLOWER, Frame, Plan, plan_of, read_frames, retold  # noqa: E402

RUNS = re.compile(r"/threads/[^/]+/runs/?")
EVENTS = re.compile(r"/runs/([^/]+)/events/?")
NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding"}
PROBE = "x-probe"  # the header of a labelled question
PATIENCE = 120.0  # seconds for one read


class Watch:
    """What is known about the runs of this service, and where it is written down."""

    def __init__(self, settings: Path, release: Path, port: int) -> None:
        self.settings = json.loads(settings.read_text(encoding="utf-8"))
        self.note = str(json.loads((release / "release.json").read_text(encoding="utf-8")).get("note", ""))
        self.port = port  # of the service
        self.plans: dict[str, Plan] = {}
        self.told: set[str] = set()
        self._lock = threading.Lock()
        self._log = (Path(self.settings["log"]) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8")

    def write(self, what: str, **facts: Any) -> None:
        """One line, at once."""
        line = json.dumps({"at": time.time(), "what": what, "note": self.note, **facts}, ensure_ascii=False)
        with self._lock:
            self._log.write(line + "\n")
            self._log.flush()

    def begun(self, run_id: str, customer: str, message: str, probe: bool) -> None:
        """A run was accepted."""
        language = "zh" if re.search(r"[\u4e00-\u9fff]", message) else "en"
        plan = plan_of(self.settings, run_id, self.fault(), language)
        self.plans[run_id] = plan
        self.write("run", run=run_id, customer=customer, message=message, probe=probe, fault=plan.fault)

    def fault(self) -> dict[str, Any] | None:
        """What the grader wants this release to do by now."""
        with suppress(OSError, ValueError):
            wanted = json.loads(Path(self.settings["switch"]).read_text(encoding="utf-8"))
            return wanted if wanted["note"] == self.note else None
        return None

    def plan(self, run_id: str) -> Plan:
        """Of a run, also of one that another process accepted."""
        if run_id not in self.plans:
            self.plans[run_id] = plan_of(self.settings, run_id, None, "en")
        return self.plans[run_id]

    def ended(self, run_id: str, frames: Sequence[Frame]) -> None:
        """A run was told to its end; counted once."""
        with self._lock:
            again = run_id in self.told
            self.told.add(run_id)
        if not again:
            cited = [str(frame.data.get("id")) for frame in frames if frame.type == "citation"]
            self.write("told", run=run_id, citations=cited, reason=str(frames[-1].data.get("reason", "")))


class Relay(BaseHTTPRequestHandler):
    """Passes requests on to the service."""

    protocol_version = "HTTP/1.1"
    watch: Watch

    def relay(self) -> None:
        """One request, whatever its method."""
        body = self.body()
        upstream = HTTPConnection("127.0.0.1", self.watch.port, timeout=PATIENCE)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        try:
            upstream.request(self.command, self.path, body or None, headers)
            with upstream.getresponse() as reply:
                self.answer(reply, body)
        except (BrokenPipeError, ConnectionResetError):  # the reader left
            self.close_connection = True
        except (OSError, HTTPException):
            self.close_connection = True
            with suppress(OSError):
                self.send_error(502)
        finally:
            upstream.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = relay

    def body(self) -> bytes:
        """Of the request."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, reply: HTTPResponse, body: bytes) -> None:
        """Pass the answer on; events are retold."""
        path = self.path.partition("?")[0]
        events, streamed = EVENTS.fullmatch(path), "event-stream" in reply.getheader("Content-Type", "")
        content = None if streamed else reply.read()
        if content is not None and self.command == "POST" and reply.status < 300 and RUNS.fullmatch(path):
            self.accepted(content, body)
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        if content is not None:
            if reply.status not in (204, 304):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.close_connection = True  # a stream's end is the connection's
        self.send_header("Connection", "close")
        self.end_headers()
        if events:
            self.tell(events[1], lines_of(reply))
        else:
            while piece := reply.read1(65536):
                self.wfile.write(piece)

    def accepted(self, content: bytes, body: bytes) -> None:
        """Write down a run that the service accepted."""
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            customer = self.headers.get("Authorization", "").removeprefix("Bearer ").rpartition(".")[0]
            message = json.loads(body).get("message") or ""
            run_id, probe = str(json.loads(content)["run_id"]), bool(self.headers.get(PROBE))
            self.watch.begun(run_id, customer, str(message), probe)

    def tell(self, run_id: str, lines: Iterator[str]) -> None:
        """A run's events, the delays of the first telling included."""
        plan = self.watch.plan(run_id)
        after = self.headers.get("Last-Event-ID", "")
        last = int(after) if after.isdigit() else 0
        frames: list[Frame] = []
        began = time.monotonic()
        for frame in retold(read_frames(lines), plan):
            if not last:
                self.wait(frame, frames, plan, time.monotonic() - began)
            frames.append(frame)
            if frame.id > last:
                self.wfile.write(frame.written())
            if frame.type == "end":
                self.watch.ended(run_id, frames)

    def wait(self, frame: Frame, before: Sequence[Frame], plan: Plan, seconds: float) -> None:
        """Sleep where the plan wants it: before the first event, and before a slow release's end."""
        if not before:
            time.sleep(plan.delay)
        if frame.type == "end" and plan.fault == "slow":
            time.sleep(SLOWER[0] * seconds + SLOWER[1])

    def log_message(self, *words: object) -> None:
        """Nothing: the platform reads what its services print."""


def lines_of(reply: HTTPResponse) -> Iterator[str]:
    """Lines of a stream, decoded."""
    for line in reply:
        yield line.decode("utf-8", "replace").rstrip("\r\n")


class Listener(ThreadingHTTPServer):
    """Bound at once, so that a port in use is said at once; it answers when the service does."""

    daemon_threads = True
    request_queue_size = 128


def value_of(words: Sequence[str], name: str) -> int:
    """The place of an option's value.

    Raises:
        SystemExit: the command has no such option.
    """
    if name not in words[:-1]:
        sys.exit(f"the service's command has no {name} VALUE")
    return words.index(name) + 1


def tied() -> None:
    """In the child: die with this process, where the system can do that (Linux's prctl, PR_SET_PDEATHSIG)."""
    with suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(settings: str, words: list[str]) -> int:
    """Start the service, relay, and end with it."""
    place, release = value_of(words, "--port"), Path(words[value_of(words, "--release")])
    watch = Watch(Path(settings), release, free_port())
    relay = type("Watched", (Relay,), {"watch": watch})
    try:
        server = Listener(("127.0.0.1", int(words[place])), relay, bind_and_activate=False)
        server.allow_reuse_address = True
        server.server_bind()
    except OSError as error:
        sys.exit(f"port {words[place]}: {error.strerror}")
    command = [*words[:place], str(watch.port), *words[place + 1 :]]
    child = subprocess.Popen(command, preexec_fn=tied, process_group=0)  # a signal to our group reaches it once
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: child.send_signal(number))
    watch.write("start", pid=os.getpid(), service=child.pid)
    threading.Thread(target=listen, args=(server, child, watch.port), daemon=True).start()
    code = child.wait()
    time.sleep(0.3)  # what it said last is on its way
    return code if code >= 0 else 128 - code


def listen(server: Listener, child: subprocess.Popen, port: int) -> None:
    """Answer from the moment on when the service does."""
    while child.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.05)
    server.server_activate()
    server.serve_forever()


if __name__ == "__main__":
    os._exit(main(sys.argv[1], sys.argv[2:]))  # threads that still read from nobody do not keep it
