"""A service that misbehaves on demand: what the real one cannot be made to do in a test, the page must still survive.

It follows the service's calls and events, plays a list of events per run, and can refuse, break off, forget or mark up
its texts as hostile. Everything the real service can do is tested against the real service.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parents[4] / "stage3_agents_llmops" / "agent" / "page"
AGENTS = ("order_agent", "refund_agent", "product_agent", "complaint_agent")
PAIRS = (
    [("__start__", "guard"), ("guard", "classify"), ("classify", "supervisor")]
    + [("supervisor", agent) for agent in AGENTS]
    + [(agent, "supervisor") for agent in AGENTS]
    + [("supervisor", "human_handoff"), ("order_agent", "confirm"), ("refund_agent", "confirm"), ("confirm", "act")]
    + [("act", "generate"), ("product_agent", "retrieve"), ("retrieve", "generate"), ("supervisor", "generate")]
    + [("generate", "check"), ("check", "__end__"), ("human_handoff", "__end__")]
)
Step = tuple[str, dict[str, Any]]


def answer(text: str, path: tuple[str, ...] = ("guard", "classify", "supervisor", "generate", "check")) -> list[Step]:
    """The events of a plain answer."""
    phases = ("start", "end")
    nodes = [("node", {"name": name, "agent": None, "phase": phase, "ms": 4}) for name in path for phase in phases]
    words = [("token", {"text": word + " "}) for word in text.split(" ")]
    return [("start", {"understander": "classifier", "wording": "templates"}), *nodes, *words,
            ("end", {"reason": "answered", "text": text})]  # fmt: skip


@dataclass
class Run:
    """One run: its events as they come to lie in the log, and how many of them a reader may see."""

    run_id: str
    thread_id: str
    steps: list[Step]
    released: int
    log: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)


class StandIn:
    """The service. Tests set `script`, `gap` and the faults; `hold` keeps events back until `let(n)`."""

    def __init__(self) -> None:
        self.script: list[list[Step]] = []
        self.gap, self.hold, self.break_after, self.oldest = 0.0, False, 0, 1
        self.refuse: tuple[int, dict[str, Any], dict[str, str]] | None = None
        self.lose_answers = 0  # so many POSTs are carried out, and their answer is lost
        self.runs: dict[str, Run] = {}
        self.keys: dict[str, str] = {}
        self.threads: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.feedback: list[dict[str, Any]] = []

    def let(self, run_id: str, count: int) -> None:
        """Let readers see so many events of a held run, which may be about to begin."""
        deadline = time.monotonic() + 20
        while run_id not in self.runs and time.monotonic() < deadline:
            time.sleep(0.01)
        self.runs[run_id].released = count

    def said(self, thread_id: str) -> list[str]:
        """What the customer said."""
        return [message["text"] for message in self.threads[thread_id]["messages"] if message["role"] == "customer"]

    def create(self, thread_id: str, body: dict[str, Any]) -> str:
        thread = self.threads[thread_id]
        steps = self.script.pop(0) if self.script else answer("Understood.")
        run = Run(f"r{len(self.runs) + 1}", thread_id, steps, 0 if self.hold else len(steps))
        for seq, (name, data) in enumerate(steps, 1):
            run.log.append((seq, name, {"run_id": run.run_id, "seq": seq, "at": time.time(), **data}))
        self.runs[run.run_id] = run
        if "message" in body:
            said = {"role": "customer", "text": body["message"], "run_id": run.run_id, "citations": []}
            thread["messages"].append(said)
        text = next((data.get("text") for name, data in reversed(steps) if name == "end"), "")
        citations = [data for name, data in steps if name == "citation"]
        reply = {"role": "agent", "text": text, "run_id": run.run_id, "citations": citations}
        thread["messages"].append(reply)
        thread["proposal"] = next((data for name, data in steps if name == "interrupt"), None)
        thread["human"] = any(name == "human" for name, _ in steps)
        return run.run_id

    async def events(self, run: Run, after: int) -> AsyncIterator[str]:
        if after + 1 < self.oldest:
            after = self.oldest - 1
            yield f"event: resync\ndata: {json.dumps({'oldest': self.oldest, 'reason': 'expired'})}\n\n"
        sent = 0
        for seq, name, data in run.log:
            if seq <= after:
                continue
            while seq > run.released:
                yield ": held\n\n"
                await asyncio.sleep(0.02)
            yield f"id: {seq}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
            sent += 1
            if sent == self.break_after:
                return
            await asyncio.sleep(self.gap)


def build(service: StandIn) -> FastAPI:
    """The service's calls over HTTP."""
    app = FastAPI()

    @app.middleware("http")
    async def note(request: Request, call_next):
        service.seen.append((request.method, request.url.path, dict(request.headers)))
        return await call_next(request)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "understander": "classifier", "wording": "templates", "model": None}

    @app.get("/graph")
    def graph() -> dict[str, Any]:
        nodes = list(dict.fromkeys(name for pair in PAIRS for name in pair))
        return {"nodes": [{"id": name} for name in nodes], "edges": [{"source": a, "target": b} for a, b in PAIRS]}

    @app.get("/demo/customers")
    def customers() -> dict[str, Any]:
        people = [("C1001", "Ada Lovelace", "en"), ("C1002", "王小明", "zh")]
        listed = [{"customer_id": i, "name": n, "language": lang, "token": f"{i}.t"} for i, n, lang in people]
        return {"customers": listed, "operator": {"token": "operator.t"}}

    @app.get("/threads")
    def threads() -> dict[str, Any]:
        listed = [
            {
                "thread_id": name,
                "title": thread["messages"][0]["text"][:60],
                "updated_at": 1.0,
                "human": thread["human"],
            }
            for name, thread in service.threads.items()
            if thread["messages"]
        ]
        return {"threads": listed[::-1]}

    @app.get("/operator/queue")
    def queue() -> dict[str, Any]:
        return {"queue": []}

    @app.post("/threads", status_code=201)
    def new_thread() -> dict[str, Any]:
        name = f"t{len(service.threads) + 1}"
        service.threads[name] = {"thread_id": name, "messages": [], "slots": {}, "proposal": None, "human": False}
        return {"thread_id": name}

    @app.get("/threads/{name}")
    def thread(name: str) -> Response:
        if name not in service.threads:
            return JSONResponse({"error": "no such thread", "try": "start a new one"}, 404)
        running = [run for run in service.runs.values() if run.thread_id == name and run.released < len(run.log)]
        run = {"run_id": running[-1].run_id, "last_seq": running[-1].released} if running else None
        return JSONResponse({**service.threads[name], "run": run})

    @app.post("/threads/{name}/runs", status_code=202)
    async def new_run(name: str, request: Request) -> Response:
        if service.refuse:
            status, body, headers = service.refuse
            return JSONResponse(body, status, headers=headers)
        key = request.headers.get("idempotency-key", "")
        if key not in service.keys:
            service.keys[key] = service.create(name, await request.json())
        if service.lose_answers:
            service.lose_answers -= 1
            return StreamingResponse(broken(), media_type="application/json", headers={"content-length": "100"})
        return JSONResponse({"run_id": service.keys[key]}, 202)

    @app.get("/runs/{name}/events")
    async def events(name: str, request: Request) -> Response:
        after = int(request.headers.get("last-event-id") or request.query_params.get("after") or 0)
        run = service.runs[name]
        if after >= len(run.log):
            return Response(status_code=204)
        return StreamingResponse(service.events(run, after), media_type="text/event-stream")

    @app.post("/runs/{name}/cancel", status_code=202)
    def cancel(name: str) -> dict[str, Any]:
        run = service.runs[name]
        seq = run.released + 1
        run.log[run.released :] = [(seq, "end", {"run_id": name, "seq": seq, "at": time.time(), "reason": "cancelled"})]
        run.released = seq
        return {}

    @app.post("/runs/{name}/feedback", status_code=204)
    async def feedback(name: str, request: Request) -> Response:
        service.feedback.append({"run_id": name, **await request.json()})
        return Response(status_code=204)

    app.mount("/static", StaticFiles(directory=PAGE))
    return app


async def broken() -> AsyncIterator[bytes]:
    """An answer that the line swallows: fewer bytes than promised."""
    yield b"{"
    raise ConnectionResetError("the line broke")


class Server:
    """uvicorn in a thread, on a port of its own; `stop` and `start` are a restart on the same port."""

    def __init__(self, service: StandIn) -> None:
        self.app, self.port = build(service), 0
        self.start()

    def start(self) -> None:
        where = {"host": "127.0.0.1", "port": self.port}
        self.server = uvicorn.Server(
            uvicorn.Config(self.app, **where, log_level="critical", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started:
            assert time.monotonic() < deadline, "the stand-in did not start"
            time.sleep(0.02)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
