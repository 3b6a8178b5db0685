"""One gateway, two real services on one shop: a customer's whole conversation goes through it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_under_test import ALICE, GatewayRunning, gateway_running, running, shop_running, small_app, urls
from service_under_test import BOB, Running, operator

from stage3_agents_llmops.agent.service.sse_client import Received
from stage3_agents_llmops.pipeline.gateway.app import Extras

PEOPLE = [f"C{number}" for number in range(1001, 1041)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, shop_file: Path) -> Iterator[tuple[GatewayRunning, dict]]:
    home = tmp_path_factory.mktemp("home")
    (home / "state").mkdir()
    (home / "state" / "shop.sqlite").write_bytes(shop_file.read_bytes())
    with shop_running(home, home / "state") as (gateway, backends):
        gateway.put(urls(backends), {"stable": 100})
        yield gateway, backends


@pytest.fixture
def gateway(shop: tuple[GatewayRunning, dict]) -> GatewayRunning:
    """All customers at the stable release."""
    gateway, backends = shop
    gateway.put(urls(backends), {"stable": 100})
    return gateway


def begin(gateway: GatewayRunning, message: str, name: str = ALICE) -> tuple[str, str]:
    """(thread, run) of a run that has begun."""
    with gateway.http(name) as http:
        thread = http.post("/threads").json()["thread_id"]
        return thread, http.post(f"/threads/{thread}/runs", json={"message": message}).json()["run_id"]


# -- one run


def test_a_run_streams_through_and_leaves_a_row(gateway: GatewayRunning) -> None:
    run_id, events = gateway.run("say 5")
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "end"
    assert [event.data["text"] for event in events if event.type == "token"] == [f"w{n} " for n in range(5)]
    row = gateway.gateway.recorder.run_log.get(run_id)
    assert (row.arm, row.release, row.unit, row.status) == ("stable", "ab12", ALICE, "answered")
    assert 0 < row.first_event_s <= row.first_token_s <= row.duration_s
    assert (row.query_chars, row.output_tokens, row.probe) == (5, 5, False)


def test_events_come_one_by_one_and_not_at_the_end(tmp_path: Path, folder: Path) -> None:
    """Catches: a gateway that collects the stream and hands it on as a whole."""

    async def go() -> list[float]:
        async with gateway.client() as client:
            run_id = await client.start(await client.open_thread(), message="say 8")
            return [time.monotonic() async for _ in client.events(run_id)]

    with shop_running(tmp_path, folder, ("stable",), pause=0.1) as (gateway, backends):
        gateway.put(urls(backends), {"stable": 100})
        times = asyncio.run(go())
    assert times[-1] - times[0] > 0.5  # eight pauses of 0.1 s lie between them


def test_after_a_break_exactly_the_missing_events_come(gateway: GatewayRunning) -> None:
    run_id, events = gateway.run("say 6")
    with gateway.http() as http:
        for cursor in range(len(events)):
            text = http.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": str(cursor)}).text
            ids = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
            assert ids == list(range(cursor + 1, len(events) + 1))
        assert http.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": str(len(events))}).status_code == 204
        assert http.get(f"/runs/{run_id}/events", params={"after": 2}).text.startswith("id: 3\n")
        assert http.get(f"/runs/{run_id}/events", params={"after": "x"}).status_code == 422


def test_a_run_that_the_gateway_no_longer_holds_comes_from_a_backend(gateway: GatewayRunning) -> None:
    run_id, events = gateway.run("say 4")
    gateway.gateway.follower.over.clear()
    with gateway.http() as http:
        text = http.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": "2"}).text
    assert [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")] == list(range(3, len(events) + 1))


def test_what_is_not_yours_is_unknown_whoever_would_have_it(gateway: GatewayRunning) -> None:
    thread, run_id = begin(gateway, "say 3")
    for name, status in ((BOB, 404), (None, 401)):
        with gateway.http(name) as http:
            for path in (f"/runs/{run_id}", f"/threads/{thread}"):
                assert http.get(path).status_code == http.get(f"{path}/events").status_code == status, path
            assert http.post(f"/runs/{run_id}/resolved", json={"resolved": True}).status_code == status
            assert http.post(f"/runs/{run_id}/citations/1/click").status_code == status
    with gateway.http("operator") as http:
        assert "event: end" in http.get(f"/runs/{run_id}/events").text


def test_two_tabs_and_a_late_one_see_the_same(gateway: GatewayRunning) -> None:
    async def go() -> list[list[int]]:
        async with gateway.client() as client:
            run_id = await client.start(await client.open_thread(), message="say 10")

            async def tail() -> list[int]:
                return [event.seq async for event in client.events(run_id)]

            both = await asyncio.gather(tail(), tail())
            return [*both, await tail()]

    first, second, late = asyncio.run(go())
    assert first == second == late == list(range(1, len(first) + 1))


def test_a_run_can_be_stopped(gateway: GatewayRunning) -> None:
    _, run_id = begin(gateway, "say 500")
    with gateway.http() as http:
        assert http.post(f"/runs/{run_id}/cancel").status_code == 202
        assert '"reason": "cancelled"' in http.get(f"/runs/{run_id}/events").text
    assert gateway.gateway.recorder.run_log.get(run_id).status == "cancelled"


def test_thumbs_clicks_and_verdicts_join_the_row(gateway: GatewayRunning) -> None:
    run_id, _ = gateway.run("say 2")
    with gateway.http() as http:
        assert http.post(f"/runs/{run_id}/feedback", json={"score": -1}).status_code == 204
        assert http.post(f"/runs/{run_id}/resolved", json={"resolved": False}).status_code == 204
        assert http.post(f"/runs/{run_id}/citations/1/click").status_code == 204
        assert http.post(f"/runs/{run_id}/citations/2/click").status_code == 204
        assert http.post(f"/runs/{run_id}/feedback", json={"score": 7}).status_code == 422
        assert http.post(f"/runs/{run_id}/resolved", json={"resolved": 1}).status_code == 422
        assert http.post("/runs/run_0/resolved", json={"resolved": True}).status_code == 404
    row = gateway.gateway.recorder.run_log.get(run_id)
    assert (row.feedback, row.resolved, row.citation_clicks) == (-1, False, 2)


def test_the_row_is_there_when_the_customer_reads_the_end(gateway: GatewayRunning) -> None:
    async def go() -> list[bool]:
        async with gateway.client() as client:
            run_id = await client.start(await client.open_thread(), message="say 3")
            rows = []
            async for event in client.events(run_id):
                if event.type == "end":
                    rows.append(gateway.gateway.recorder.run_log.get(run_id) is not None)
            return rows

    assert asyncio.run(go()) == [True]


def test_the_same_key_again_is_the_same_run(gateway: GatewayRunning) -> None:
    with gateway.http() as http:
        thread = http.post("/threads").json()["thread_id"]
        ids = {http.post(f"/threads/{thread}/runs", json={"message": "say 2"}, headers={"Idempotency-Key": "k"})
               .json()["run_id"] for _ in range(3)}  # fmt: skip
    settle(gateway)
    assert len(ids) == 1
    assert len([row for row in gateway.rows() if row.run_id in ids]) == 1


# -- whom a request reaches, and with what


def test_each_customer_stays_with_one_release_and_meets_it_once(shop: tuple[GatewayRunning, dict]) -> None:
    gateway, backends = shop
    number = gateway.put(urls(backends), {"stable": 50, "canary": 50}, salt="sticky").json()["number"]
    since = time.time()
    for name in PEOPLE[:12]:
        for _ in range(2):
            gateway.run("say 1", name)
    rows = gateway.rows(since=since)
    arms = {name: {row.arm for row in rows if row.unit == name} for name in PEOPLE[:12]}
    assert all(len(met) == 1 for met in arms.values())
    assert {arm for met in arms.values() for arm in met} == {"stable", "canary"}
    exposures = gateway.gateway.router.exposures.rows(f"sticky.{number}")
    assert sorted((row.unit, row.arm) for row in exposures) == sorted((name, *met) for name, met in arms.items())


def test_a_conversation_goes_on_at_the_other_release(shop: tuple[GatewayRunning, dict]) -> None:
    gateway, backends = shop
    gateway.put(urls(backends), {"stable": 100})
    with gateway.http() as http:
        thread = http.post("/threads").json()["thread_id"]
    gateway.run("say 2", thread_id=thread)
    gateway.put(urls(backends), {"stable": 0, "canary": 100})
    run_id, events = gateway.run("say 3", thread_id=thread)
    assert events[0].data["turn"] == 2
    assert gateway.gateway.recorder.run_log.get(run_id).arm == "canary"
    with gateway.http() as http:
        assert len(http.get(f"/threads/{thread}").json()["messages"]) == 4


def test_a_run_that_has_begun_stays_where_it_is_and_is_found_there(shop: tuple[GatewayRunning, dict]) -> None:
    gateway, backends = shop
    gateway.put(urls(backends), {"stable": 100})
    thread, run_id = begin(gateway, "say 40")
    gateway.put(urls(backends), {"canary": 100})
    with gateway.http() as http:
        assert http.get(f"/threads/{thread}").json()["run"]["run_id"] == run_id
        assert http.get(f"/runs/{run_id}").json()["status"] == "running"
        with gateway.admin() as admin:
            assert admin.get("/admin/load").json()["runs"] == {backends["stable"].url: 1, backends["canary"].url: 0}
        assert http.post(f"/threads/{thread}/runs", json={"message": "say 1"}).status_code == 409
        assert http.get(f"/runs/{run_id}/events").text.count("event: token") == 40
    assert gateway.gateway.recorder.run_log.get(run_id).arm == "stable"


def test_a_watcher_hears_of_runs_and_people_at_any_backend(shop: tuple[GatewayRunning, dict]) -> None:
    gateway, backends = shop
    gateway.put(urls(backends), {"stable": 100})

    async def go() -> list[str]:
        reasons: list[str] = []
        async with gateway.client() as client, operator(gateway) as person:
            thread = await client.open_thread()

            async def watch() -> None:
                async with client.http.stream("GET", f"/threads/{thread}/events") as response:
                    async for line in response.aiter_lines():
                        if line.startswith("data"):
                            reasons.append(line.split('"reason": "')[1].split('"')[0])

            watching = asyncio.create_task(watch())
            await until(lambda: reasons == ["opened"])
            await asyncio.to_thread(gateway.put, urls(backends), {"canary": 100})
            await client.say(thread, "person")
            await until(lambda: "run" in reasons)
            answer = await person.http.post(f"/operator/threads/{thread}/reply", json={"text": "Good morning"})
            assert answer.status_code == 204, answer.text
            await until(lambda: "operator" in reasons)
            watching.cancel()
        return reasons

    assert asyncio.run(go()) == ["opened", "run", "operator"]


async def until(what: Any, seconds: float = 10.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.02)


def test_backends_get_the_trace_and_the_arm_and_customers_cannot_choose(tmp_path: Path, folder: Path) -> None:
    seen: list[dict[str, str]] = []

    def listening(app: Any) -> Any:
        async def heard(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"].endswith("/runs"):
                seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
            await app(scope, receive, send)

        heard.state = app.state
        return heard

    app = small_app(folder)
    with running(listening(app), folder) as backend, gateway_running(tmp_path, folder) as gateway:
        gateway.put({"stable": backend.url, "canary": backend.url}, {"stable": 100, "canary": 0})
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        lie = {"x-arm": "canary", "x-release": "cd34", "x-probe": "1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        with gateway.http() as http:
            thread = http.post("/threads").json()["thread_id"]
            http.post(f"/threads/{thread}/runs", json={"message": "say 1"}, headers=lie)
            settle(gateway)
            token = {"x-gateway-token": (gateway.files.folder / "token").read_text()}
            http.post(f"/threads/{thread}/runs", json={"message": "say 1"}, headers=lie | token)
            settle(gateway)
            unknown = http.post(f"/threads/{thread}/runs", json={"message": "x"}, headers=token | {"x-arm": "nobody"})
            assert (unknown.status_code, unknown.json()["error"]) == (422, "there is no arm nobody")
        plain, tester = seen
        assert (plain["x-arm"], plain["x-release"], "x-probe" in plain) == ("stable", "ab12", False)
        assert plain["traceparent"].split("-")[1] == trace
        assert plain["traceparent"].split("-")[2] != "00f067aa0ba902b7"
        assert (tester["x-arm"], tester["x-release"], tester["x-probe"]) == ("canary", "cd34", "1")
        assert "x-gateway-token" not in tester
        rows = gateway.rows()
        assert [(row.arm, row.probe, row.trace_id) for row in rows] == [
            ("stable", False, trace), ("canary", True, trace)]  # fmt: skip


def settle(gateway: GatewayRunning, seconds: float = 10.0) -> None:
    """Wait until no run goes on."""
    end = time.monotonic() + seconds
    while gateway.gateway.follower.running and time.monotonic() < end:
        time.sleep(0.02)
    assert not gateway.gateway.follower.running


# -- who may change the routes


def test_the_admin_api_wants_its_token_and_the_number(shop: tuple[GatewayRunning, dict]) -> None:
    gateway, backends = shop
    gateway.put(urls(backends), {"stable": 100})
    for name in (None, ALICE, "operator", "admin"):
        with gateway.http(name) as http:
            assert http.get("/admin/routes").status_code == 401
            assert http.put("/admin/routes", json={}).status_code == 401
            assert http.post("/admin/drain").status_code == 401  # of a backend: not from outside
    number = gateway.gateway.routes.number
    late = gateway.put(urls(backends), {"canary": 100}, number=number - 1)
    assert (late.status_code, late.json()["number"]) == (409, number)
    wrong = gateway.put(urls(backends), {"stable": 60, "canary": 60})
    assert (wrong.status_code, wrong.json()["error"]) == (422, "the weights of the arms sum to 120")
    assert [arm.name for arm in gateway.gateway.routes.arms] == ["stable"]
    with gateway.admin() as admin:
        shown = admin.get("/admin/routes").json()
        assert abs(shown["time"] - time.time()) < 5 and shown["persisted"] is True
        assert admin.post("/admin/drain").status_code == 404
    assert backends["stable"].service.runs.draining is None


def test_a_new_gateway_says_that_nothing_is_in_service(tmp_path: Path, folder: Path) -> None:
    with gateway_running(tmp_path, folder) as gateway, gateway.http() as http:
        answer = http.post("/threads")
        assert (answer.status_code, answer.json()["code"]) == (503, "no_routes")
        assert (http.get("/health").status_code, http.get("/health").json()["status"]) == (503, "no routes")


# -- the rest of the service is there, too


def test_pages_bodies_and_refusals_come_as_the_service_gives_them(gateway: GatewayRunning) -> None:
    with gateway.http() as http, Running(gateway.url, None, gateway.folder, gateway.tokens).http(None) as nobody:
        page = http.get("/")
        assert page.status_code == 200 and "content-security-policy" in page.headers
        assert http.get("/static/chat.js").status_code == 200
        assert nobody.get("/demo/customers").json()["customers"][0]["customer_id"] == ALICE
        assert http.get("/docs").status_code == 200
        assert http.get("/graph").json()["nodes"]
        thread = http.post("/threads").json()["thread_id"]
        path = f"/threads/{thread}/runs"
        assert http.post(path, json={"message": ""}).json()["error"] == "the message is empty"
        assert http.post(path, content=b"{").status_code == 422
        assert http.post(path, json={"message": "x" * 40_000}).status_code == 413
        assert http.get("/nowhere").status_code == 404


def test_figures_of_the_gateway_and_of_the_runs_are_in_one_place(tmp_path: Path, folder: Path) -> None:
    with running(small_app(folder), folder) as backend, gateway_running(
        tmp_path, folder, Extras(monitor=True, traces=True)
    ) as gateway:  # fmt: skip
        gateway.put({"stable": backend.url}, {"stable": 100})
        gateway.run("say 3")
        with gateway.http(None) as http:
            text = http.get("/metrics").text
            assert 'gateway_runs_total{arm="stable",release="ab12"} 1.0' in text
            assert 'gateway_arm_weight{arm="stable",release="ab12"} 100.0' in text
            assert "llmops_runs_total" in text
            assert http.get("/alerts").json()["alerts"] == []
            assert http.get("/releases").json()["releases"][0]["share"] == 1.0
            assert http.get("/dashboard").status_code == 200
    assert gateway.files.traces.exists()


def test_a_write_after_a_yes_is_not_taken_for_one_without(gateway: GatewayRunning) -> None:
    """The gateway remembers what was asked; after a restart it asks the backend (test_gateway_failures)."""

    async def go() -> tuple[list[Received], list[Received], str]:
        async with gateway.client() as client:
            thread = await client.open_thread()
            asked = await client.say(thread, "ask")
            proposal = next(event.data for event in asked if event.type == "interrupt")
            assert gateway.gateway.proposals.get(thread)["proposal_id"] == proposal["proposal_id"]
            decision = {"proposal_id": proposal["proposal_id"], "approve": True}
            assert gateway.gateway.proposals.agreed(thread, {"decision": decision}) is not None
            assert gateway.gateway.proposals.agreed(thread, {"decision": {**decision, "approve": False}}) is None
            assert gateway.gateway.proposals.agreed(thread, {"message": "yes please"}) is not None
            assert gateway.gateway.proposals.agreed(thread, {"message": "no"}) is None
            run_id = await client.start(thread, decision=decision)
            done = [event async for event in client.events(run_id)]
            return asked, done, thread

    asked, done, thread = asyncio.run(go())
    assert asked[-1].data["reason"] == "waiting" and done[-1].data["reason"] == "answered"
    assert gateway.gateway.proposals.get(thread) is None
