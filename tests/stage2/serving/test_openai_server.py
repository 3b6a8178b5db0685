"""The mini engine behind HTTP: real sockets, a real engine, a tiny model. Each test names the bug that it catches."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect

from stage2_rag_finetune_deploy.serving.mini_engine.async_engine import AsyncEngine
from stage2_rag_finetune_deploy.serving.mini_engine.engine import Engine, EngineConfig
from stage2_rag_finetune_deploy.serving.mini_engine.engine_metrics import EngineMetrics
from stage2_rag_finetune_deploy.serving.mini_engine.sampling_params import SamplingParams
from stage2_rag_finetune_deploy.serving.openai_server import ServedModel, Streamed, load_models, make_app
from stage2_rag_finetune_deploy.serving.vllm_command import Serving

REPOSITORY = Path(__file__).resolve().parents[3]
SHA = "ab" * 32


class Running:
    """A server in a thread of this process."""

    def __init__(self, folder, max_num_seqs=8, max_waiting=16, **options) -> None:
        config = EngineConfig(dtype="fp32", device="cpu", max_model_len=512, max_num_seqs=max_num_seqs,
                              kv_cache_bytes=16 << 20, **options)  # fmt: skip
        self.engine = AsyncEngine(Engine(folder, config), max_waiting, EngineMetrics("tuned"))
        app = make_app([ServedModel("tuned", SHA, "folder", self.engine)])
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    @property
    def blocks(self):
        return self.engine.engine.scheduler.blocks

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def server(tiny_base):
    with closing(Running(tiny_base)) as running:
        yield running


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


def body(**more):
    usual = {"model": "tuned", "prompt": "Where is my parcel?", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    return usual | more


def events(text):
    """Server-sent events as JSON, without [DONE]; and whether it was there."""
    lines = [line[6:] for line in text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"], lines[-1] == "[DONE]"


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_the_pieces_join_to_the_whole(client, path):
    """Catches: text lost or repeated while streaming, usage wrong, no end, half a character in a piece."""
    asked = body(max_tokens=40)
    if "chat" in path:
        asked["messages"] = [{"role": "user", "content": asked.pop("prompt") + " 你好"}]
    whole = client.post(path, json=asked).json()
    streamed = client.post(path, json=asked | {"stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    pieces, done = events(streamed.text)
    choice = whole["choices"][0]
    said = choice["message"]["content"] if "chat" in path else choice["text"]
    texts = [each["choices"][0].get("delta", {}).get("content", "") if "chat" in path else each["choices"][0]["text"]
             for each in pieces if each["choices"]]  # fmt: skip
    assert "".join(texts) == said and done and len(texts) > 3
    assert pieces[-2]["choices"][0]["finish_reason"] == choice["finish_reason"] == "length"
    usages = [each["usage"] for each in (whole, pieces[-1])]
    assert [each["completion_tokens"] for each in usages] == [40, 40]
    assert usages[0]["total_tokens"] == usages[0]["prompt_tokens"] + 40 and len({each["id"] for each in pieces}) == 1
    assert whole["object"] == ("chat.completion" if "chat" in path else "text_completion")


def test_models_tell_the_weights(client):
    """Catches: a grader that cannot see which checkpoint answers."""
    listed = client.get("/v1/models").json()["data"]
    assert [each["id"] for each in listed] == ["tuned", f"tuned@sha256:{SHA[:16]}"]
    assert all(each["sha256"] == SHA and each["max_model_len"] == 512 for each in listed)
    answers = [client.post("/v1/completions", json=body(model=each["id"])).json() for each in listed]
    assert answers[0]["choices"] == answers[1]["choices"] and answers[1]["model"] == listed[1]["id"]
    assert client.get("/health").json() == {"status": "ready"}


@pytest.mark.parametrize(("change", "status", "words"), [
    ({"prompt": "x" * 600}, 400, "holds 512 tokens; the prompt has 600 and max_tokens is 12"),
    ({"max_tokens": 505}, 400, "max_tokens is 505"),
    ({"max_tokens": 0}, 400, "max_tokens cannot be 0"), ({"max_tokens": -1}, 400, "max_tokens cannot be -1"),
    ({"max_tokens": "many"}, 400, "max_tokens has to be a whole number"), ({"max_tokens": True}, 400, "max_tokens"),
    ({"temprature": 1}, 400, "unknown parameter temprature; did you mean temperature?"),
    ({"presence_penalty": 0.5}, 400, "presence_penalty is not supported"), ({"n": 2}, 400, "n cannot be 2"),
    ({"temperature": -1}, 400, "temperature cannot be -1"), ({"stop": [1]}, 400, "stop has to be text"),
    ({"model": "gpt-4"}, 404, "gpt-4 is not served; /v1/models lists tuned"), ({"prompt": []}, 400, "prompt is empty"),
    ({"prompt": ["a", "b"]}, 400, "one text"), ({"prompt": [99999999]}, 400, "does not know"),
    ({"prompt": None}, 400, "prompt is missing"), ({"stream": "yes"}, 400, "stream has to be true or false"),
], ids=str)  # fmt: skip
def test_bad_requests_get_one_clear_line(client, change, status, words):
    """Catches: a 500, a parameter ignored, an answer cut short without a word."""
    reply = client.post("/v1/completions", json=body(**change))
    error = reply.json()["error"]
    assert reply.status_code == error["code"] == status and words in error["message"]
    assert "\n" not in error["message"] and (status == 404 or error["param"])


@pytest.mark.parametrize("messages", [[], "hi", [{"role": "boss", "content": "x"}], [{"role": "user"}], [7]], ids=str)
def test_bad_messages(client, messages):
    """Catches: a template's traceback in place of what a message looks like."""
    reply = client.post("/v1/chat/completions", json={"messages": messages})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "messages"


