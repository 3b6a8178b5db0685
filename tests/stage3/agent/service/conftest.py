"""A running service around the small agent, on a real port, and a model server that counts."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # small_service, also for the process that is killed

from service_under_test import Running, running  # noqa: E402
from small_service import small_app  # noqa: E402

from data.shop import create_shop  # noqa: E402


@pytest.fixture(scope="session")
def shop_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_shop(tmp_path_factory.mktemp("shop") / "shop.sqlite", seed=3)


@pytest.fixture
def folder(tmp_path: Path, shop_file: Path) -> Path:
    """A state folder with a fresh shop."""
    (tmp_path / "shop.sqlite").write_bytes(shop_file.read_bytes())
    return tmp_path


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Running]]:
    """`serve(pause=..., active=...)` runs the service with these options until the test ends."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(small_app(folder, **options), folder))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, shop_file: Path) -> Iterator[Running]:
    """The service with its usual limits, one for all tests of a file."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "shop.sqlite").write_bytes(shop_file.read_bytes())
    with running(small_app(folder), folder) as service:
        yield service


@dataclass
class CountingModel:
    """A model server that answers after a while and knows when it was asked."""

    seconds: float = 0.05
    asked: list[float] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def model() -> Iterator[CountingModel]:
    counting = CountingModel()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            counting.asked.append(time.monotonic())
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(counting.seconds)
            body = json.dumps({"choices": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    counting.url = f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions"
    yield counting
    server.shutdown()
    server.server_close()


