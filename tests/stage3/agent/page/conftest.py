"""Debian's Chromium under Playwright, the real service as a process, and the service that misbehaves on demand."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stand_in import Server, StandIn  # noqa: E402

from data.shop import create_shop  # noqa: E402

ROOT = Path(__file__).parents[4]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 60_000  # ms; a shared machine may be slow, an answer that never comes still fails


def chromium() -> str | None:
    """The system's Chromium; Playwright brings none along."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, or the reason why these tests are left out."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    path = chromium()
    if path is None:
        pytest.skip("the page's tests need Chromium: apt-get install chromium fonts-noto-cjk")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Any]]:
    """open_page(url, width, height, **context options): a tab of its own; an error in it fails the test."""
    contexts, errors, policy = [], [], []

    def open_one(url: str, width: int = 1280, height: int = 800, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: "Content Security" in message.text and policy.append(message.text))
        page.goto(url)
        page.wait_for_selector("#connection[data-state=open]")
        return page

    open_one.expects_violations = False
    yield open_one
    for context in contexts:
        context.close()
    assert not errors
    assert open_one.expects_violations or not policy


@pytest.fixture
def shots() -> Path:
    """Where screenshots are kept: test output, under the runs folder."""
    folder = Path(os.environ["COURSE_LAB_RUNS"]) / "stage3" / "agent" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ----------------------------------------------------------------------------------------- the real service


class RealService:
    """`python -m stage3_agents_llmops.agent serve` in a process of its own, on a shop of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.words, self.shop = folder, words, folder / "shop.sqlite"
        create_shop(self.shop)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until /health answers."""
        command = [sys.executable, "-m", "stage3_agents_llmops.agent", "serve", "--port", str(self.port)]
        command += ["--shop", str(self.shop), "--state", str(self.folder / "state"), *self.words]
        with (self.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self.stop()
        pytest.fail((self.folder / "serve.log").read_text(encoding="utf-8")[-2000:])

    def kill(self) -> None:
        """Without a goodbye, as a machine that loses power."""
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """What the shop's database says."""
        connection = sqlite3.connect(f"file:{self.shop}?mode=ro", uri=True)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def order(self, status: str, language: str = "en") -> tuple[str, str]:
        """(customer, order) for some order in this state that nothing has happened to yet; each is given once."""
        sql = """select o.customer_id, o.order_id from orders o join customers c using (customer_id)
                 where o.status = ? and c.language = ? and o.total_cents < 20000 order by o.order_id"""
        self.given = getattr(self, "given", set())
        found = next(row for row in self.rows(sql, status, language) if row[1] not in self.given)
        self.given.add(found[1])
        return found


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Iterator[RealService]:
    """The service as a learner starts it: classifier and templates."""
    real = RealService(tmp_path_factory.mktemp("service"))
    yield real
    real.stop()


class SlowModel(BaseHTTPRequestHandler):
    """A model server that lists its model and then thinks for longer than anybody waits."""

    def log_message(self, *words: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        data = json.dumps({"data": [{"id": "slow"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.server.asked.set()
        self.server.free.wait(60)


@pytest.fixture(scope="session")
def slow_model() -> Iterator[ThreadingHTTPServer]:
    """The model server; `asked` is set when somebody asked it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowModel)
    server.daemon_threads, server.asked, server.free = True, threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.free.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def slow_service(tmp_path_factory, slow_model) -> Iterator[RealService]:
    """The service whose model hangs: a run that lasts until the deadline, long enough to be stopped or killed in."""
    real = RealService(tmp_path_factory.mktemp("slow"), "--endpoint", f"http://127.0.0.1:{slow_model.server_port}/v1")
    yield real
    real.stop()


# ------------------------------------------------------------------------------------------- the misbehaving one


@pytest.fixture(scope="session")
def stand_in_server() -> Iterator[tuple[StandIn, Server]]:
    stand_in = StandIn()
    server = Server(stand_in)
    yield stand_in, server
    server.stop()


@pytest.fixture
def stand_in(stand_in_server) -> StandIn:
    """The misbehaving service, well-behaved again and empty."""
    one, server = stand_in_server
    one.__init__()
    one.server, one.url = server, server.url
    return one


# --------------------------------------------------------------------------------------------------- the visitor


class Visitor:
    """What a customer does on the page."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def say(self, text: str) -> None:
        """Type, press Enter, and wait until the answer is there and the box is free again."""
        self.begin(text)
        self.done()

    def begin(self, text: str) -> None:
        self.answers = self.page.locator(".message.agent").count()
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def done(self) -> None:
        self.page.wait_for_function("n => document.querySelectorAll('.message.agent').length > n", arg=self.answers)
        self.page.wait_for_selector("#send:visible")

    def answer(self) -> str:
        return self.page.locator(".message.agent .text").last.inner_text()

    def be(self, customer: str) -> None:
        """Become this customer, in a new conversation."""
        self.page.select_option("#customer", customer)
        self.page.click("#new")
        self.page.wait_for_selector("#welcome:visible")

    def reads(self, text: str) -> None:
        """Wait until the last answer is this."""
        last = "[...document.querySelectorAll('.message.agent .text:not(.waiting)')].at(-1)?.textContent.trim()"
        self.wait(f"text => {last} === text", text)

    def wait(self, script: str, arg: Any = None) -> None:
        self.page.wait_for_function(script, arg=arg)


@pytest.fixture
def visitor() -> type[Visitor]:
    return Visitor
