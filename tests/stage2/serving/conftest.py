"""A small Llama as a folder, the command line, and a toy server that speaks the OpenAI API."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from lab_cli import captured_cli
from tiny_model import build, one_thread, runs, tiny_base, tokenizer  # noqa: F401

from stage2_rag_finetune_deploy.serving.__main__ import main


@pytest.fixture
def cli(capsys):
    """The lab's command line in this process."""
    return captured_cli(capsys, main)


class ToyServer(ThreadingHTTPServer):
    """Streams `pieces` words to every completion, one every `gap` seconds; refuses, breaks off or lies as told."""

    daemon_threads, request_queue_size = True, 256
    gap, refuse_every, break_after, tokens_a_piece = 0.0, 0, 0, 1

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """The few paths that the commands use."""

    server: ToyServer

    def log_message(self, *words: object) -> None:
        """Quiet."""

    def answer(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "toy"}, {"id": "toy@sha256:0123456789abcdef"}]})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            number = len(self.server.bodies)
        if self.server.refuse_every and number % self.server.refuse_every == 0:
            self.answer(429, {"error": {"message": "too many requests wait"}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        pieces = -(-body["max_tokens"] // self.server.tokens_a_piece)
        for place in range(pieces):
            if self.server.break_after and place == self.server.break_after:
                self.connection.close()
                return
            time.sleep(self.server.gap)
            self.event({"choices": [{"text": f"{place} "}]})
        self.event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": body["max_tokens"]}})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, body: dict) -> None:
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()


@pytest.fixture
def toy() -> Iterator[ToyServer]:
    """The toy server, running."""
    server = ToyServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)
