"""Simulated customers: who they are, and that they notice what must not happen to a stream."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest
from gateway_under_test import shop_running, urls

from labkit.errors import LabError
from stage3_agents_llmops.agent.evaluation.suite import scripts_of
from stage3_agents_llmops.agent.service.sse import sse_frame
from stage3_agents_llmops.agent.service.sse_client import ServiceClient
from stage3_agents_llmops.pipeline.load.crowd import Crowd
from stage3_agents_llmops.pipeline.load.load_command import LoadConfig, run_load
from stage3_agents_llmops.pipeline.load.sightings import Sightings
from stage3_agents_llmops.pipeline.load.watching import Watched, watch
from stage3_agents_llmops.pipeline.load.wishes import Wishes


class Streams:
    """A server whose streams do what a test says: one list of event numbers for every connection; 0 is a break."""

    def __init__(self) -> None:
        self.connections: list[list[int]] = []
        self.cursors: list[str | None] = []
        streams = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                streams.cursors.append(self.headers.get("Last-Event-ID"))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                numbers = streams.connections.pop(0) if streams.connections else []
                for number in numbers:
                    self.wfile.write(frame(number))

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


LAST = 5


def frame(number: int) -> bytes:
    """Event number LAST is the end."""
    type = "start" if number == 1 else "end" if number == LAST else "token"
    data = {"seq": number, "run_id": "r", "text": "w ", "reason": "answered", "release": "ab12"}
    return sse_frame(type, json.dumps(data), id=number)


@pytest.fixture
def streams() -> Iterator[Streams]:
    one = Streams()
    yield one
    one.server.shutdown()
    one.server.server_close()


def watched(streams: Streams, *connections: list[int], patience: float = 10.0) -> Watched:
    streams.connections = list(connections)

    async def go() -> Watched:
        async with ServiceClient(streams.url, "x") as client:
            return await watch(client, "r", 0.0, patience)

    return asyncio.run(go())


@pytest.mark.parametrize(("connections", "dropped", "duplicated", "reordered"), [
    ([[1, 2, 3, 4, 5]], False, 0, 0),
    ([[1, 2, 2, 3, 4, 5]], False, 1, 0),
    ([[1, 2, 4, 3, 5]], False, 0, 1),
    ([[1, 2, 4, 5]], True, 0, 0),
    ([[1, 2], [3, 4, 5]], False, 0, 0),
    ([[1, 2], [2, 3, 4, 5]], False, 1, 0),
    ([[1, 2, 3, 1, 2, 3, 4, 5]], False, 3, 0),
])  # fmt: skip
def test_what_is_wrong_with_a_stream_is_counted(
    streams: Streams, connections: list[list[int]], dropped: bool, duplicated: int, reordered: int
) -> None:
    run = watched(streams, *connections)
    assert (run.dropped, run.duplicated, run.reordered) == (dropped, duplicated, reordered)
    assert (run.end, run.release, run.connections) == ("answered", "ab12", len(connections))


def test_who_comes_back_says_what_they_have(streams: Streams) -> None:
    watched(streams, [1, 2], [3, 4, 5])
    assert streams.cursors == [None, "2"]


def test_a_run_that_never_ends_is_dropped_and_not_waited_for_for_ever(streams: Streams) -> None:
    run = watched(streams, [1, 2], patience=1.0)
    assert run.dropped and run.end is None and run.whole is None


def test_figures_add_up(streams: Streams) -> None:
    seen = Sightings()
    seen.saw(watched(streams, [1, 2, 3, 4, 5]), "C1001")
    seen.saw(watched(streams, [1, 2, 2, 4, 5]), "C1002")
    figures = seen.as_dict(2.0)
    assert (figures["streams"], figures["dropped"], figures["duplicated"]) == (2, 1, 1)
    assert figures["by_release"] == {"ab12": {"customers": 2, "streams": 2}}
    assert figures["whole_p95"] >= figures["first_event_p95"] > 0
    json.dumps(figures, allow_nan=False)
    assert json.loads(json.dumps(Sightings().as_dict(0.0)))["first_token_p50"] is None


def test_nobody_talks_twice_at_once_and_a_shop_has_an_end(shop_file: Path) -> None:
    wishes = Wishes(shop_file, scripts_of(), Random(1))
    held = [wishes.next() for _ in range(40)]
    assert len({wish.customer_id for wish in held}) == 40
    kinds = {wish.case is not None for wish in held}
    assert kinds == {True, False}
    with pytest.raises(LabError, match="are talking"):
        wishes.next()
    wishes.done(held[0])
    assert wishes.next().customer_id == held[0].customer_id
    assert all(wish.questions and {each.language for each in wish.questions} == {wish.language}
               for wish in held if wish.case is None)  # fmt: skip


def test_a_crowd_talks_through_the_gateway_and_loses_nothing(tmp_path: Path, folder: Path) -> None:
    with shop_running(tmp_path, folder, pause=0.002) as (gateway, backends):
        gateway.put(urls(backends), {"stable": 50, "canary": 50})
        wishes = Wishes(folder / "shop.sqlite", scripts_of(), Random(2))
        crowd = Crowd(gateway.url, gateway.tokens.issue, wishes, 6, 0.05, Random(2))
        seen = asyncio.run(talk(crowd, 16))
        rows = gateway.rows()
    assert seen.streams >= 16 and seen.streams == len(rows)
    assert (seen.dropped, seen.duplicated, seen.reordered, seen.broken_off) == (0, 0, 0, 0)
    assert sum(seen.ends.values()) == seen.streams
    assert {row.arm for row in rows} == {"stable", "canary"}
    thumbs = [row.feedback for row in rows if row.feedback]
    assert thumbs and len(thumbs) <= seen.thumbs["up"] + seen.thumbs["down"]


async def talk(crowd: Crowd, streams: int) -> Sightings:
    """Until so many answers were read; a slow machine takes longer."""
    talking = asyncio.create_task(crowd.talk(60.0))
    while crowd.seen.streams < streams and not talking.done():
        await asyncio.sleep(0.02)
    crowd.stop()
    return await talking


def test_a_service_that_is_not_there_is_said(tmp_path: Path, shop_file: Path) -> None:
    for config, what in (
        (LoadConfig(gateway="http://127.0.0.1:9", shop=shop_file, state=tmp_path), "nobody answers"),
        (LoadConfig(home=tmp_path), "there is no shop"),
        (LoadConfig(home=tmp_path, shop=shop_file), "no gateway runs"),  # and none of another home is asked
    ):
        with pytest.raises(LabError, match=what):
            run_load(config, "")
