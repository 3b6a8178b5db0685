"""The client against real servers on loopback that hang, drip, lie or die. Each test names the bug that it catches."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.server_process import free_port
from stage3_agents_llmops.agent.model_client import Circuit, ModelClient, ModelUnavailable
from stage3_agents_llmops.agent.understanding import Understanding, build_understander
from stage3_agents_llmops.agent.understanding.endpoint import EndpointUnderstander, nonsense
from stage3_agents_llmops.agent.understanding.understander import FallbackUnderstander

DEADLINE = 1.0
MESSAGES = [{"role": "user", "content": "hi"}]
LABEL = '{"intent": "cancel_order", "slots": {"order_id": "KM204817"}}'


def chat_answer(text, **more):
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return json.dumps({"choices": [{"message": {"content": text}}], "usage": usage} | more).encode()


class Handler(BaseHTTPRequestHandler):
    """`server.behaviour` says how it answers; `server.requests` counts, `server.bodies` keeps what was asked."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer(json.dumps({"data": [{"id": "tuned"}]}).encode())

    def do_POST(self):
        self.server.requests += 1
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.headers.append(dict(self.headers))
        with contextlib.suppress(OSError):  # the client has left: that is what the test is about
            self.server.behaviour(self)

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def hangs(handler):
    handler.server.stop.wait(20)