def test_bodies_too_large_or_no_json(client):
    """Catches: a server that reads whatever it is sent into memory; a body of just 1 MB refused as too large."""
    for words in (b"{", b"[]", b"\xff\xfe", b""):
        assert client.post("/v1/completions", content=words).status_code == 400
    largest = json.dumps(body(prompt="")).encode()
    for size, status in ((1_000_000, 400), (1_000_001, 413)):
        padded = largest.replace(b'"prompt": ""', b'"prompt": "' + b"x" * (size - len(largest)) + b'"')
        reply = client.post("/v1/completions", content=padded)
        assert len(padded) == size and reply.status_code == status
        assert ("1,000,000 bytes" if status == 413 else "the prompt has 999,") in reply.json()["error"]["message"]
    assert client.post("/v1/completions", json=body()).status_code == 200


def test_parameters_without_effect_are_taken(client):
    """Catches: clients that always send defaults, refused."""
    asked = body(presence_penalty=0, logprobs=None, logit_bias={}, user="me", response_format={"type": "text"})
    assert client.post("/v1/completions", json=asked).status_code == 200


def test_stop_strings(client):
    """Catches: a stop string in the text, or half of one streamed; an answer lost because its stop never comes."""
    text = client.post("/v1/completions", json=body(max_tokens=40)).json()["choices"][0]["text"]
    stop = text[10:13]
    cut = client.post("/v1/completions", json=body(max_tokens=40, stop=["never there", stop])).json()["choices"][0]
    assert cut["text"] == text[: text.index(stop)] and (cut["finish_reason"], cut["stop_reason"]) == ("stop", stop)
    pieces, _ = events(client.post("/v1/completions", json=body(max_tokens=40, stop=stop, stream=True)).text)
    assert "".join(each["choices"][0]["text"] for each in pieces) == cut["text"]
    never = client.post("/v1/completions", json=body(max_tokens=40, stop=text + "and more")).json()["choices"][0]
    assert never["text"] == text and never["finish_reason"] == "length"


def test_overload_loses_nothing_and_refuses_the_rest(tiny_base):
    """Catches: requests lost, answered twice or mixed up; a queue without an end; a refusal without Retry-After."""

    async def flood(url):
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as client:
            asked = [body(prompt=f"{i} request {i * i}", stream=i % 2 == 0) for i in range(200)]
            return asked, await asyncio.gather(*(client.post("/v1/completions", json=each) for each in asked))

    with closing(Running(tiny_base, max_num_seqs=8, max_waiting=40, num_blocks=34)) as server:
        asked, replies = asyncio.run(flood(server.url))
        statuses = [reply.status_code for reply in replies]
        assert len(statuses) == 200 and set(statuses) == {200, 429} and statuses.count(200) >= 48
        assert all("Retry-After" in reply.headers for reply in replies if reply.status_code == 429)
        wait_until(lambda: server.engine.open_requests == 0 and server.blocks.num_free == 34)
        taken = [(each, reply) for each, reply in zip(asked, replies, strict=True) if reply.status_code == 200]
        texts, ids = [], []
        for each, reply in taken:
            pieces, done = events(reply.text) if each["stream"] else ([reply.json()], True)
            texts.append("".join(piece["choices"][0]["text"] for piece in pieces))
            ids.append(pieces[0]["id"])
            assert done and pieces[-1]["choices"][0]["finish_reason"] == "length"
        assert len(set(ids)) == len(ids) and len(set(texts)) > len(texts) / 2
        figures = httpx.get(server.url + "/metrics", trust_env=False).text
        ended = 'vllm:request_success_total{engine="0",finished_reason="length",model_name="tuned"}'
        assert f"{ended} {len(ids)}.0" in figures
        assert f'vllm:admission_rejections_total{{engine="0",model_name="tuned"}} {200 - len(ids)}.0' in figures
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:  # each got its own answer
            for (each, _), text in list(zip(taken, texts, strict=True))[::16]:
                again = client.post("/v1/completions", json=each | {"stream": False}).json()
                assert again["choices"][0]["text"] == text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_blocks_within_one_step(server, monkeypatch, stream):
    """Catches: an answer computed to its end for nobody. Steps are counted between the abort and the free blocks."""
    counters, engine = server.engine.engine.scheduler.counters, server.engine.engine
    asked, freed = [], []
    abort, end = server.engine.abort, engine.abort
    monkeypatch.setattr(server.engine, "abort", lambda name: (asked.append(counters.steps), abort(name)))

    def note(name):
        gone = end(name)
        if gone:
            freed.append((counters.steps, server.blocks.num_free))
        return gone

    monkeypatch.setattr(engine, "abort", note)
    wait_until(lambda: server.engine.open_requests == 0)
    free = server.blocks.num_free
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda: (time.sleep(0.01), step())[1])  # 480 tokens would be done too soon
    words = json.dumps(body(max_tokens=480, stream=stream)).encode()
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(words) + words)
        wait_until(lambda: server.blocks.num_free < free - 2)
    wait_until(lambda: freed)
    assert freed[0][0] - asked[0] <= 1 and freed[0][1] == free
    assert engine.unfinished == 0


