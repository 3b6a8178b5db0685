"""Backends and gateways that go away, and what their customers notice of it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_under_test import ALICE, gateway_running, running, shop_running, small_app, urls
from service_under_test import Running
from test_gateway import begin, settle, until
from test_restart import Process, processes

from stage3_agents_llmops.agent.service.auth import ADMIN, Tokens
from stage3_agents_llmops.monitoring import RunLog

ROOT = Path(__file__).parents[3]


@pytest.fixture
def process(folder: Path) -> Iterator[Callable[..., Process]]:
    """Services in processes of their own, on one state folder."""
    yield from processes(folder)


def url(one: Process) -> str:
    return f"http://127.0.0.1:{one.port}"


def nowhere() -> str:
    """An address at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_killed_backends_run_goes_on_at_another_and_the_customer_sees_one_stream(
    process: Callable[..., Process], tmp_path: Path, folder: Path
) -> None:
    old, new = process(instance="old", watch_seconds=0.2), process(instance="new", watch_seconds=0.2)

    async def go() -> list[Any]:
        async with gateway.client() as client:
            run_id = await client.start(await client.open_thread(), message="say 40")
            events = []
            async for event in client.stream(run_id):  # one connection
                events.append(event)
                if len(events) == 10:
                    await asyncio.to_thread(old.kill)
            return events

    with gateway_running(tmp_path, folder) as gateway:
        gateway.put({"stable": url(old), "canary": url(new)}, {"stable": 100, "canary": 0})
        events = asyncio.run(go())
        (row,) = gateway.rows()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "end" and [event.type for event in events].count("end") == 1
    assert (row.status, row.arm) == ("answered", "stable")


def test_a_backend_that_restarts_is_waited_for(
    process: Callable[..., Process], tmp_path: Path, folder: Path
) -> None:
    only = process(instance="only")

    async def go() -> list[Any]:
        async with gateway.client() as client:
            run_id = await client.start(await client.open_thread(), message="say 30")
            events = []
            async for event in client.stream(run_id):
                events.append(event)
                if len(events) == 8:
                    await asyncio.to_thread(only.kill)
                    await asyncio.to_thread(only.start)
            return events

    with gateway_running(tmp_path, folder) as gateway:
        gateway.put({"stable": url(only)}, {"stable": 100})
        events = asyncio.run(go())
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "end"


def test_an_arm_that_does_not_answer_costs_it_a_row_and_no_customer_anything(tmp_path: Path, folder: Path) -> None:
    with running(small_app(folder), folder) as backend, gateway_running(tmp_path, folder) as gateway:
        gateway.put({"stable": backend.url, "canary": nowhere()}, {"stable": 0, "canary": 100})
        _, events = gateway.run("say 3")
        assert events[-1].data["reason"] == "answered"
        refused, answered = sorted(gateway.rows(), key=lambda row: row.status, reverse=True)
        assert (refused.arm, refused.release, refused.status, refused.error) == (
            "canary", "cd34", "refused", "unreachable")  # fmt: skip
        assert (answered.arm, answered.status) == ("stable", "answered")
        assert gateway.gateway.router.exposures.rows() == []  # nobody met the canary
        with gateway.http(None) as http:
            assert 'gateway_runs_rescued_total{arm="canary"} 1.0' in http.get("/metrics").text


def test_a_drained_backend_hands_its_customers_over(tmp_path: Path, folder: Path) -> None:
    """Catches: a drain that drops a stream, or turns a customer away."""
    with shop_running(tmp_path, folder, pause=0.02) as (gateway, backends):
        gateway.put(urls(backends), {"stable": 100, "canary": 0})
        _, long = begin(gateway, "say 60")
        with backends["stable"].http(ADMIN) as admin:
            assert admin.post("/admin/drain").json()["runs"] == 1
        run_id, events = gateway.run("say 2")  # the routes still say stable
        assert gateway.gateway.recorder.run_log.get(run_id).arm == "canary"
        with gateway.http() as http:
            assert http.get(f"/runs/{long}/events").text.count("event: token") == 60
        assert [row.status for row in gateway.rows()].count("refused") == 0
        asyncio.run(until(backends["stable"].service.drained.is_set))


def test_with_nobody_there_the_refusal_is_honest_and_counted(tmp_path: Path, folder: Path) -> None:
    with gateway_running(tmp_path, folder) as gateway, gateway.http() as http:
        gateway.put({"stable": nowhere()}, {"stable": 100})
        answer = http.post("/threads/th_1/runs", json={"message": "hello"})
        assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (502, "unreachable", "2")
        assert http.get("/runs/run_1/events").status_code == 502
        assert http.post("/threads").status_code == 502
        rows = gateway.rows()
        assert {(row.status, row.unit) for row in rows} == {("refused", ALICE)}
        assert [row.error for row in rows if not row.thread_id] == ["502"]  # who could not even open a conversation


