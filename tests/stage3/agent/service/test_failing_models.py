"""A customer of the whole service while its model server is broken: real HTTP on both sides, the real graph between.

Understanding and wording both ask the broken server. What is allowed to happen: the right answer from the templates, or
a person, and an `end` in time. Each test names the bug that it catches.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from service_under_test import Running, running

sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))  # graph_stand_ins

from graph_stand_ins import KeywordUnderstander, SmallKnowledge, orders_like, writes  # noqa: E402

from stage2_rag_finetune_deploy.serving.server_process import free_port  # noqa: E402
from stage3_agents_llmops.agent.customer_service_agent import CustomerServiceAgent  # noqa: E402
from stage3_agents_llmops.agent.guardrails.pii import mask_pii  # noqa: E402
from stage3_agents_llmops.agent.service.app import ServiceOptions, make_app  # noqa: E402
from stage3_agents_llmops.agent.settings import AgentSettings  # noqa: E402
from stage3_agents_llmops.agent.shop import Shop  # noqa: E402
from stage3_agents_llmops.agent.understanding import build_understander  # noqa: E402
from stage3_agents_llmops.agent.understanding.understander import FallbackUnderstander  # noqa: E402

DEADLINE = 0.8  # seconds of one model call; the lab's own is 4
LIMIT = 10.0  # seconds that a customer may wait, with the lab's own deadline, too
INVENTED = json.dumps({"intent": "cancel_order", "slots": {"order_id": "ZZ999999"}})
Way = Callable[[BaseHTTPRequestHandler], None]


def reply(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def says(text: str) -> Way:
    return lambda handler: reply(handler, json.dumps({"choices": [{"message": {"content": text}}]}).encode())


def hangs(handler: BaseHTTPRequestHandler) -> None:
    handler.server.stop.wait(30)


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    while not handler.server.stop.wait(0.05):
        handler.wfile.write(b" ")


WAYS: dict[str, Way] = {
    "error": lambda handler: reply(handler, b"out of memory", 500),
    "hangs": hangs,
    "drips": drips,
    "teapot": says("I am a teapot {"),
    "html": lambda handler: reply(handler, b"<html>login</html>"),
    "empty": says(""),
    "invents": says(INVENTED),
    "promises": says("Good news! I have refunded you $500.00 and order ZZ999999 arrives on 2031-01-01."),
}


@contextmanager
def broken_server(way: Way) -> Iterator[str]:
    """An OpenAI-compatible server that lists a model and then fails."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self, json.dumps({"data": [{"id": "broken"}]}).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with suppress(OSError):  # the client has left: that is what the test is about
                way(self)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.stop = True, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()


@contextmanager
def service_with(endpoint: str, folder: Path) -> Iterator[Running]:
    """The service and the graph as they are, both model roles at the endpoint; keywords stand behind it."""
    settings = AgentSettings(folder / "shop.sqlite", folder, endpoint=endpoint, wording_endpoint=endpoint,
                             deadline=DEADLINE)  # fmt: skip
    reader = FallbackUnderstander(build_understander(settings).first, KeywordUnderstander())
    options = ServiceOptions(folder, settings.shop, lambda text: mask_pii(text).text)
    given = {"understander": reader, "knowledge": SmallKnowledge()}
    app = make_app(lambda: CustomerServiceAgent.open(settings, **given), options)
    with running(app, folder) as service:
        yield service


def talk(service: Running, customer: str, *messages: str) -> list[tuple[Any, float]]:
    """One conversation: of every message the events by type, and the seconds until its `end`."""

    async def go() -> list[tuple[Any, float]]:
        told = []
        async with service.client(customer) as client:
            thread = await client.open_thread()
            for message in messages:
                began = time.monotonic()
                events = await client.say(thread, message)
                told.append((events, time.monotonic() - began))
        return told

    return asyncio.run(go())


def found(folder: Path) -> tuple[str, Any]:
    return orders_like(Shop(folder / "shop.sqlite"), lambda order: order.status == "shipped")[0]


@pytest.mark.parametrize("way", WAYS)
def test_the_customer_gets_the_right_answer_in_time(folder: Path, way: str) -> None:
    """Catches: a wait without end, an invented order or refund let through, an empty answer, a run that fails."""
    customer, order = found(folder)
    with broken_server(WAYS[way]) as endpoint, service_with(endpoint, folder) as service:
        told = talk(service, customer, f"Where is {order.order_id}?", f"cancel {order.order_id}")
    for events, seconds in told:
        assert events[-1].type == "end" and events[-1].data["reason"] == "answered"
        assert seconds < LIMIT
        assert not {"ZZ999999", "500.00", "teapot", "2031"} & set(events[-1].data["text"].replace("$", " ").split())
    assert order.shipment.tracking in told[0][0][-1].data["text"]
    assert not writes(folder / "shop.sqlite")
    read_by = [event.data["source"] for events, _ in told for event in events if event.type == "intent"]
    assert read_by == ["rules", "rules"], "the control: the server was really the first to be asked"


def test_nobody_listens_there(folder: Path) -> None:
    """Catches: a server that is down taken for a reason to fail, or waited for."""
    customer, order = found(folder)
    with service_with(f"http://127.0.0.1:{free_port()}/v1", folder) as service:
        (events, seconds), (again, _) = talk(service, customer, f"Where is {order.order_id}?", "hello")
        assert service.http().get("/health").json()["understander"] == "keywords"
    assert order.shipment.tracking in events[-1].data["text"] and seconds < LIMIT
    assert [event.data["action"] for event in events if event.type == "guardrail"] == ["template"]
    assert again[-1].data["reason"] == "answered"


def test_who_is_not_understood_gets_a_person_in_time(folder: Path) -> None:
    """Catches: a customer left alone with a broken model and a reader that knows keywords only."""
    customer, _ = found(folder)
    with broken_server(WAYS["hangs"]) as endpoint, service_with(endpoint, folder) as service:
        told = talk(service, customer, "blargh frobnicate", "frobnicate, I say")
    assert [events[-1].data["reason"] for events, _ in told] == ["answered", "human"]
    assert all(seconds < LIMIT for _, seconds in told)
    assert any(event.type == "human" for event in told[1][0])