def test_a_client_that_left_before_the_first_event(server):
    """Catches: a stream that nobody begins to read, whose request is computed to its end for nobody."""

    async def leave():
        stream = server.engine.submit([1, 2, 3], SamplingParams(max_tokens=480, ignore_eos=True))
        response = Streamed(server.engine, stream, aiter_nothing())
        with pytest.raises(ClientDisconnect):
            await response({"type": "http", "asgi": {"spec_version": "2.4"}}, None, reset)

    async def reset(message):
        raise ConnectionResetError

    async def aiter_nothing():
        yield ""

    wait_until(lambda: server.engine.open_requests == 0)
    asyncio.run(leave())
    assert server.engine.open_requests == 0
    wait_until(lambda: server.engine.engine.unfinished == 0, 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_step_reaches_every_client(tiny_base, monkeypatch):
    """Catches: a dead engine behind a server that says it is healthy, and clients that wait for it for ever."""
    with closing(Running(tiny_base)) as server:
        monkeypatch.setattr(server.engine.engine, "step", lambda: 1 / 0)
        with httpx.Client(base_url=server.url, timeout=10, trust_env=False) as client:
            streamed, done = events(client.post("/v1/completions", json=body(stream=True)).text)
            assert "ZeroDivisionError" in streamed[-1]["error"]["message"] and not done
            reply = client.post("/v1/completions", json=body())
            assert reply.status_code == client.get("/health").status_code == 503
            assert "the engine failed" in reply.json()["error"]["message"]


def test_an_adapter_beside_the_base(tiny_base, build, tmp_path):
    """Catches: the adapter's name answered by the base, or the base changed by the adapter; two models of one hash."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(build(0), LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    adapters, texts = {"tuned": tmp_path}, {}
    models = load_models(Serving(tiny_base, {}, "base", adapters=adapters, max_model_len=128, dtype="fp32"))
    with TestClient(make_app(models)) as client:
        listed = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        assert list(listed)[::2] == ["base", "tuned"] and listed["tuned"]["parent"] == "base"
        assert len({each["sha256"] for each in listed.values()}) == 2
        for name in listed:
            texts[name] = client.post("/v1/completions", json=body(model=name)).json()["choices"][0]["text"]
        assert len(set(texts.values())) == 2 and texts["base"] != texts["tuned"]
        figures = client.get("/metrics").text
        for name in ("base", "tuned"):
            assert f'vllm:generation_tokens_total{{engine="0",model_name="{name}"}} 24.0' in figures


@pytest.fixture
def start(tiny_base):
    """Start `serve` in a process of its own."""
    started = []

    def run(port):
        words = ["serve", "--engine", "mini", "--model", str(tiny_base), "--served-name", "tuned", "--port", str(port),
                 "--max-model-len", "1024", "--dtype", "fp32"]  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "stage2_rag_finetune_deploy.serving", *words], cwd=REPOSITORY,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
        started.append(process)
        url = f"http://127.0.0.1:{port}"

        def healthy():
            assert process.poll() is None, process.stdout.read()
            try:
                return httpx.get(url + "/health", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(healthy, 60)
        return process, url

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_killed_while_streaming(start):
    """Catches: clients that wait for ever or take half an answer for a whole one; a port or a process left behind."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    asked = body(max_tokens=1000, prompt="x", stream=True)
    process, url = start(port)
    with httpx.stream("POST", url + "/v1/completions", json=asked, timeout=20, trust_env=False) as reply:
        lines = reply.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["message"] == "the server is stopping"
    assert "data: [DONE]" not in rest and process.wait(20) == 0
    assert "port is free" in process.stdout.read()
    process, url = start(port)  # the port is free again, and it serves
    with httpx.stream("POST", url + "/v1/completions", json=asked, timeout=20, trust_env=False) as reply:
        next(lines := reply.iter_lines())
        process.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    process.wait(20)
    socket.create_server(("127.0.0.1", port)).close()  # nobody else holds it
