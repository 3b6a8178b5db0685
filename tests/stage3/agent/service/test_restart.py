"""The process goes away: killed in mid-run, asked to stop, or started a second time."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from service_under_test import ALICE, Running, order_of, running
from small_service import small_app

from labkit.errors import LabError
from stage3_agents_llmops.agent.service.auth import Tokens
from stage3_agents_llmops.agent.service.server import bind
from stage3_agents_llmops.agent.service.sse_client import Received

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[4]


class Process:
    """small_service.py as a process; `url` answers when it is up."""

    def __init__(self, folder: Path, **options: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.options = folder, {"port": self.port, "pause": 0.03} | options
        self.start()

    def start(self) -> None:
        words = [sys.executable, str(HERE / "small_service.py"), str(self.folder), json.dumps(self.options)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.log = open(self.folder / "service.log", "ab")  # noqa: SIM115
        self.child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment)
        assert self.child.stdout.readline().strip() == str(self.port), (self.folder / "service.log").read_text()

    def running(self) -> Running:
        return Running(f"http://127.0.0.1:{self.port}", None, self.folder, Tokens.open(self.folder))

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()
        self.close()

    def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(30)
        self.close()
        return code

    def close(self) -> None:
        self.child.stdout.close()
        self.log.close()


def processes(folder: Path) -> Iterator[Callable[..., Process]]:
    """Services in processes of their own, on one state folder; those that still run are killed at the end."""
    started: list[Process] = []

    def start(**options: Any) -> Process:
        started.append(Process(folder, **options))
        return started[-1]

    yield start
    for one in started:
        if one.child.poll() is None:
            one.kill()


@pytest.fixture
def process(folder: Path) -> Iterator[Callable[..., Process]]:
    yield from processes(folder)


def test_killed_in_mid_run_the_same_run_goes_on_with_the_next_number_and_writes_once(
    process: Callable[..., Process], folder: Path
) -> None:
    service = process()
    order = order_of(folder / "shop.sqlite", ALICE)

    async def go() -> tuple[str, list[Received]]:
        events: list[Received] = []
        async with service.running().client() as client:
            run_id = await client.start(await client.open_thread(), message=f"invoice {order}")
            async for event in client.events(run_id):
                events.append(event)
                if len(events) == 15:  # the write came with the eleventh token
                    await asyncio.to_thread(service.kill)
                    await asyncio.to_thread(service.start)
        return run_id, events

    run_id, events = asyncio.run(go())
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {event.data["run_id"] for event in events} == {run_id}
    starts = [place for place, event in enumerate(events) if event.type == "start"]
    assert len(starts) == 2
    assert events[starts[1]].data["resumed"] is True
    told = [event.data["text"] for event in events[starts[1] :] if event.type == "token"]
    assert told == [f"w{number} " for number in range(20)]
    assert [event.type for event in events].count("end") == 1
    with sqlite3.connect(folder / "shop.sqlite") as shop:
        assert shop.execute("select count(*) from invoices where order_id = ?", (order,)).fetchone() == (1,)
        sql = "select count(*) from audit where tool = 'send_invoice' and idempotency_key is not null"
        assert shop.execute(sql).fetchone() == (1,)
    with service.running().http() as http:
        assert http.get(f"/runs/{run_id}").json()["attempts"] == 2
        assert "agent_runs_resumed_total 1.0" in http.get("/metrics").text


def test_a_run_that_kills_every_process_is_given_up(process: Callable[..., Process], folder: Path) -> None:
    service = process()
    with service.running().http() as http:
        thread = http.post("/threads").json()["thread_id"]
        run_id = http.post(f"/threads/{thread}/runs", json={"message": "say 1000"}).json()["run_id"]
    service.kill()
    with sqlite3.connect(folder / "service.sqlite") as database:
        database.execute("update runs set attempts = 3")  # as if it had happened three times
    service.start()
    with service.running().http() as http:
        status = http.get(f"/runs/{run_id}").json()
        assert (status["status"], status["reason"]) == ("ended", "failed")
        assert "cut_off" in http.get(f"/runs/{run_id}/events").text
        assert http.post(f"/threads/{thread}/runs", json={"message": "say 1"}).status_code == 202


def test_asked_to_stop_it_tells_its_streams_frees_the_port_and_the_next_process_goes_on(
    process: Callable[..., Process], folder: Path
) -> None:
    service = process(grace=0.5, pause=0.05)

    async def go() -> tuple[str, list[Received], list[Received], bool]:
        async with service.running().client() as client:
            thread = await client.open_thread()
            run_id = await client.start(thread, message="say 100")
            short = await client.start(await client.open_thread(), message="say 4")

            begun = asyncio.Semaphore(0)

            async def watch() -> bool:
                async with client.http.stream("GET", f"/threads/{thread}/events") as response:
                    async for _ in response.aiter_lines():
                        begun.release()
                    return True

            async def tail(run: str) -> list[Received]:
                events = []
                async for event in client.stream(run):
                    events.append(event)
                    if len(events) == 1:
                        begun.release()
                return events

            readers = asyncio.gather(tail(run_id), tail(short), watch())
            for _ in range(3):
                await asyncio.wait_for(begun.acquire(), 10)
            service.child.send_signal(signal.SIGTERM)
            return run_id, *await readers

    run_id, long, short, watched = asyncio.run(go())
    assert (long[-1].type, long[-1].data["reason"], long[-1].id) == ("resync", "restarting", None)
    assert short[-1].type == "end"  # it had its grace
    assert watched
    assert service.child.wait(20) == 0
    service.close()
    bind("127.0.0.1", service.port).close()
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
    service.start()
    seen = long[-2].seq
    with service.running().http() as http:
        wanted = f"/runs/{run_id}/events"
        with http.stream("GET", wanted, headers={"Last-Event-ID": str(seen)}) as response:
            text = "".join(response.iter_text())
        assert text.startswith(f"id: {seen + 1}\n")
        assert text.count("event: end\n") == 1


def test_while_it_stops_nothing_new_is_taken(serve: Callable[..., Running]) -> None:
    small = serve(grace=2.0, pause=0.05)
    with small.http() as http:
        thread, other = (http.post("/threads").json()["thread_id"] for _ in range(2))
        http.post(f"/threads/{thread}/runs", json={"message": "say 20"})
        loop = small.service.runs.by_thread[thread].task.get_loop()
        loop.call_soon_threadsafe(small.service.begin_stop)
        time.sleep(0.1)
        answer = http.post(f"/threads/{other}/runs", json={"message": "say 1"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
        assert http.get("/health").json()["status"] == "stopping"


def test_a_cursor_whose_events_were_given_up_gets_resync_and_the_end(folder: Path) -> None:
    app = small_app(folder, keep_days=1e-9)
    with running(app, folder) as first:
        run_id, events = first.run("say 5")
    with running(app, folder) as second, second.http() as http:
        text = http.get(f"/runs/{run_id}/events", params={"after": 2}).text
        assert [line for line in text.split("\n") if line.startswith("event")] == ["event: resync", "event: end"]
        assert f'data: {{"oldest": {len(events)}, "reason": "expired"}}' in text
        assert http.get(f"/runs/{run_id}/events", params={"after": len(events)}).status_code == 204


def test_a_client_whose_service_never_comes_back_says_so(
    process: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stage3_agents_llmops.agent.service import sse_client

    monkeypatch.setattr(sse_client, "TRIES", 3)
    service = process(pause=0.2)

    async def go() -> None:
        async with service.running().client() as client:
            run_id = await client.start(await client.open_thread(), message="say 50")
            async for event in client.events(run_id):
                if event.type == "start":
                    await asyncio.to_thread(service.kill)

    with pytest.raises(LabError, match="does not come back"):
        asyncio.run(go())


def test_personal_data_reaches_no_log_and_no_file(process: Callable[..., Process], folder: Path) -> None:
    service = process()
    secrets = ["13812345678", "li.ming@example.com", "4111111111111111"]
    for first in ("say 2", "fail"):
        service.running().run(f"{first} {' '.join(secrets)}")
    with service.running().http() as http:
        http.get("/threads/th_1", params={"q": secrets[0]})
    service.stop()
    log = (folder / "service.log").read_text()
    assert "POST /threads/th_" in log
    assert "Traceback" in log  # of the run that failed
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith("shop")]
    assert len(files) >= 4
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path.name


def test_logs_are_masked_whoever_writes_them() -> None:
    code = """
import logging
from stage3_agents_llmops.agent.service.private_logs import private_logging
private_logging()
logging.getLogger("uvicorn.access").info('%s - "%s"', "1.2.3.4", "/x?q=13812345678")
try:
    int("li.ming@example.com")
except ValueError:
    logging.getLogger("anything").exception("cannot read %s", "13812345678")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "13812345678" not in done.stderr
    assert "li.ming" not in done.stderr
    assert done.stderr.count("[phone]") == 2
    assert "[email]" in done.stderr
