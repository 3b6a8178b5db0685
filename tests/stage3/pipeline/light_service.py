"""A service that answers labelled questions in milliseconds, over real HTTP: for tests of the controller.

python tests/stage3/pipeline/light_service.py --release FOLDER --port N [--instance NAME ...]

Its release says in graph/behaviour.json how it behaves: {"wrong": share, "fail": share, "seconds": s, "unsafe": bool,
"dies": bool}. It starts in a tenth of a second, because it needs nothing but the standard library.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def options(words: list[str]) -> dict[str, str]:
    """--name value pairs."""
    return {word[2:]: value for word, value in zip(words, words[1:], strict=False) if word.startswith("--")}


OPTIONS = options(sys.argv[1:])
RELEASE = Path(OPTIONS["release"])
BEHAVIOUR = json.loads((RELEASE / "graph" / "behaviour.json").read_text())
RUNS: dict[str, tuple[str, str]] = {}


def chance(key: str) -> float:
    """A number from 0 to 1 that a question always gets."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def numbered(name: str) -> str:
    """Ids that no other instance gives."""
    return f"{name}_{OPTIONS.get('instance', 'x')}_{time.time_ns()}"


def told(run_id: str, message: str, thread: str) -> Iterator[bytes]:
    """The events of a run."""
    rows = [("start", {"thread_id": thread, "release": RELEASE.name})]
    article = message.rsplit(" ", 1)[-1].strip("?") or "none"
    if chance(f"fail {message}") < BEHAVIOUR.get("fail", 0):
        rows += [("error", {"code": "internal", "message": "it failed", "retryable": False})]
        rows += [("end", {"reason": "failed", "text": ""})]
    else:
        if chance(f"wrong {message}") < BEHAVIOUR.get("wrong", 0):
            article = "quite-another"
        text = "write to ann.lee@example.com" if BEHAVIOUR.get("unsafe") else "here you are"
        rows += [("citation", {"id": f"en/{article}", "kind": "help", "number": 1})]
        rows += [("token", {"text": f"{word} "}) for word in text.split()]
        rows += [("end", {"reason": "answered", "text": text})]
    for seq, (kind, data) in enumerate(rows, 1):
        if seq == len(rows):
            time.sleep(BEHAVIOUR.get("seconds", 0.02) * (0.7 + 0.6 * chance(f"slow {message}")))
        content = json.dumps({**data, "run_id": run_id, "seq": seq, "at": time.time()})
        yield f"event: {kind}\nid: {seq}\ndata: {content}\n\n".encode()


class Handler(BaseHTTPRequestHandler):
    """The routes that the gateway and the probes use."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts == ["health"]:
            self.answer(200, {"status": "ready", "release": RELEASE.name, "instance": OPTIONS.get("instance")})
        elif len(parts) == 3 and parts[0] == "runs" and parts[1] in RUNS:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for frame in told(parts[1], *RUNS[parts[1]]):
                self.wfile.write(frame)
                self.wfile.flush()
            self.close_connection = True
        else:
            self.answer(404, {"error": "there is no such thing here", "try": "another"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        parts = self.path.strip("/").split("/")
        if parts == ["threads"]:
            self.answer(201, {"thread_id": numbered("t"), "language": "en"})
        elif len(parts) == 3 and parts[2] == "runs":
            name = numbered("r")
            RUNS[name] = (str(body.get("message") or ""), parts[1])
            self.answer(202, {"run_id": name, "thread_id": parts[1]})
        else:
            self.answer(200, {})

    def answer(self, status: int, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        pass


if __name__ == "__main__":
    if BEHAVIOUR.get("dies"):
        sys.exit("error: this release does not start")
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(OPTIONS["port"])), Handler).serve_forever()
