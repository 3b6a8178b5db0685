"""Several instances of one shop, draining, and what a release changes."""

import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_under_test import ALICE, BOB, Running, operator
from test_restart import Process, processes

from labkit.errors import LabError
from labkit.files import write_json
from stage3_agents_llmops.agent import AgentSettings, CustomerServiceAgent
from stage3_agents_llmops.agent.release import CHECKOUT, ReleaseFolder
from stage3_agents_llmops.agent.service.auth import ADMIN
from stage3_agents_llmops.agent.service.instances import dead, instance
from stage3_agents_llmops.agent.wording import FOLDER as ANSWERS

sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))

from graph_stand_ins import KeywordUnderstander, SmallKnowledge, orders_like  # noqa: E402

# -- instances


@pytest.fixture
def process(folder: Path) -> Iterator[Callable[..., Process]]:
    yield from processes(folder)


def test_a_name_can_be_held_once_and_a_dead_one_is_known_to_be_dead(tmp_path: Path) -> None:
    with dead(tmp_path, "old") as is_dead:
        assert not is_dead  # it never held a lock: nobody can tell
    with instance(tmp_path, "old"):
        with dead(tmp_path, "old") as is_dead:
            assert not is_dead
        with instance(tmp_path, "new"), pytest.raises(LabError, match="another service called old"):
            instance(tmp_path, "old").__enter__()
    with dead(tmp_path, "old") as is_dead:
        assert is_dead
        with pytest.raises(LabError):  # it cannot come back while it is being buried
            instance(tmp_path, "old").__enter__()


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, ".hidden"])
def test_a_name_that_would_be_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabError, match="cannot be the name"):
        instance(tmp_path, name).__enter__()


def test_two_instances_share_conversations_and_one_knows_whose_run_it_is(serve: Callable[..., Running]) -> None:
    old, new = serve(instance="old", pause=0.05), serve(instance="new")
    with old.http() as first, new.http() as second:
        thread = first.post("/threads").json()["thread_id"]
        run_id = first.post(f"/threads/{thread}/runs", json={"message": "say 20"}).json()["run_id"]
        answer = second.get(f"/runs/{run_id}/events")
        assert (answer.status_code, answer.json()["code"]) == (421, "elsewhere")
        assert second.get(f"/threads/{thread}").json()["run"]["run_id"] == run_id
        assert second.get("/threads").json()["threads"][0]["run_id"] == run_id
        assert second.post(f"/threads/{thread}/runs", json={"message": "say 1"}).status_code == 409
        assert "event: end" in first.get(f"/runs/{run_id}/events").text
        assert "event: end" in second.get(f"/runs/{run_id}/events").text  # over: anybody has it
        assert second.post(f"/threads/{thread}/runs", json={"message": "say 1"}).status_code == 202
        assert (first.get("/health").json()["instance"], second.get("/health").json()["instance"]) == ("old", "new")


def test_a_run_of_a_killed_instance_is_taken_over_by_one_that_lives(process: Callable[..., Process]) -> None:
    old, new = process(instance="old"), process(instance="new")

    async def go() -> tuple[list[int], list[str], list[bool]]:
        async with old.running().client() as client:
            run_id = await client.start(await client.open_thread(), message="say 40")
            seen = []
            async for event in client.stream(run_id):
                seen.append(event)
                if len(seen) == 10:
                    break
        await asyncio.to_thread(old.kill)
        async with new.running().client() as client:
            while (await client.http.get(f"/runs/{run_id}/events?after=10", timeout=20)).status_code == 421:
                await asyncio.sleep(0.1)
            seen += [event async for event in client.events(run_id, after=10)]
        starts = [event.data["resumed"] for event in seen if event.type == "start"]
        return [event.seq for event in seen], [event.type for event in seen], starts

    seqs, types, resumed = asyncio.run(go())
    assert seqs == list(range(1, len(seqs) + 1))
    assert (types[-1], types.count("end"), resumed) == ("end", 1, [False, True])


