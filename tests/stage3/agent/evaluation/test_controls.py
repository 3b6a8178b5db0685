"""Agents that must fail the whole suite, and the machinery around a conversation."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import httpx
import pytest

from data.scripted_customers.dialogue import Decide, Proposal, Say, Turn
from data.scripted_customers.judge import open_case
from data.scripted_customers.shop_values import Market
from data.shop.shop_database import dump
from stage3_agents_llmops.agent.evaluation.controls import (
    EagerAgent,
    ForgettingAgent,
    NullAgent,
    RefusingAgent,
)
from stage3_agents_llmops.agent.evaluation.conversation import ConversationOverHttp, InfrastructureError, turn_of
from stage3_agents_llmops.agent.evaluation.llm_user import LlmUser
from stage3_agents_llmops.agent.evaluation.player import RestartGate, play
from stage3_agents_llmops.agent.evaluation.suite import make_shop, run_suite, scripts_of
from stage3_agents_llmops.agent.model_client import ModelClient


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("shop") / "shop.sqlite", 2)


@pytest.mark.parametrize(("agent", "most"), [(NullAgent(), 0.05), (RefusingAgent(), 0.15)])
def test_doing_nothing_solves_next_to_nothing(shop, agent, most):
    """Catches: tasks that are solved by staying out of trouble (tau2-bench, issue 384)."""
    result = asyncio.run(run_suite(agent, scripts_of(), shop, seed=2, trials=[0]))
    assert len(result.judged) == len(scripts_of()) and result.pass_power(1) <= most
    assert result.violations == result.unconfirmed == 0


class Scripted:
    """A conversation that answers from a list, and remembers what it was told."""

    name = "scripted"

    def __init__(self, *turns: Turn) -> None:
        self.turns, self.acts, self.threads, self.restarts = list(turns), [], [], 0

    async def converse(self, customer_id: str, language: str, thread_id: str) -> "Scripted":
        self.threads.append(thread_id)
        return self

    async def take(self, act) -> Turn:
        self.acts.append(act)
        return self.turns.pop(0) if self.turns else Turn("Yes?")

    async def restart(self) -> None:
        self.restarts += 1


PROPOSAL = Proposal("p1", "cancel_order", {"order_id": "KM204817"})


def test_the_forgetter_opens_a_new_conversation_with_every_message():
    """Catches: a control that remembers; only a button belongs to the conversation that proposed."""

    async def talk():
        agent = Scripted()
        conversation = await ForgettingAgent(agent).converse("C1", "en", "t")
        for act in (Say("a"), Decide(PROPOSAL, True), Say("b")):
            await conversation.take(act)
        return agent.threads

    assert asyncio.run(talk()) == ["t-1", "t-2"]


def test_the_eager_one_approves_its_own_proposals():
    """Catches: a control that still asks."""

    async def talk():
        agent = Scripted(Turn("Shall I?", PROPOSAL), Turn("Done."))
        conversation = await EagerAgent(agent).converse("C1", "en", "t")
        return await conversation.take(Say("cancel")), agent.acts

    turn, acts = asyncio.run(talk())
    assert turn.proposal is None and "Done." in turn.text and acts[1] == Decide(PROPOSAL, True)


def test_the_gate_restarts_once_when_all_have_left_or_ended():
    """Catches: a restart in the middle of somebody's sentence, and a gate that waits for whoever never comes."""

    async def go():
        agent = Scripted()
        gate, order = RestartGate(agent, 3), []

        async def leaves(name: str) -> None:
            order.append(f"{name} leaves")
            await gate.leave()
            order.append(f"{name} is back, restarts {agent.restarts}")

        async with asyncio.timeout(5):
            await asyncio.gather(leaves("a"), leaves("b"), gate.ended())
        return order, agent.restarts

    order, restarts = asyncio.run(go())
    assert restarts == 1 and order[:2] == ["a leaves", "b leaves"] and order[2].endswith("restarts 1")


def test_a_run_becomes_a_turn_and_a_resumed_start_voids_what_came_before():
    """Catches: an answer told twice after a crash, and a proposal that was withdrawn."""
    asked = {"proposal_id": "p1", "tool": "cancel_order", "arguments": {}, "summary": "?", "title": "?"}
    events = [("start", {}), ("token", {"text": "lost"}), ("citation", {"number": 1}), ("start", {"resumed": True})]
    events += [("slots", {"slots": {}, "asked": "reason"}), ("token", {"text": "a"}), ("token", {"text": "b"})]
    turn = turn_of([*events, ("interrupt", asked), ("end", {"reason": "waiting", "text": "ab"})], 0.5)
    assert (turn.text, turn.asked, turn.citations, turn.streamed) == ("ab", "reason", (), True)
    assert turn.proposal == Proposal("p1", "cancel_order", {}, "?")
    assert turn_of([*events, ("interrupt", asked), ("end", {"reason": "answered", "text": "x"})], 0).proposal is None
    assert turn_of(events, 0).end == "failed"


