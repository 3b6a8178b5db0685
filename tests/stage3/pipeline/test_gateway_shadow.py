"""Copies of messages to a release that nobody sees, and what must not come of them."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway_under_test import ALICE, GatewayRunning, gateway_running, running, small_app
from service_under_test import Running
from test_gateway import settle

from stage3_agents_llmops.agent.service.auth import Tokens


@pytest.fixture
def shop(tmp_path: Path, folder: Path) -> Iterator[tuple[GatewayRunning, Running, Running]]:
    """A gateway, the service of the real shop, and a shadow with a copy of everything."""
    Tokens.open(folder)
    copied = tmp_path / "shadow"
    shutil.copytree(folder, copied)
    with ExitStack() as stack:
        real = stack.enter_context(running(small_app(folder, instance="stable"), folder))
        shadow = stack.enter_context(running(small_app(copied, instance="shadow"), copied))
        gateway = stack.enter_context(gateway_running(tmp_path, folder))
        put(gateway, real, shadow, 1.0)
        yield gateway, real, shadow


def put(gateway: GatewayRunning, real: Running, shadow: Running | None, share: float) -> None:
    place = {"release": "ef56", "backend": shadow.url, "share": share} if shadow else None
    answer = gateway.put({"stable": real.url}, {"stable": 100}, shadow=place)
    assert answer.status_code == 200, answer.text


def copies(gateway: GatewayRunning, count: int, seconds: float = 10.0) -> list:
    """The rows of the shadow, when there are so many."""
    settle(gateway)
    end = time.monotonic() + seconds
    while len(rows := gateway.rows(arm="shadow")) < count and time.monotonic() < end:
        time.sleep(0.02)
    while gateway.gateway.shadow.tasks and time.monotonic() < end:
        time.sleep(0.02)
    return rows


def test_a_copy_is_answered_and_nobody_sees_it(shop: tuple[GatewayRunning, Running, Running]) -> None:
    gateway, real, shadow = shop
    run_id, events = gateway.run("say 4")
    (row,) = copies(gateway, 1)
    assert (row.release, row.status, row.unit, row.query_chars) == ("ef56", "answered", ALICE, 5)
    assert row.run_id != run_id
    with gateway.http() as http:
        assert http.get(f"/runs/{row.run_id}/events").status_code == 404  # not even the customer's own
        assert http.get(f"/threads/{row.thread_id}").status_code == 404
        assert len(http.get("/threads").json()["threads"]) == 1
    assert {event.data["run_id"] for event in events} == {run_id}
    with shadow.http() as http:
        assert [message["text"] for message in http.get(f"/threads/{row.thread_id}").json()["messages"]] == [
            "say 4", "w0 w1 w2 w3 "]  # fmt: skip


def test_what_the_shadow_writes_is_not_written(shop: tuple[GatewayRunning, Running, Running]) -> None:
    import sqlite3

    from service_under_test import order_of

    gateway, real, shadow = shop
    order = order_of(real.folder / "shop.sqlite", ALICE)
    gateway.run(f"invoice {order}")
    copies(gateway, 1)
    counts = {}
    for name, one in (("real", real), ("shadow", shadow)):
        with sqlite3.connect(one.folder / "shop.sqlite") as database:
            counts[name] = database.execute("select count(*) from audit where tool = 'send_invoice'").fetchone()[0]
    assert counts == {"real": 1, "shadow": 1}  # each its own; nothing of the shadow's in the real shop


def test_a_yes_goes_to_the_shadows_own_proposal(shop: tuple[GatewayRunning, Running, Running]) -> None:
    gateway, _, shadow = shop

    async def go() -> None:
        async with gateway.client() as client:
            thread = await client.open_thread()
            asked = await client.say(thread, "ask")
            proposal = next(event.data for event in asked if event.type == "interrupt")
            while not gateway.rows(arm="shadow"):
                await asyncio.sleep(0.02)
            decision = {"proposal_id": proposal["proposal_id"], "approve": True}
            run_id = await client.start(thread, decision=decision)
            assert [event async for event in client.events(run_id)][-1].data["reason"] == "answered"

    asyncio.run(go())
    rows = copies(gateway, 2)
    assert [row.status for row in rows] == ["waiting", "answered"]
    with shadow.http() as http:
        assert http.get(f"/threads/{rows[0].thread_id}").json()["messages"][-1]["text"] == "done"


def test_the_real_answer_does_not_wait_for_the_shadow(tmp_path: Path, folder: Path) -> None:
    """Catches: a copy that is sent before, or beside, the customer's own."""
    copied = tmp_path / "shadow"
    Tokens.open(folder)
    shutil.copytree(folder, copied)
    slow = small_app(copied, instance="shadow", pause=0.3)
    with running(small_app(folder), folder) as real, running(slow, copied) as shadow, gateway_running(
        tmp_path, folder
    ) as gateway:  # fmt: skip
        put(gateway, real, shadow, 1.0)
        gateway.run("say 4")
        (own,) = [row for row in gateway.rows() if row.arm == "stable"]
        (copy,) = copies(gateway, 1, 20.0)
    assert copy.started >= own.started + own.duration_s - 0.05
    assert copy.duration_s > own.duration_s


def test_only_a_share_is_copied_and_a_shadow_that_is_gone_harms_nobody(
    shop: tuple[GatewayRunning, Running, Running],
) -> None:
    gateway, real, shadow = shop
    put(gateway, real, shadow, 0.3)
    names = [f"C{number}" for number in range(1001, 1041)]
    drawn = [name for name in names if gateway.gateway.router.shadowed(name)]
    left_out = next(name for name in names if name not in drawn)
    gateway.run("say 1", left_out)
    gateway.run("say 1", drawn[0])
    assert [row.unit for row in copies(gateway, 1)] == [drawn[0]]
    place = Running("http://127.0.0.1:9", None, shadow.folder, shadow.tokens)
    put(gateway, real, place, 1.0)
    _, events = gateway.run("say 1")
    assert events[-1].data["reason"] == "answered"
    copies(gateway, 1)
    with gateway.http(None) as http:
        assert 'gateway_shadow_runs_total{outcome="failed"} 1.0' in http.get("/metrics").text
    put(gateway, real, None, 0)
    gateway.run("say 1", drawn[0])
    settle(gateway)
    assert len(gateway.rows(arm="shadow")) == 1


def test_a_shadow_that_cannot_keep_up_is_left_out(
    shop: tuple[GatewayRunning, Running, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stage3_agents_llmops.pipeline.gateway import shadow as module

    gateway, _, _ = shop
    monkeypatch.setattr(module, "WAITING", 0)
    gateway.run("say 1")
    settle(gateway)
    with gateway.http(None) as http:
        assert 'gateway_shadow_runs_total{outcome="left out"} 1.0' in http.get("/metrics").text
    assert gateway.rows(arm="shadow") == []
