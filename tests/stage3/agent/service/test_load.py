"""Many at once: nobody loses events, what is too much is refused, and a reader that does not read costs nothing."""

import asyncio
import inspect
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import psutil
from service_under_test import ALICE, free_connection
from test_runs import wait_until

CUSTOMERS = [f"C{number}" for number in range(1001, 1041)]


async def one_run(http: httpx.AsyncClient, token: str, message: str) -> tuple[int, list[int], str]:
    """Status of the POST; the numbers of the events as they came; the type of the last one."""
    from stage3_agents_llmops.agent.service.sse_client import FrameParser

    headers = {"Authorization": f"Bearer {token}"}
    thread = (await http.post("/threads", headers=headers)).json()["thread_id"]
    answer = await http.post(f"/threads/{thread}/runs", json={"message": message}, headers=headers)
    if answer.status_code != 202:
        assert int(answer.headers["Retry-After"]) >= 1
        assert sorted(answer.json()) == ["error", "try"]
        return answer.status_code, [], ""
    seqs, last, parser = [], "", FrameParser()
    async with http.stream("GET", answer.json()["events"], headers=headers) as response:
        async for line in response.aiter_lines():
            if event := parser.line(line):
                seqs.append(event.seq)
                last = event.type
    return 202, seqs, last


def many(small: Any, count: int, message: str) -> list[tuple[int, list[int], str]]:
    async def one(number: int) -> tuple[int, list[int], str]:  # a client each: httpx's pool is slow with hundreds
        token = small.tokens.issue(CUSTOMERS[number % len(CUSTOMERS)])
        async with httpx.AsyncClient(base_url=small.url, trust_env=False, timeout=60, verify=False) as http:
            return await one_run(http, token, message)

    async def go() -> list:
        return await asyncio.gather(*[one(number) for number in range(count)])

    return asyncio.run(go())


def test_fifty_streams_on_one_worker_complete_with_nothing_lost_or_reordered(small: Any) -> None:
    results = many(small, 50, "say 20")
    assert [status for status, _, _ in results] == [202] * 50
    assert all(seqs == list(range(1, 23)) and last == "end" for _, seqs, last in results)


def test_agents_wait_while_a_crowd_comes_in_but_not_for_a_lone_customer(small: Any, monkeypatch: Any) -> None:
    """Catches: the last of fifty who sees no sign of life until the first ones have their answers."""
    from stage3_agents_llmops.agent.service import runs

    monkeypatch.setattr(runs, "QUIET", 1.5)
    monkeypatch.setattr(runs, "PATIENCE", 30.0)

    def first(events: list, type: str) -> float:
        return next(event.data["at"] for event in events if event.type == type)

    async def one(number: int) -> list:
        async with small.client(CUSTOMERS[number]) as client:
            thread = await client.open_thread()
            await asyncio.sleep(0.05 * number)
            run_id = await client.start(thread, message="say 2")
            return [event async for event in client.events(run_id)]

    async def go() -> list[list]:
        async with small.client(CUSTOMERS[9]) as client:
            run_id = await client.start(await client.open_thread(), message="say 1000")  # so that nobody else is alone
            try:
                return await asyncio.gather(*map(one, range(5)))
            finally:
                await client.call("POST", f"/runs/{run_id}/cancel")

    crowd = asyncio.run(go())
    assert max(first(events, "start") for events in crowd) < min(first(events, "token") for events in crowd)
    wait_until(lambda: not small.service.runs.by_id)
    _, lone = small.run("say 2")
    assert first(lone, "token") - first(lone, "start") < 1.0


def test_at_four_hundred_new_runs_are_refused_and_all_that_were_accepted_complete(serve: Callable[..., Any]) -> None:
    small = serve(active=60, pause=0.05, body_seconds=120)  # 400 clients on the same two cores send late
    results = many(small, 400, "say 10")
    counts = Counter(status for status, _, _ in results)
    assert set(counts) == {202, 429}
    assert counts[202] >= 60
    assert counts[429] >= 100
    assert all(seqs == list(range(1, 13)) and last == "end" for status, seqs, last in results if status == 202)
    with small.http() as http:
        assert http.get("/health").json()["runs"] == {"active": 0, "waiting": 0, "streams": 0}
        assert f'agent_refused_total{{what="runs"}} {counts[429]}.0' in http.get("/metrics").text
    assert [status for status, _, _ in many(small, 5, "say 1")] == [202] * 5


def test_one_customer_cannot_take_every_place(serve: Callable[..., Any]) -> None:
    small = serve(active=20, active_per_customer=3, pause=0.2)
    with small.http(ALICE) as alice, small.http("C1002") as other:
        threads = [alice.post("/threads").json()["thread_id"] for _ in range(4)]
        codes = [alice.post(f"/threads/{thread}/runs", json={"message": "say 5"}).status_code for thread in threads]
        assert codes == [202, 202, 202, 429]
        thread = other.post("/threads").json()["thread_id"]
        assert other.post(f"/threads/{thread}/runs", json={"message": "say 1"}).status_code == 202


