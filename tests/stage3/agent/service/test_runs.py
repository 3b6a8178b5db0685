"""A run lives by itself: it survives its readers, ends exactly once, stops when told to, and is told in order."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from labkit.errors import LabError


def texts(events: list) -> str:
    return "".join(event.data["text"] for event in events if event.type == "token")


def words(count: int) -> str:
    return "".join(f"w{number} " for number in range(count))


def wait_until(done: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_is_told_from_start_to_end_with_consecutive_numbers(small: Any) -> None:
    run_id, events = small.run("say 30")
    assert [event.seq for event in events] == list(range(1, 33)) == [event.id for event in events]
    assert [events[0].type, events[-1].type] == ["start", "end"]
    assert texts(events) == words(30)
    assert all(event.data["run_id"] == run_id and event.data["at"] > 1e9 for event in events)
    assert [event.type for event in events].count("end") == 1


def test_cut_at_every_event_and_come_back_replays_exactly_what_was_missed(small: Any) -> None:
    run_id, whole = small.run("say 12")

    async def go() -> None:
        async with small.client() as client:
            for cut in range(len(whole) - 1):
                read = []
                async for event in client.stream(run_id):
                    read.append(event)
                    if len(read) == cut:
                        break
                rest = [event async for event in client.stream(run_id, read[-1].seq if cut else 0)]
                assert (read + rest if cut else rest) == whole

    asyncio.run(go())


def test_cut_while_the_run_is_going_on_loses_and_repeats_nothing(small: Any) -> None:
    async def go() -> list:
        read: list = []
        async with small.client() as client:
            run_id = await client.start(await client.open_thread(), message="say 60")
            while not read or read[-1].type != "end":
                brought = 0
                async for event in client.stream(run_id, read[-1].seq if read else 0):
                    read.append(event)
                    brought += 1
                    if brought == 7:
                        break
        return read

    events = asyncio.run(go())
    assert [event.seq for event in events] == list(range(1, 63))
    assert texts(events) == words(60)


def test_several_readers_of_one_run_all_get_all_of_it(small: Any) -> None:
    async def go() -> list:
        async with small.client() as client:
            run_id = await client.start(await client.open_thread(), message="say 40")

            async def read(pause: float) -> list:
                await asyncio.sleep(pause)
                return [event async for event in client.events(run_id)]

            return await asyncio.gather(*[read(0.05 * number) for number in range(8)])

    first, *others = asyncio.run(go())
    assert len(first) == 42
    assert all(other == first for other in others)


def test_a_run_goes_on_when_nobody_reads_it(small: Any) -> None:
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
        run = http.post(f"/threads/{thread}/runs", json={"message": "say 30"}).json()
        with http.stream("GET", run["events"]) as response:
            next(response.iter_lines())
        wait_until(lambda: http.get(f"/runs/{run['run_id']}").json()["status"] == "ended")
        assert http.get(f"/runs/{run['run_id']}").json()["last_seq"] == 32
        assert http.get(f"/threads/{thread}").json()["messages"][-1]["text"] == words(30)


@pytest.mark.parametrize("message", ["say 1000", "say 1000 by hand"])
def test_no_model_call_comes_later_than_a_second_after_cancel_in_nested_graphs(
    serve: Callable[..., Any], model: Any, message: str
) -> None:
    small = serve(model_url=model.url)
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
        run_id = http.post(f"/threads/{thread}/runs", json={"message": message}).json()["run_id"]
        wait_until(lambda: len(model.asked) >= 5)
        cancelled = time.monotonic()
        assert http.post(f"/runs/{run_id}/cancel").status_code == 202
        wait_until(lambda: http.get(f"/runs/{run_id}").json()["status"] == "ended")
        assert time.monotonic() - cancelled < 5
        time.sleep(1.5)
        assert max(model.asked) - cancelled <= 1.0
        status = http.get(f"/runs/{run_id}").json()
        assert status["reason"] == "cancelled"
        again = http.post(f"/threads/{thread}/runs", json={"message": "say 1"})
        assert again.status_code == 202


def test_a_graph_iterated_inside_the_request_keeps_asking_the_model(folder: Any, model: Any) -> None:
    """The negative control: the way of the tutorials, which the task of its own is there to avoid."""
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse
    from service_under_test import running
    from small_service import SmallAgent

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict]:
        async with SmallAgent.open(folder, folder / "shop.sqlite", model.url) as agent:
            yield {"agent": agent}

    app = FastAPI(lifespan=lifespan)

    @app.get("/stream")
    async def naive(request: Request) -> StreamingResponse:
        events = request.state.agent.stream(thread_id="t", customer_id="C1001", message="say 40")
        return StreamingResponse(f"data: {event.type}\n\n" async for event in events)

    with running(app, folder) as naive_service, naive_service.http(None) as http:
        with http.stream("GET", "/stream") as response:
            next(line for line in response.iter_lines() if "token" in line)
        left = time.monotonic()
        time.sleep(2.5)
    assert max(model.asked) - left > 1.0


def test_cancel_ends_the_stream_with_cancelled_even_when_the_agent_does_not_listen(small: Any) -> None:
    async def go() -> list:
        async with small.client() as client:
            thread = await client.open_thread()
            run_id = await client.start(thread, message="deaf")
            events = []
            async for event in client.events(run_id):
                events.append(event)
                if event.type == "token":  # from here on it does not listen
                    await client.call("POST", f"/runs/{run_id}/cancel")
            with pytest.raises(LabError, match="409"):  # the agent still has the thread
                await client.start(thread, message="say 1")
            return events

    began = time.monotonic()
    events = asyncio.run(go())
    assert [event.type for event in events] == ["start", "token", "end"]
    assert events[-1].data["reason"] == "cancelled"
    assert time.monotonic() - began < 5


def test_cancelling_twice_or_after_the_end_changes_nothing(small: Any) -> None:
    run_id, events = small.run("say 3")
    with small.http() as http:
        for _ in range(2):
            answer = http.post(f"/runs/{run_id}/cancel")
            assert (answer.status_code, answer.json()["reason"]) == (202, "answered")


def test_an_agent_that_fails_ends_with_an_error_and_one_end_and_the_thread_is_free(small: Any) -> None:
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
    for _ in range(2):
        _, events = small.run("fail please", thread_id=thread)
        assert [event.type for event in events] == ["start", "error", "end"]
        assert events[1].data["code"] == "internal"
        assert events[-1].data["reason"] == "failed"
        assert "please" not in str(events[1].data["message"]).replace("please send it again", "")


def test_a_run_that_takes_too_long_is_given_up(serve: Callable[..., Any]) -> None:
    small = serve(pause=0.05, run_seconds=0.5)
    _, events = small.run("say 1000")
    assert [event.type for event in events[-2:]] == ["error", "end"]
    assert events[-2].data["code"] == "timeout"


def test_two_runs_on_one_thread_at_once_are_refused_and_the_first_goes_on(small: Any) -> None:
    async def go() -> tuple:
        async with small.client() as client:
            thread = await client.open_thread()
            tries = [client.http.post(f"/threads/{thread}/runs", json={"message": "say 20"}) for _ in range(6)]
            answers = await asyncio.gather(*tries)
            accepted = [answer.json()["run_id"] for answer in answers if answer.status_code == 202]
            return [answer.status_code for answer in answers], [e async for e in client.events(accepted[0])]

    codes, events = asyncio.run(go())
    assert sorted(codes) == [202] + [409] * 5
    assert texts(events) == words(20)


def test_the_same_idempotency_key_starts_one_run(small: Any) -> None:
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
        key = {"Idempotency-Key": "k1"}

        def start(message: str, headers: dict) -> Any:
            return http.post(f"/threads/{thread}/runs", json={"message": message}, headers=headers)

        first = start("say 5", key).json()["run_id"]
        assert start("say 5", key).json()["run_id"] == first
        wait_until(lambda: http.get(f"/runs/{first}").json()["status"] == "ended")
        assert start("say 5", key).json()["run_id"] == first
        other = start("say 6", key)
        assert (other.status_code, "Idempotency-Key" in other.json()["error"]) == (422, True)
        assert start("say 5", {"Idempotency-Key": "k2"}).json()["run_id"] != first


def test_a_decision_must_name_the_proposal_that_is_open(small: Any) -> None:
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
        _, events = small.run("ask", thread_id=thread)
        assert [event.type for event in events] == ["start", "interrupt", "end"]
        assert events[-1].data["reason"] == "waiting"
        open_now = http.get(f"/threads/{thread}").json()["proposal"]["proposal_id"]

        def decide(proposal_id: str, key: str = "first") -> Any:
            body = {"decision": {"proposal_id": proposal_id, "approve": True}}
            return http.post(f"/threads/{thread}/runs", json=body, headers={"Idempotency-Key": key})

        assert decide("p-99").status_code == 409
        run_id = decide(open_now).json()["run_id"]
        wait_until(lambda: http.get(f"/runs/{run_id}").json()["status"] == "ended")
        assert decide(open_now).json()["run_id"] == run_id  # asked again with the same key: nothing new
        assert http.get(f"/threads/{thread}").json()["messages"][-1]["text"] == "done"
        assert decide(open_now, "second").status_code == 409


def test_messages_know_their_run_and_threads_their_title(small: Any) -> None:
    with small.http() as http:
        thread = http.post("/threads", json={"language": "zh"}).json()["thread_id"]
        runs = [small.run(f"say {count}", thread_id=thread)[0] for count in (2, 3)]
        answer = http.get(f"/threads/{thread}").json()
        assert [message["run_id"] for message in answer["messages"]] == [runs[0], runs[0], runs[1], runs[1]]
        assert (answer["run"], answer["language"]) == (None, "zh")
        line = http.get("/threads").json()["threads"][0]
        assert (line["thread_id"], line["title"], line["human"]) == (thread, "say 2", False)


def test_pages_are_told_when_a_thread_changes(small: Any) -> None:
    async def go() -> list[str]:
        from stage3_agents_llmops.agent.service.sse_client import FrameParser

        reasons, parser = [], FrameParser()
        async with small.client() as client:
            thread = await client.open_thread()
            async with client.http.stream("GET", f"/threads/{thread}/events") as response:
                async for line in response.aiter_lines():
                    if event := parser.line(line):
                        reasons.append(event.data["reason"])
                        if len(reasons) == 2:
                            return reasons
                        await client.start(thread, message="say 2")
        return reasons

    assert asyncio.run(go()) == ["opened", "run"]