def test_runs_of_a_living_instance_are_left_alone(process: Callable[..., Process]) -> None:
    old = process(instance="old", pause=0.1)
    new = process(instance="new", watch_seconds=0.1)
    with old.running().http() as http:
        thread = http.post("/threads").json()["thread_id"]
        run_id = http.post(f"/threads/{thread}/runs", json={"message": "say 15"}).json()["run_id"]
        with http.stream("GET", f"/runs/{run_id}/events") as answer:
            text = "".join(answer.iter_text())
    assert text.count("event: start") == 1
    with new.running().http() as http:
        assert "agent_runs_resumed_total 0.0" in http.get("/metrics").text


# -- draining


def test_a_drained_service_refuses_with_a_code_finishes_its_runs_and_is_done(serve: Callable[..., Running]) -> None:
    small = serve(pause=0.05)
    with small.http() as http, small.http(ADMIN) as admin:
        thread, other = (http.post("/threads").json()["thread_id"] for _ in range(2))
        run_id = http.post(f"/threads/{thread}/runs", json={"message": "say 20"}).json()["run_id"]
        assert admin.post("/admin/drain").json() == {"status": "draining", "runs": 1}
        refused = http.post(f"/threads/{other}/runs", json={"message": "say 1"})
        assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (503, "draining", "1")
        assert http.get("/health").json()["status"] == "draining"
        assert not small.service.drained.is_set()
        text = http.get(f"/runs/{run_id}/events").text  # opened after the drain began
        assert text.count("event: token") == 20 and text.count("event: end") == 1
        deadline = time.monotonic() + 10
        while not small.service.drained.is_set() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert small.service.drained.is_set()


@pytest.mark.parametrize(("who", "status"), [(ALICE, 403), ("operator", 403), (None, 401)])
def test_only_the_admins_token_drains(small: Running, who: str | None, status: int) -> None:
    with small.http(who) as http:
        assert http.post("/admin/drain").status_code == status
        assert http.get("/health").json()["status"] == "ready"


def test_the_admin_is_no_customer(small: Running) -> None:
    with small.http(ADMIN) as http:
        assert http.post("/threads").status_code == 403
        assert http.get("/operator/queue").status_code == 403
    assert asyncio.run(operator(small).call("GET", "/operator/queue")) == {"queue": []}


@pytest.mark.parametrize("how", ["SIGTERM", "POST /admin/drain"])
def test_a_drained_process_is_read_to_the_end_and_ends_by_itself(process: Callable[..., Process], how: str) -> None:
    service = process(pause=0.05, grace=10.0)
    with service.running().http() as http, service.running().http(ADMIN) as admin:
        thread = http.post("/threads").json()["thread_id"]
        run_id = http.post(f"/threads/{thread}/runs", json={"message": "say 20"}).json()["run_id"]
        if how == "SIGTERM":
            service.child.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        else:
            admin.post("/admin/drain")
        text = http.get(f"/runs/{run_id}/events").text  # a connection made while it drains
    assert text.count("event: token") == 20 and "event: end" in text
    assert service.child.wait(15) == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(service.running().url + "/health", trust_env=False)


def test_a_second_signal_does_not_wait(process: Callable[..., Process]) -> None:
    service = process(pause=1.0, grace=1.0)
    with service.running().http(BOB) as http:
        thread = http.post("/threads").json()["thread_id"]
        http.post(f"/threads/{thread}/runs", json={"message": "say 60"})
    service.child.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    service.child.send_signal(signal.SIGTERM)
    assert service.child.wait(20) == 0


# -- releases


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The checkout's wording and one article, as a release without a manifest."""
    folder = tmp_path / "release"
    for language in ("en", "zh"):
        (folder / "rag" / "articles" / language).mkdir(parents=True)
        text = "---\nid: window\ntitle: Returns\ntopic: returns\n---\nYou have 30 days.\n"
        (folder / "rag" / "articles" / language / "window.md").write_text(text, encoding="utf-8")
    shutil.copytree(ANSWERS, folder / "graph" / "answers", ignore=shutil.ignore_patterns("__pycache__"))
    write_json(folder / "graph" / "graph.json", {"overrides": {"max_requests": 1}})
    write_json(folder / "rag" / "rag.json", {"k": 2, "thresholds": {"help/en": 0.7}})
    write_json(folder / "model" / "model.json", {"kind": "classifier"})
    return folder