def test_the_first_event_does_not_wait_for_a_place_to_work(serve: Callable[..., Any]) -> None:
    small = serve(working=1, pause=0.1)
    with small.http() as http:
        runs = []
        for _ in range(4):
            thread = http.post("/threads").json()["thread_id"]
            runs.append(http.post(f"/threads/{thread}/runs", json={"message": "say 40"}).json()["run_id"])
        time.sleep(0.4)
        seqs = [http.get(f"/runs/{run}").json()["last_seq"] for run in runs]
        assert seqs[1:] == [1, 1, 1]
        assert http.get("/health").json()["runs"]["waiting"] == 3
        assert "agent_runs_waiting 3.0" in http.get("/metrics").text


def test_a_silent_stream_has_a_heartbeat(serve: Callable[..., Any]) -> None:
    small = serve(pause=0.6, heartbeat=0.1)

    async def go() -> tuple[int, int]:
        async with small.client() as client:
            events = await client.say(await client.open_thread(), "say 2")
            return client.comments, len(events)

    comments, events = asyncio.run(go())
    assert comments >= 5
    assert events == 4


def stalled_reader(small: Any, run_id: str) -> socket.socket:
    """A client that asks for a stream and then reads nothing."""
    one = free_connection(small.url)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    token = small.tokens.issue(ALICE)
    head = f"GET /runs/{run_id}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    one.sendall(head.encode())
    return one


def test_readers_that_do_not_read_block_nobody_cost_no_memory_and_are_cut_off(serve: Callable[..., Any]) -> None:
    small = serve(write_seconds=2.0)
    whole = 200 * 65_536
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
        run_id = http.post(f"/threads/{thread}/runs", json={"message": "big 200"}).json()["run_id"]
        with http.stream("GET", f"/runs/{run_id}/events") as response:
            assert sum(len(piece) for piece in response.iter_bytes()) > whole
        before = psutil.Process().memory_info().rss
        stalled = [stalled_reader(small, run_id) for _ in range(30)]
        time.sleep(1.0)
        assert http.get("/health").json()["runs"]["streams"] == 30
        assert psutil.Process().memory_info().rss - before < 0.5 * 30 * whole  # each had its own copy otherwise
        other = http.post("/threads").json()["thread_id"]
        quick = http.post(f"/threads/{other}/runs", json={"message": "say 3"}).json()["run_id"]
        assert http.get(f"/runs/{quick}/events").text.count("event: end\n") == 1
        deadline = time.monotonic() + 30
        while http.get("/health").json()["runs"]["streams"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "agent_slow_readers_total 30.0" in http.get("/metrics").text
        for one in stalled:
            one.close()


def test_too_many_streams_are_refused_and_a_stream_that_is_left_gives_its_place_back(serve: Callable[..., Any]) -> None:
    small = serve(streams_per_customer=2, pause=0.05)
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
        run_id = http.post(f"/threads/{thread}/runs", json={"message": "say 100"}).json()["run_id"]
        watched, read = f"/threads/{thread}/events", f"/runs/{run_id}/events"
        with small.http() as a, small.http() as b, a.stream("GET", read), b.stream("GET", watched):
            answer = http.get(read)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
        deadline = time.monotonic() + 10
        while http.get("/health").json()["runs"]["streams"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with http.stream("GET", f"/runs/{run_id}/events") as response:
            assert response.status_code == 200
        http.post(f"/runs/{run_id}/cancel")


def test_answers_do_not_wait_for_the_receipt_of_their_head() -> None:
    """Catches: Nagle's algorithm, on in asyncio where a socket names no protocol: 40 ms a small answer."""
    from stage3_agents_llmops.agent.service.server import bind

    async def option() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = bind("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                return await asyncio.wait_for(found, 10)
            finally:
                writer.close()

    assert asyncio.run(option())


def test_no_request_goes_through_a_thread_to_learn_who_asks() -> None:
    """Catches: a dependency as a plain `def`, which FastAPI runs in its thread pool, where a busy loop is late."""
    from fastapi.dependencies.models import Dependant
    from fastapi.routing import APIRoute

    from stage3_agents_llmops.agent.service import admin_routes, feedback, operator_routes, pages, run_routes, threads

    def below(dependant: Dependant) -> list[Any]:
        return [call for each in dependant.dependencies for call in (each.call, *below(each))]

    modules = (admin_routes, feedback, operator_routes, pages, run_routes, threads)
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    called = {call for route in routes for call in below(route.dependant)}
    assert len(called) >= 4
    assert [call.__name__ for call in called if not inspect.iscoroutinefunction(call)] == []