def drips(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    while not handler.server.stop.wait(0.1):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def floods(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def breaks_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.connection.shutdown(socket.SHUT_RDWR)


def says(text, **more):
    return lambda handler: handler.answer(chat_answer(text, **more))


def sends(body, status=200):
    return lambda handler: handler.answer(body, status)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests, server.bodies, server.headers, server.stop = 0, [], [], threading.Event()
    server.behaviour = says(LABEL)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


def ask(url, times=1, **options):
    """The outcomes of questions one after the other: replies, or the codes of failures."""

    async def run():
        client = ModelClient(url, deadline=DEADLINE, **options)
        outcomes = []
        for _ in range(times):
            try:
                outcomes.append(await client.chat(MESSAGES, max_tokens=8))
            except ModelUnavailable as error:
                outcomes.append(error.code)
        await client.close()
        return outcomes

    return asyncio.run(run())


def test_a_good_answer(server):
    """Catches: a lost usage, a model that is not asked for, a key that is not sent."""
    server.behaviour = says("hello")
    reply, = ask(server.url + "/v1", api_key="secret")
    assert reply.text == "hello" and reply.usage == {"input_tokens": 7, "output_tokens": 3} and reply.seconds > 0
    assert server.bodies[0]["model"] == "tuned" == reply.model and server.bodies[0]["max_tokens"] == 8
    assert server.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(("behaviour", "code"), [
    (hangs, "slow"), (drips, "slow"), (floods, "nonsense"), (breaks_off, "down"),
    (sends(b"oops", 500), "refused"), (sends(b"{}", 404), "refused"), (sends(b"<html>", 200), "nonsense"),
    (sends(b"[1]"), "nonsense"), (sends(b"{}"), "nonsense"), (says(""), "nonsense"), (says(None), "nonsense"),
    (sends(b"\xff\xfe"), "nonsense"), (sends(b"[" * 100_000), "nonsense"),
])  # fmt: skip
def test_every_failure_ends_within_the_deadline(server, behaviour, code):
    """Catches: a server that drips a byte every 0.1 s and never meets a timeout that counts from byte to byte."""
    server.behaviour = behaviour
    began = time.monotonic()
    assert ask(server.url) == [code]
    assert time.monotonic() - began < DEADLINE + 3


def test_nobody_there():
    """Catches: a refused connection that is retried until the customer leaves."""
    began = time.monotonic()
    assert ask(f"http://127.0.0.1:{free_port()}") == ["down"]
    assert time.monotonic() - began < DEADLINE + 3


def test_after_two_failures_the_server_is_left_alone(server):
    """Catches: every customer waiting for a server that is known to hang."""
    server.behaviour = hangs
    began = time.monotonic()
    assert ask(server.url, times=6, model="tuned") == ["slow", "slow", *["resting"] * 4]
    assert server.requests == 2 and time.monotonic() - began < 2 * DEADLINE + 3


def test_the_circuit_by_hand():
    """Catches: an open circuit that never closes, and a half-open one that lets everybody through."""
    now = [0.0]
    circuit = Circuit(limit=2, rest=15, clock=lambda: now[0])
    circuit.failed()
    assert circuit.state == "closed" and circuit.allows()
    circuit.failed()
    assert circuit.state == "open" and not circuit.allows()
    now[0] = 14.9
    assert not circuit.allows()
    now[0] = 15.0
    assert circuit.state == "half-open" and circuit.allows() and not circuit.allows()
    circuit.failed()
    assert circuit.state == "open" and not circuit.allows()
    now[0] = 30.0
    assert circuit.allows()
    circuit.succeeded()
    assert circuit.state == "closed" and circuit.allows() and circuit.failures == 0


def test_one_failure_between_successes_does_not_open_it():
    """Catches: failures that are counted over the whole life of the server."""
    circuit = Circuit()
    for _ in range(5):
        circuit.failed()
        circuit.succeeded()
    assert circuit.state == "closed"


def test_a_cancelled_request_is_no_failure(server):
    """Catches: customers who press stop, and so open the circuit for everybody; and one who leaves it half-open."""
    server.behaviour = hangs

    async def run():
        client = ModelClient(server.url, "tuned", deadline=30)
        for _ in range(3):
            task = asyncio.create_task(client.chat(MESSAGES))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert client.circuit.state == "closed"
        client.circuit.opened = time.monotonic() - 60
        task = asyncio.create_task(client.chat(MESSAGES))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.circuit.allows()
        await client.close()

    asyncio.run(run())


def test_a_wrong_address_is_one_line():
    """Catches: a traceback for a typing error in the settings."""
    with pytest.raises(LabError, match="no address"):
        ModelClient("localhost:8000")


# --- understanding by an endpoint -------------------------------------------------------------------------------------


class Second:
    """What takes over; a rule of one line stands for the classifier, which has its own tests."""

    name = "second"

    async def understand(self, text, language=None):
        return Understanding("order_status", 0.5, {}, language or "en", "classifier", False)

    async def close(self):
        pass


def understand(server, text, times=1):
    async def run():
        client = ModelClient(server.url, "tuned", deadline=DEADLINE)
        understander = FallbackUnderstander(EndpointUnderstander(client), Second())
        found = [await understander.understand(text) for _ in range(times)]
        name = understander.name
        await understander.close()
        return found, name

    return asyncio.run(run())


def test_the_endpoint_answers(server):
    """Catches: another prompt than the model was tuned on."""
    (found,), name = understand(server, "cancel KM204817")
    assert found.source == "endpoint" and found.intent == "cancel_order" and found.slots == {"order_id": "KM204817"}
    assert name == "tuned" and server.bodies[0]["messages"][0]["content"].startswith("Answer in JSON")


@pytest.mark.parametrize("behaviour", [
    hangs, drips, sends(b"oops", 500), says("I am a teapot"), says('{"intent": "make_tea", "slots": {}}'),
    says('{"intent": "greeting", "slots": {"order_id": "KM204817"}}'), says('{"intent": "cancel_order"'),
    says('{"intent": "cancel_order", "slots": {"order_id": "KM999999"}}'),
    says('{"intent": "cancel_order", "slots": []}'),
    says('{"intent": "return_item", "slots": {"reason": "because"}}'), says("[" * 5000), says('"KM204817"'),
])  # fmt: skip
def test_nonsense_and_silence_fall_back(server, behaviour):
    """Catches: an invented order number that is acted on, and a customer who waits for a dead server."""
    server.behaviour = behaviour
    began = time.monotonic()
    found, name = understand(server, "cancel KM204817", times=4)
    assert [one.source for one in found] == ["classifier"] * 4 and name == "second"
    assert server.requests == 2 and time.monotonic() - began < 2 * DEADLINE + 3


def test_a_value_must_have_been_written():
    """Catches: slots that a model made up; case, width and spaces do not matter."""
    label = {"intent": "cancel_order", "slots": {"order_id": "km204817"}}
    assert nonsense(label, "Cancel KM204817!") is None
    assert "not in the message" in nonsense(label, "Cancel my order!")
    assert nonsense({"intent": "return_item", "slots": {"reason": "damaged"}}, "take it back") is None


def test_a_long_message_is_not_sent_and_is_no_failure_of_the_server(server):
    """Catches: 50 kB for a model tuned on sentences; and a circuit that such a message opens."""
    found, name = understand(server, "cancel KM204817 " * 500, times=3)
    assert [one.source for one in found] == ["classifier"] * 3 and server.requests == 0 and name == "tuned"


def test_without_an_endpoint_there_is_only_the_classifier():
    """Catches: settings without an endpoint that wait for one."""
    settings = SimpleNamespace(endpoint=None, model=None, api_key=None, deadline=4.0)
    assert build_understander(settings).name == "classifier"
    with pytest.raises(LabError):
        build_understander(SimpleNamespace(endpoint="nowhere", model=None, api_key=None, deadline=4.0))