async def ask(settings: AgentSettings, *messages: str, customer: str = ALICE) -> tuple[Any, list[Any]]:
    stand_ins = {"understander": KeywordUnderstander(), "knowledge": SmallKnowledge()}
    async with CustomerServiceAgent.open(settings, **stand_ins) as agent:
        replies = [await agent.reply(thread_id="t1", customer_id=customer, message=text) for text in messages]
        return agent, replies


def test_wording_and_settings_come_from_the_release_and_two_agents_do_not_mix(folder: Path, release: Path) -> None:
    answers = release / "graph" / "answers" / "en.toml"
    text = answers.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("greeting = "))
    answers.write_text(text.replace(line, 'greeting = "Ahoy!"'), encoding="utf-8")
    plain = AgentSettings(shop=folder / "shop.sqlite", state_dir=folder / "plain")
    released = AgentSettings(shop=folder / "shop.sqlite", state_dir=folder / "released", release=release)

    async def both() -> list[Any]:
        return await asyncio.gather(ask(plain, "hello"), ask(released, "hello"))

    (first, (hello,)), (second, (ahoy,)) = asyncio.run(both())
    assert ahoy.text == "Ahoy!" and hello.text != "Ahoy!"
    assert (first.settings.max_requests, second.settings.max_requests) == (4, 1)
    starts = [reply.events[0].data["release"] for reply in (hello, ahoy)]
    assert starts == [CHECKOUT, ReleaseFolder.open(release).id]
    assert ReleaseFolder.open(release).search_settings() == {"k": 2, "thresholds": {("help", "en"): 0.7}}


def test_a_release_that_does_not_ask_writes_and_one_that_does_asks(folder: Path, release: Path) -> None:
    from stage3_agents_llmops.agent.shop import Shop

    customer, order = orders_like(Shop(folder / "shop.sqlite"), lambda order: order.status == "placed")[0]
    asks = AgentSettings(shop=folder / "shop.sqlite", state_dir=folder / "asks", release=release)
    _, (asked,) = asyncio.run(ask(asks, f"cancel {order.order_id}", customer=customer))
    assert asked.reason == "waiting"
    write_json(release / "graph" / "graph.json", {"overrides": {"ask_before_writing": False}})
    hasty = AgentSettings(shop=folder / "shop.sqlite", state_dir=folder / "hasty", release=release)
    _, (done,) = asyncio.run(ask(hasty, f"cancel {order.order_id}", customer=customer))
    writes = [event.data for event in done.events if event.type == "tool" and event.data.get("write")]
    assert done.interrupt is None and writes[-1]["sensitive"] and writes[-1]["ok"]


def test_a_pause_for_typing_slows_an_answer(folder: Path, release: Path) -> None:
    write_json(release / "graph" / "graph.json", {"overrides": {"typing_pause": 0.05}})
    settings = AgentSettings(shop=folder / "shop.sqlite", state_dir=folder / "slow", release=release)
    began = time.monotonic()
    _, (reply,) = asyncio.run(ask(settings, "hello"))
    tokens = sum(event.type == "token" for event in reply.events)
    assert tokens > 5 and time.monotonic() - began > 0.05 * (tokens - 1)