def test_a_run_that_nobody_knows_any_more_ends_with_an_error(
    process: Callable[..., Process], tmp_path: Path, folder: Path
) -> None:
    only = process(instance="only")
    with gateway_running(tmp_path, folder) as gateway, gateway.http() as http:
        gateway.put({"stable": url(only)}, {"stable": 100})
        gateway.gateway.follower.lost_seconds = 1.0
        _, run_id = begin(gateway, "say 200")
        only.kill()  # and nobody takes its runs over
        text = http.get(f"/runs/{run_id}/events").text
        lines = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        assert lines[-2]["code"] == "lost" and lines[-2]["retryable"] is True
        assert lines[-1]["reason"] == "failed"
        (row,) = gateway.rows()
        assert (row.status, row.arm, row.run_id) == ("lost", "stable", run_id)


# -- the gateway itself


class GatewayProcess:
    """The gateway as a command."""

    def __init__(self, home: Path, folder: Path, port: int) -> None:
        self.home, self.folder, self.port = home, folder, port
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "stage3_agents_llmops.pipeline", "gateway", "--home", str(self.home), "--port",
                 str(self.port), "--no-monitor", "--no-traces"]  # fmt: skip
        self.log = open(self.home / "gateway.log", "ab")  # noqa: SIM115
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.child = subprocess.Popen(words, stdout=self.log, stderr=self.log, cwd=ROOT, env=environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.child.poll() is None:
            with suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False)
                return
            time.sleep(0.1)
        raise AssertionError((self.home / "gateway.log").read_text())

    def running(self) -> Running:
        return Running(f"http://127.0.0.1:{self.port}", None, self.folder, Tokens.open(self.folder))

    def put(self, backend: str) -> None:
        arm = {"name": "stable", "release": "ab12", "backend": backend, "weight": 100}
        headers = {"Authorization": f"Bearer {(self.home / 'gateway' / 'token').read_text()}"}
        answer = httpx.put(f"http://127.0.0.1:{self.port}/admin/routes", json={"number": 0, "arms": [arm]},
                           headers=headers, trust_env=False)  # fmt: skip
        assert answer.status_code == 200, answer.text

    def end(self, number: int) -> int:
        if self.child.poll() is None:
            self.child.send_signal(number)
        code = self.child.wait(30)
        self.log.close()
        return code


@pytest.fixture
def gateway_process(tmp_path: Path, folder: Path) -> Iterator[GatewayProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = GatewayProcess(tmp_path, folder, port)
    yield one
    one.end(signal.SIGKILL)


def test_a_killed_gateway_goes_on_where_it_was(gateway_process: GatewayProcess, folder: Path) -> None:
    """Its routes, the customers' streams, and the rows of runs that it had begun."""

    async def go() -> list[Any]:
        async with gateway_process.running().client() as client:
            run_id = await client.start(await client.open_thread(), message="say 40")
            events = []
            async for event in client.events(run_id):  # comes back by itself, with its cursor
                events.append(event)
                if len(events) == 8:
                    await asyncio.to_thread(gateway_process.end, signal.SIGKILL)
                    await asyncio.to_thread(gateway_process.start)
            return events

    with running(small_app(folder, pause=0.05), folder) as backend:
        gateway_process.put(backend.url)
        events = asyncio.run(go())
        asyncio.run(until(lambda: rows(gateway_process) != []))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    (row,) = rows(gateway_process)
    assert (row.status, row.unit, row.query_chars) == ("answered", ALICE, 6)
    assert 0 < row.first_event_s < 1 < row.duration_s  # by the events' own times: it was not there to see them
    assert (gateway_process.home / "gateway" / "open_runs.sqlite").stat().st_mode & 0o077 == 0


def rows(gateway_process: GatewayProcess) -> list[Any]:
    with RunLog(gateway_process.home / "run_log.sqlite") as log:
        return log.window()


def test_a_gateway_that_is_asked_to_stop_lets_short_runs_end(gateway_process: GatewayProcess, folder: Path) -> None:
    async def go() -> list[Any]:
        async with gateway_process.running().client() as client:
            run_id = await client.start(await client.open_thread(), message="say 20")
            gateway_process.child.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
            return [event async for event in client.stream(run_id)]

    with running(small_app(folder, pause=0.05), folder) as backend:
        gateway_process.put(backend.url)
        events = asyncio.run(go())
        assert gateway_process.end(signal.SIGTERM) == 0
    assert events[-1].type == "end"
    assert [row.status for row in rows(gateway_process)] == ["answered"]


def test_two_gateways_do_not_share_a_folder(gateway_process: GatewayProcess) -> None:
    words = [sys.executable, "-m", "stage3_agents_llmops.pipeline", "gateway", "--home", str(gateway_process.home),
             "--port", "0"]  # fmt: skip
    second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert "another gateway uses" in second.stderr and "try:" in second.stderr


def test_after_a_restart_a_yes_still_counts_as_one(tmp_path: Path, folder: Path) -> None:
    """The question was asked through another gateway: this one asks the backend what is open."""
    with running(small_app(folder), folder) as backend:
        with gateway_running(tmp_path, folder) as first:
            first.put({"stable": backend.url}, {"stable": 100})
            thread, run_id = begin(first, "ask")
            settle(first)
        with gateway_running(tmp_path, folder) as second:
            assert second.gateway.routes.number == 1
            assert thread not in second.gateway.proposals
            second.run("yes", thread_id=thread)
            assert thread in second.gateway.proposals
