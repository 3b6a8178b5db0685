"""The RAG as a service: answers over HTTP, streamed over SSE, with figures for Prometheus and a page to ask from.

    GET  /               the page
    GET  /health         what is served
    POST /retrieve       {"question", "k"} -> {"hits": [{"id", "text", "score", ...}], "seconds"}
    POST /ask            {"question"} -> answer, refused, evidence, citations
    POST /ask/stream     the same as server-sent events: passages, token ..., answer, end (or error)
    GET  /metrics        Prometheus' text form

Models work on one question at a time (two cores gain nothing from two); a queue that is too long is refused with 503
in place of answers that come too late.
"""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.answering import Answer, Passage
from stage2_rag_finetune_deploy.rag.pipeline import LONGEST_QUESTION, Rag

PAGE = Path(__file__).with_name("page.html")
WAITING = 16  # questions that may wait before new ones are refused
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)


class RetrieveBody(BaseModel):
    """What /retrieve reads."""

    question: str = Field(min_length=1, max_length=LONGEST_QUESTION)
    k: int = Field(default=10, ge=1, le=100)
    where: dict[str, str] | None = Field(default=None, description="metadata that a passage must have")


class AskBody(BaseModel):
    """What /ask reads."""

    question: str = Field(min_length=1, max_length=LONGEST_QUESTION)
    where: dict[str, str] | None = None


class Busy(Exception):
    """Too many questions are waiting."""


class Figures:
    """What /metrics shows. A registry of its own, so that two services in one process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("rag_requests", "questions", ["path", "status"], registry=self.registry)
        self.refused = Counter("rag_refused", "questions without evidence", registry=self.registry)
        self.removed = Counter("rag_orders_removed", "sentences taken out of passages", registry=self.registry)
        self.waiting = Gauge("rag_waiting", "questions that wait or are answered", registry=self.registry)
        self.seconds = Histogram(
            "rag_seconds", "time of a stage", ["stage"], buckets=BUCKETS, registry=self.registry
        )  # fmt: skip


class Service:
    """A RAG, one question at a time."""

    def __init__(self, rag: Rag) -> None:
        self.rag, self.figures = rag, Figures()
        self.turn, self.count, self.counting = threading.Lock(), 0, threading.Lock()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for one's turn. Raises Busy when too many wait already."""
        with self.counting:
            if self.count >= WAITING:
                raise Busy
            self.count += 1
            self.figures.waiting.set(self.count)
        try:
            with self.turn:
                yield
        finally:
            with self.counting:
                self.count -= 1
                self.figures.waiting.set(self.count)

    def retrieve(self, question: str, k: int, where: dict[str, str] | None) -> tuple[list[Passage], float]:
        """Passages and the seconds they took."""
        with self.place():
            started = time.perf_counter()
            passages = self.rag.retrieve(question, k, where)
            seconds = time.perf_counter() - started
        self.figures.seconds.labels("retrieve").observe(seconds)
        return passages, seconds

    def events(self, question: str, where: dict[str, str] | None) -> Iterator[list[Passage] | str | Answer]:
        """What `Rag.events` gives, counted."""
        with self.place():
            started = time.perf_counter()
            for event in self.rag.events(question, where):
                if isinstance(event, list):
                    self.figures.seconds.labels("retrieve").observe(time.perf_counter() - started)
                elif isinstance(event, Answer):
                    self.figures.refused.inc(event.refused)
                    self.figures.removed.inc(len(event.removed))
                yield event
            self.figures.seconds.labels("whole").observe(time.perf_counter() - started)

    def ask(self, question: str, where: dict[str, str] | None) -> Answer:
        """The last event."""
        return [event for event in self.events(question, where) if isinstance(event, Answer)][-1]


def show(passage: Passage) -> dict[str, Any]:
    """A passage as JSON."""
    place = {"start": passage.start, "end": passage.end}
    return {"id": passage.id, "text": passage.text, "score": passage.score, **place, "metadata": passage.metadata}


def make_app(rag: Rag) -> FastAPI:
    """The web application around an opened RAG."""
    app = FastAPI(title="Course RAG", version="1", description=(__doc__ or "").split("\n")[0])
    service = Service(rag)
    app.state.service = service

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ready", **rag.facts}

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(service.figures.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/retrieve")
    async def retrieve(body: RetrieveBody) -> dict[str, Any]:
        passages, seconds = await run_in_threadpool(service.retrieve, body.question, body.k, body.where)
        return {"hits": [show(passage) for passage in passages], "seconds": round(seconds, 4)}

    @app.post("/ask")
    async def ask(body: AskBody) -> dict[str, Any]:
        return (await run_in_threadpool(service.ask, body.question, body.where)).as_json()

    @app.post("/ask/stream", response_class=EventSourceResponse)
    async def stream(body: AskBody) -> AsyncIterator[ServerSentEvent]:
        try:
            async for event in iterate_in_threadpool(service.events(body.question, body.where)):
                yield as_event(event)
        except Busy:
            yield ServerSentEvent(event="error", data={"error": "too many questions are waiting", "try": "again soon"})
        except LabError as error:
            yield ServerSentEvent(event="error", data={"error": error.message, "try": error.try_next})
        yield ServerSentEvent(event="end", data={})

    add_errors(app, service)
    return app


def as_event(event: list[Passage] | str | Answer) -> ServerSentEvent:
    """One step as a server-sent event."""
    if isinstance(event, list):
        return ServerSentEvent(event="passages", data={"hits": [show(passage) for passage in event]})
    if isinstance(event, Answer):
        return ServerSentEvent(event="answer", data=event.as_json())
    return ServerSentEvent(event="token", data={"text": event})


def add_errors(app: FastAPI, service: Service) -> None:
    """Every error as {"error", "try"}, and every request counted."""

    @app.exception_handler(LabError)
    async def wrong(request: Request, error: LabError) -> JSONResponse:
        return JSONResponse({"error": error.message, "try": error.try_next}, 422)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> JSONResponse:
        content = {"error": "too many questions are waiting", "try": "again in a few seconds"}
        return JSONResponse(content, 503, {"Retry-After": "2"})

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        form = '{"question": "...", "k": 10}' if request.url.path == "/retrieve" else '{"question": "..."}'
        return JSONResponse({"error": f"{place}: {first['msg']}", "try": form}, 422)

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        if request.method == "POST":
            service.figures.requests.labels(request.url.path, response.status_code).inc()
        return response
