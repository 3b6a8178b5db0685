"""A service under test: served in a thread, with the real protocol on a real port."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stage3_agents_llmops.agent.service.auth import OPERATOR, Tokens
from stage3_agents_llmops.agent.service.sse_client import Received, ServiceClient

ALICE, BOB = "C1001", "C1002"


@dataclass
class Running:
    """A service under test."""

    url: str
    app: Any
    folder: Path
    tokens: Tokens

    def client(self, name: str = ALICE, **options: Any) -> ServiceClient:
        return ServiceClient(self.url, self.tokens.issue(name), **options)

    def http(self, name: str | None = ALICE) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens.issue(name)}"} if name else {}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20)

    @property
    def service(self) -> Any:
        return self.app.state.service

    def run(self, message: str, name: str = ALICE, thread_id: str | None = None) -> tuple[str, list[Received]]:
        """One run from beginning to end: its id and what it told."""

        async def go() -> tuple[str, list[Received]]:
            async with self.client(name) as client:
                thread = thread_id or await client.open_thread()
                run_id = await client.start(thread, message=message)
                return run_id, [event async for event in client.events(run_id)]

        return asyncio.run(go())


@contextmanager
def running(app: Any, folder: Path) -> Iterator[Running]:
    """Serve an application in a thread, with the real protocol on a real port."""
    import uvicorn

    from stage3_agents_llmops.agent.service.server import PatientProtocol, bind

    listening = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http=PatientProtocol, ws="none", log_config=None, lifespan="on", timeout_keep_alive=75,
                            timeout_graceful_shutdown=5)  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    port = listening.getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", app, folder, Tokens.open(folder))
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        assert not thread.is_alive()


def order_of(shop: Path, customer_id: str) -> str:
    from stage3_agents_llmops.agent.shop import Shop

    return Shop(shop).orders(customer_id)[0].order_id


def operator(service: Running) -> ServiceClient:
    return service.client(OPERATOR)


def free_connection(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)
