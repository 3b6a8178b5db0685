"""The mini engine behind OpenAI's HTTP API.

    GET  /health                 200 while it computes, 503 afterwards
    GET  /v1/models              every model under two names, the second tells its weights
    POST /v1/completions         a text goes on; whole, or streamed as server-sent events
    POST /v1/chat/completions    the same for messages
    GET  /metrics                Prometheus, under vLLM's names

Refused: 400 with the parameter and the numbers, 404 for another model, 413 over 1 MB, 429 with Retry-After when too
many wait. A client that goes away takes its request with it: the blocks are free before the next step.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from labkit.checkpoint_hash import checkpoint_sha256, served_id
from labkit.errors import LabError
from labkit.progress import console
from stage2_rag_finetune_deploy.serving.mini_engine.async_engine import AsyncEngine, EngineStopped, Overloaded, Stream
from stage2_rag_finetune_deploy.serving.mini_engine.engine import Engine, EngineConfig
from stage2_rag_finetune_deploy.serving.mini_engine.engine_metrics import EngineMetrics
from stage2_rag_finetune_deploy.serving.openai_protocol import (
    LARGEST_BODY,
    ApiError,
    Asked,
    Usage,
    Writer,
    event,
    parse,
)
from stage2_rag_finetune_deploy.serving.vllm_command import Serving

MAX_WAITING = 64  # requests that may wait beyond those that run
RETRY_AFTER = 1  # seconds
STOPPED = "the server is stopping"


@dataclass
class ServedModel:
    """One model: its names, the hash of its weights, its engine."""

    name: str
    sha256: str
    root: str
    engine: AsyncEngine
    parent: str | None = None

    @property
    def names(self) -> tuple[str, str]:
        """What clients may call it."""
        return self.name, served_id(self.name, self.sha256)


def make_app(models: list[ServedModel]) -> FastAPI:
    """The web application over started engines; its shutdown stops them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for model in models:
            model.engine.stop(STOPPED)

    app = FastAPI(title="Mini engine", version="1", lifespan=lifespan)
    by_name = {name: model for model in models for name in model.names}
    started = int(time.time())

    @app.get("/health")
    def health() -> Response:
        dead = [str(model.engine.stopped) for model in models if model.engine.stopped]
        return JSONResponse({"status": dead[0] if dead else "ready"}, 503 if dead else 200)

    @app.get("/v1/models")
    def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [describe(name, model, started) for name, model in by_name.items()]}

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(models[0].engine.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await answer(request, by_name, chat=False)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await answer(request, by_name, chat=True)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        headers = {"Retry-After": str(RETRY_AFTER)} if error.status == 429 else None
        return JSONResponse(error.body(), error.status, headers)

    return app


def describe(name: str, model: ServedModel, created: int) -> dict[str, Any]:
    """A model in /v1/models: vLLM's fields and the hash."""
    return {
        "id": name, "object": "model", "created": created, "owned_by": "mini-engine", "root": model.root,
        "parent": model.parent, "max_model_len": model.engine.engine.max_model_len, "sha256": model.sha256,
    }  # fmt: skip


async def answer(request: Request, by_name: Mapping[str, ServedModel], chat: bool) -> Response:
    """Read, check and submit a request; then stream it or wait for it."""
    asked = parse(await read_body(request), chat)
    model = by_name.get(asked.model) if asked.model is not None else next(iter(by_name.values()))
    if model is None:
        raise ApiError(404, f"the model {asked.model} is not served; /v1/models lists {', '.join(by_name)}", "model")
    try:
        ids = await asyncio.to_thread(encode, model.engine.engine, asked)
        stream = model.engine.submit(ids, asked.params)
    except LabError as error:
        raise ApiError(400, f"{error.message} ({error.try_next})", "messages" if chat else "prompt") from None
    except Overloaded as error:
        raise ApiError(429, f"too many requests: {error}; try again in {RETRY_AFTER} s") from None
    except EngineStopped as error:
        raise ApiError(503, str(error)) from None
    writer = Writer(stream.request_id, asked.model or model.name, chat)
    if asked.stream:
        return Streamed(model.engine, stream, stream_events(model.engine, stream, writer, asked.include_usage))
    return await whole_answer(request, model.engine, stream, writer)


class Streamed(StreamingResponse):
    """Events whose request ends with them, also for a client that left before the first was written."""

    def __init__(self, engine: AsyncEngine, stream: Stream, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.engine, self.request_id = engine, stream.request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.engine.abort(self.request_id)


async def read_body(request: Request) -> bytes:
    """The body; reading stops where it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise ApiError(413, f"the request is larger than {LARGEST_BODY:,} bytes")
    return bytes(body)


def encode(engine: Engine, asked: Asked) -> list[int]:
    """Token ids of a prompt or of messages in the model's chat format."""
    if asked.chat is None:
        return asked.prompt if isinstance(asked.prompt, list) else engine.encode(asked.prompt)
    from jinja2 import TemplateError

    try:
        made = engine.tokenizer.apply_chat_template(asked.chat, add_generation_prompt=True, tokenize=False)
    except (TemplateError, ValueError) as error:
        raise ApiError(400, f"the model's chat format does not take these messages: {error}", "messages") from None
    return engine.tokenizer(made, add_special_tokens=False)["input_ids"]


async def stream_events(engine: AsyncEngine, stream: Stream, writer: Writer, usage: bool) -> AsyncIterator[str]:
    """The events of an answer; an answer that breaks off says so and has no [DONE]."""
    count, first = Usage(len(stream.prompt_ids)), True
    try:
        async with aclosing(engine.read(stream)) as outputs:
            async for output in outputs:
                count.completion_tokens, count.cached_tokens = count.completion_tokens + 1, output.cached_tokens
                if output.text or output.finish_reason or first:
                    yield writer.piece(output.text, output.finish_reason, output.stop_reason, first)
                first = False
    except EngineStopped as error:
        yield event(ApiError(503, str(error)).body())
        return
    if usage:
        yield writer.usage(count)
    yield "data: [DONE]\n\n"


async def whole_answer(request: Request, engine: AsyncEngine, stream: Stream, writer: Writer) -> Response:
    """Wait for the last token, or for the client to leave."""
    reading = asyncio.ensure_future(collect(engine, stream, writer))
    leaving = asyncio.ensure_future(until_gone(request))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            return JSONResponse(reading.result())
    except EngineStopped as error:
        raise ApiError(503, str(error)) from None
    finally:
        for task in (reading, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, EngineStopped):
                await task
    return Response(status_code=499)  # nobody reads it


async def collect(engine: AsyncEngine, stream: Stream, writer: Writer) -> dict[str, Any]:
    """All of an answer."""
    pieces, usage = [], Usage(len(stream.prompt_ids))
    async with aclosing(engine.read(stream)) as outputs:
        async for output in outputs:
            pieces.append(output.text)
    usage.completion_tokens, usage.cached_tokens = len(pieces), output.cached_tokens
    return writer.whole("".join(pieces), output.finish_reason or "", output.stop_reason, usage)


async def until_gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Server(uvicorn.Server):
    """uvicorn, which tells open streams at the first signal that they end; without that it would wait for them."""

    def __init__(self, config: uvicorn.Config, models: list[ServedModel]) -> None:
        super().__init__(config)
        self.models = models

    def handle_exit(self, sig: int, frame: Any) -> None:
        for model in self.models:
            model.engine.stop(STOPPED, wait=False)
        super().handle_exit(sig, frame)


def load_models(serving: Serving) -> list[ServedModel]:
    """Start an engine for the model and one for each adapter, merged; they share the memory for the cache."""
    folders: dict[str, Path | None] = {serving.name: None, **serving.adapters}
    models: list[ServedModel] = []
    for name, adapter in folders.items():
        config = EngineConfig(
            dtype=serving.dtype, adapter=adapter, max_model_len=serving.max_model_len,
            max_num_seqs=serving.max_num_seqs, kv_cache_bytes=(serving.kv_gib << 30) // len(folders),
        )  # fmt: skip
        engine = Engine(serving.model, config)
        engine.warm_up()
        metrics = EngineMetrics(name, models[0].engine.metrics if models else None)
        root = adapter or serving.model
        models.append(ServedModel(name, checkpoint_sha256(root), str(root), AsyncEngine(engine, MAX_WAITING, metrics),
                                  serving.name if adapter else None))  # fmt: skip
    return models


def serve_mini(serving: Serving) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code."""
    console.print(f"loading {serving.model}", markup=False, soft_wrap=True)
    models = load_models(serving)
    config = uvicorn.Config(
        make_app(models), host=serving.host, port=serving.port, log_level="warning", timeout_graceful_shutdown=10
    )
    url = f"http://{serving.host}:{serving.port}"
    for model in models:
        console.print(f"model {model.names[1]}", markup=False, soft_wrap=True)
    console.print(f"mini engine ready: {url}/v1   (Ctrl-C stops it)", markup=False, soft_wrap=True)
    server = Server(config, models)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after a clean end
        before = signal.getsignal(signal.SIGTERM)
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while uvicorn's own handlers are not set, or no more
            server.run()
        finally:
            signal.signal(signal.SIGTERM, before)
    for model in models:
        model.engine.stop(STOPPED)
    console.print("the mini engine is stopped, the port is free", markup=False)
    return 0