def service(answers: list[httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="http://shop", transport=httpx.MockTransport(lambda request: answers.pop(0)))


def test_over_http_a_busy_service_is_asked_again_and_a_broken_one_is_told_apart():
    """Catches: a 429 or a dead service that counts as the agent's wrong answer."""
    sse = 'id: 1\nevent: token\ndata: {"text": "hi"}\n\n: ping\n\nid: 2\nevent: end\n'
    sse += 'data: {"reason": "answered", "text": "hi"}\n\n'

    async def talk(*answers: httpx.Response) -> Turn:
        async with service(list(answers)) as client:
            conversation = await ConversationOverHttp.open(client, "en")
            return await conversation.take(Say("hello"))

    thread, run = httpx.Response(201, json={"thread_id": "t"}), httpx.Response(202, json={"run_id": "r"})
    busy = httpx.Response(429, headers={"Retry-After": "0.01"})
    stream = httpx.Response(200, text=sse, headers={"Content-Type": "text/event-stream"})
    assert asyncio.run(talk(busy, thread, busy, run, stream)).text == "hi"
    with pytest.raises(InfrastructureError, match="500"):
        asyncio.run(talk(thread, httpx.Response(500)))


def test_trials_that_could_not_be_held_are_counted_apart(shop):
    """Catches: an unreachable server that lowers, or raises, the agent's figures."""

    class Flaky(Scripted):
        async def converse(self, customer_id: str, language: str, thread_id: str):
            if "cancels" in thread_id:
                raise InfrastructureError("connection refused")
            return await super().converse(customer_id, language, thread_id)

    scripts = scripts_of("cancels_in_time,parcel_then_invoice")
    result = asyncio.run(run_suite(Flaky(), scripts, shop, seed=3, trials=[0, 1]))
    assert (len(result.judged), result.infrastructure_errors) == (2, 2)
    assert result.pass_power(1) == 0 and result.pass_power(1, theme="policy") is None


# ------------------------------------------------------------------------------------------- a model as the customer


@pytest.fixture
def model():
    """An OpenAI-compatible server over real HTTP; its answers are what the list holds, then STOP."""
    asked, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"data": [{"id": "m"}]})

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            text = answers.pop(0) if answers else "###STOP###"
            self.answer({"choices": [{"message": {"content": text}}]})

        def answer(self, body: dict) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked, answers
    server.shutdown()
    server.server_close()
    thread.join()


def simulated(shop, url: str, name: str, *turns: Turn):
    """Play a script by a model against fixed turns: the outcome, the case, the agent."""
    before = dump(shop)
    market, script = Market.of(before), scripts_of(name)[0]
    case = open_case(script, market.find(script, Random(1)), shop, Random(2), market.today, before["products"])

    async def go():
        agent, client = Scripted(*turns), ModelClient(url, deadline=5)
        case.customer = LlmUser(case, client)
        try:
            return await play(case, agent, 0, "t", RestartGate(agent, 1)), agent
        finally:
            await client.close()

    return *asyncio.run(go()), case


def test_a_model_plays_the_customer_and_the_script_decides(shop, model):
    """Catches: a simulated user that confirms what the script does not want, or whose words are not its own."""
    url, asked, answers = model
    answers += ["hey, pls cancel my stuff", "thx"]
    outcome, agent, case = simulated(shop, url, "cancels_in_time", Turn("Shall I?", PROPOSAL), Turn("All right."))
    assert agent.acts[0] == Say("hey, pls cancel my stuff")
    declined = agent.acts[1]
    assert (declined.approve if isinstance(declined, Decide) else declined.approves) is False
    assert agent.acts[2] == Say("thx") and case.customer.done and not outcome.verdict.solved
    prompt = asked[0]["messages"][0]["content"]
    assert case.found.values["order.id"] in prompt and "English" in prompt
    assert asked[1]["messages"][-1] == {"role": "user", "content": "All right."}


def test_a_model_as_the_customer_leaves_as_the_script_does(shop, model):
    """Catches: a simulated customer under whom the service is never restarted."""
    url, _, answers = model
    answers += ["is it sent?", "thanks", "me again"]
    _, agent, case = simulated(shop, url, "comes_back_tomorrow", Turn("Not yet."))
    assert agent.restarts == 1 and [act.text for act in agent.acts][:2] == ["is it sent?", "thanks"]


def test_a_model_that_is_gone_is_no_fault_of_the_agent(shop):
    """Catches: an agent that fails because its simulated customer is silent."""
    outcome, _, _ = simulated(shop, "http://127.0.0.1:9", "cancels_in_time")
    assert outcome.verdict is None and "simulated customer" in outcome.error