def spoil(release: Path, what: str) -> None:
    if what == "no graph":
        (release / "graph" / "graph.json").unlink()
    elif what == "not JSON":
        (release / "rag" / "rag.json").write_text("{")
    elif what == "unknown kind":
        write_json(release / "model" / "model.json", {"kind": "oracle"})
    elif what == "unknown setting":
        write_json(release / "graph" / "graph.json", {"overrides": {"max_handofs": 1}})
    elif what == "shop":
        write_json(release / "graph" / "graph.json", {"overrides": {"shop": "/etc/passwd"}})
    elif what == "wrong type":
        write_json(release / "graph" / "graph.json", {"overrides": {"max_requests": "many"}})
    elif what == "impossible":
        write_json(release / "graph" / "graph.json", {"overrides": {"recursion_limit": 0}})
    elif what == "a situation without words":
        path = release / "graph" / "answers" / "zh.toml"
        path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("thanks =")))
    elif what == "no articles":
        shutil.rmtree(release / "rag" / "articles")
    else:
        shutil.rmtree(release)


@pytest.mark.parametrize("what", [
    "no graph", "not JSON", "unknown kind", "unknown setting", "shop", "wrong type", "impossible",
    "a situation without words", "no articles", "nothing there",
])  # fmt: skip
def test_a_release_that_is_not_whole_is_refused_with_advice(folder: Path, release: Path, what: str) -> None:
    spoil(release, what)
    settings = AgentSettings(shop=folder / "shop.sqlite", state_dir=folder / "x", release=release)
    with pytest.raises(LabError) as refused:
        asyncio.run(ask(settings, "hello"))
    assert refused.value.try_next


def test_a_registered_release_is_named_by_its_manifest_and_a_changed_file_is_noticed(
    release: Path, tmp_path: Path
) -> None:
    from stage3_agents_llmops.registry.file_registry import FileRegistry
    from stage3_agents_llmops.registry.release import Draft

    unnamed = ReleaseFolder.open(release).id
    registry = FileRegistry(tmp_path / "registry")
    published = registry.publish(Draft({part: release / part for part in ("model", "rag", "graph")}))
    loaded = registry.load(published.version, tmp_path / "loaded")
    assert ReleaseFolder.open(loaded).id == published.sha256[:12] != unnamed
    article = loaded / "rag" / "articles" / "en" / "window.md"
    article.chmod(0o644)
    article.write_text(article.read_text() + "Send us your card number.\n")
    with pytest.raises(LabError, match=r"window\.md has changed"):
        ReleaseFolder.open(loaded)


def test_an_adapter_needs_somebody_who_serves_it(folder: Path, release: Path) -> None:
    write_json(release / "model" / "model.json", {"kind": "adapter"})
    settings = AgentSettings(shop=folder / "shop.sqlite", state_dir=folder / "x", release=release)

    async def opened() -> None:
        async with CustomerServiceAgent.open(settings, knowledge=SmallKnowledge()):
            pass

    with pytest.raises(LabError, match="is an adapter, and nothing serves it"):
        asyncio.run(opened())


def test_health_names_the_release_and_the_instance(serve: Callable[..., Running]) -> None:
    small = serve(instance="blue")
    with small.http(None) as http:
        health = http.get("/health").json()
    assert (health["release"], health["instance"]) == (CHECKOUT, "blue")
    assert json.loads(json.dumps(health))["status"] == "ready"


def test_an_older_state_folder_still_opens(folder: Path, serve: Callable[..., Running]) -> None:
    """A database from before there were instances: its unfinished runs are this instance's."""
    import sqlite3

    from stage3_agents_llmops.agent.service.database import SCHEMA

    old = SCHEMA.replace("    instance text not null default '',\n", "")
    assert old != SCHEMA
    with sqlite3.connect(folder / "service.sqlite") as connection:
        connection.executescript(old)
        connection.execute("insert into threads values ('th_1', ?, null, '', 1, 1)", (ALICE,))
        sql = "insert into runs (run_id, thread_id, customer_id, message, message_run, created_at) values (?,?,?,?,?,?)"
        connection.execute(sql, ("run_1", "th_1", ALICE, "say 3", 1, 1.0))
    small = serve()
    with small.http() as http:
        assert http.get("/runs/run_1/events").text.count("event: end") == 1
        assert "agent_runs_resumed_total 1.0" in http.get("/metrics").text, "taken up once"


