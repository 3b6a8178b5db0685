"""`CustomerServiceAgent`: messages and decisions in, events out; conversations that survive the process.

async with CustomerServiceAgent.open(settings) as agent:
    reply = await agent.reply(thread_id="t1", customer_id="C1001", message="cancel KM204817 please")
    reply.text, reply.interrupt                       # the question, and what would be done
    decision = Decision(reply.interrupt["proposal_id"], approve=True)
    await agent.reply(thread_id="t1", customer_id="C1001", decision=decision)
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import Any

from langgraph.constants import END
from langgraph.errors import GraphRecursionError
from langgraph.types import Command

from labkit.errors import LabError
from stage3_agents_llmops.agent import human_handoff
from stage3_agents_llmops.agent.drawing import draw_mermaid, graph_topology
from stage3_agents_llmops.agent.events import SCHEMA, Decision, Event, Reply, gather
from stage3_agents_llmops.agent.graph import build_graph
from stage3_agents_llmops.agent.guardrails.pii import mask_pii
from stage3_agents_llmops.agent.memory import open_checkpointer, prune_thread
from stage3_agents_llmops.agent.model_client import ModelClient
from stage3_agents_llmops.agent.profiles import ProfileStore
from stage3_agents_llmops.agent.release import CHECKOUT, ReleaseFolder
from stage3_agents_llmops.agent.run_context import RunContext, Services
from stage3_agents_llmops.agent.run_endings import ending, failed, stale
from stage3_agents_llmops.agent.screening import screen
from stage3_agents_llmops.agent.settings import AgentSettings
from stage3_agents_llmops.agent.shop import Shop, ToolError
from stage3_agents_llmops.agent.state import new_conversation, new_run
from stage3_agents_llmops.agent.thread_errors import NotYourThread, ThreadBusy
from stage3_agents_llmops.agent.understanding import build_understander
from stage3_agents_llmops.agent.understanding.understander import ClassifierUnderstander
from stage3_agents_llmops.agent.wording import FOLDER as ANSWERS
from stage3_agents_llmops.agent.wording import check_wording, say, tool_title, use_wording

log = logging.getLogger(__name__)
TEMPLATES = "templates"
# A step's checkpoint is written while the next one runs. "sync" cannot be had together with subgraphs that have no
# checkpoints (LangGraph 1.2.22 waits for a write that was never begun), and what a process that dies may lose is one
# step, which runs again.
DURABILITY = "async"


class CustomerServiceAgent:
    """The multi-agent customer service over one shop. Open it with `CustomerServiceAgent.open(settings)`.

    Args:
        services: what runs may use.
        checkpointer: keeps the conversations.
        graph: another graph than the course's, for tests.
    """

    def __init__(self, services: Services, checkpointer: Any, graph: Any = None) -> None:
        self.services, self.settings, self.checkpointer = services, services.settings, checkpointer
        self.release_id = services.release.id if services.release else CHECKOUT
        self._answers = services.release.answers if services.release else ANSWERS
        self.graph = graph or build_graph(checkpointer)
        self._running: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: AgentSettings, **services: Any) -> AsyncIterator["CustomerServiceAgent"]:
        """Open the shop, the models and the memory, and close them at the end of the block.

        Args:
            services: instead of those that the settings ask for (`understander`, `knowledge`, `wording`).

        Raises:
            LabError: there is no shop, the memory cannot be opened, or the release is not whole.
        """
        release = ReleaseFolder.open(settings.release) if settings.release else None
        if release:
            check_wording(release.answers)
            settings = release.applied_to(settings)
        async with AsyncExitStack() as stack:
            checkpointer = await stack.enter_async_context(open_checkpointer(settings))
            opened = await asyncio.to_thread(open_services, settings, services | {"release": release})
            stack.callback(opened.profiles.close)
            await warm(opened.understander)
            for client in (opened.wording, getattr(getattr(opened.understander, "first", None), "client", None)):
                if client is not None:
                    stack.push_async_callback(client.close)
            yield cls(opened, checkpointer)

    @property
    def facts(self) -> dict[str, str | None]:
        """Which models are in use, and which release."""
        wording = self.services.wording
        return {
            "understander": self.services.understander.name,
            "wording": (wording.model or "endpoint") if wording else TEMPLATES,
            "model": self.settings.model or getattr(self.services.understander, "model", None),
            "release": self.release_id,
        }

    def screen(self, text: str) -> dict[str, Any]:
        """A message as it may be kept: screened and masked."""
        return screen(text, self.settings.max_message_chars)

    async def stream(
        self, *, thread_id: str, customer_id: str, message: str | None = None, decision: Decision | None = None,
        resume: bool = False, run_id: str | None = None, language: str | None = None,
    ) -> AsyncIterator[Event]:  # fmt: skip
        """One run: `start`, what happens, and exactly one `end`.

        Args:
            message: of the customer.
            decision: about the proposal that waits.
            resume: the run was cut off. With the same run_id (and message or decision) it is begun if it never got
                into the graph, continued if it is unfinished, and told again if only its end was not.
            run_id: kept with the messages.
            language: "en" or "zh", where the first message has no words.

        Raises:
            ThreadBusy: a run is going on in this conversation.
            NotYourThread: the conversation is another customer's.
            LabError: neither message nor decision, or both; or the shop has no such customer.
            asyncio.CancelledError: the task was cancelled; the conversation is in order, and no model is asked again.
        """
        if (message is None) == (decision is None) and not resume:
            raise LabError("a run needs a message or a decision", "one of the two")
        if thread_id in self._running:
            raise ThreadBusy(thread_id)
        self._running.add(thread_id)
        context = RunContext(self.services, thread_id, customer_id, run_id)
        try:
            async with aclosing(self._run(context, message, decision, resume, language)) as events:
                async for event in events:
                    yield event
        finally:
            context.stopped = True
            self._running.discard(thread_id)

    async def reply(self, **call: Any) -> Reply:
        """The same as `stream`, gathered."""
        async with aclosing(self.stream(**call)) as events:
            return gather([event async for event in events])

    async def _run(
        self, context: RunContext, message: str | None, decision: Decision | None, resume: bool, language: str | None
    ) -> AsyncIterator[Event]:
        use_wording(self._answers)
        config = self._config(context.thread_id)
        before = await self.graph.aget_state(config)
        self._check_owner(before.values, context)
        spoken = None if before.values else await asyncio.to_thread(self._shop_language, context.customer_id)
        begun = resume and bool(before.values) and before.values.get("run_id") == context.run_id
        waiting, cut = bool(before.interrupts), cut_off(before)
        turn = before.values.get("turn", 0) + (0 if begun else 1)
        yield Event("start", {"thread_id": context.thread_id, "turn": turn, "run_id": context.run_id, "schema": SCHEMA,
                              "resumed": resume, **self.facts})  # fmt: skip
        if begun and not cut:
            for event in self._told_again(before):
                yield event
            return
        if begun or (resume and message is None and decision is None and cut):
            graph_input: Any = None
        elif decision is not None:
            proposal = before.values.get("proposal") if waiting else None
            if not proposal or proposal["proposal_id"] != decision.proposal_id:
                for event in stale(before.values.get("language", "en")):
                    yield event
                return
            graph_input = Command(resume={"approve": bool(decision.approve)})
        elif message is not None:
            if cut:
                await self._put_in_order(context)
            graph_input = await self._message_input(context, before.values, message, waiting, (language, spoken))
        else:
            for event in failed("nothing_to_resume", "there is nothing to go on with", False, ""):
                yield event
            return
        async with aclosing(self._guarded(context, graph_input, config)) as events:
            async for event in events:
                yield event

    async def _message_input(
        self, context: RunContext, values: dict[str, Any], message: str, waiting: bool, languages: tuple
    ) -> Any:
        """What the graph is given: screened and masked, so that no checkpoint ever holds the message as it came.

        Args:
            languages: of a first message without words: what was asked for, and what the shop knows. The profile's,
                which is the language of the last conversation, comes between them.
        """
        incoming = await asyncio.to_thread(screen, message, self.settings.max_message_chars)
        if waiting:
            return Command(resume={"incoming": incoming})
        first: dict[str, Any] = {}
        if not values:
            profile = await asyncio.to_thread(self.services.profiles.note, context.customer_id, None, None, None, True)
            language = languages[0] or profile.language or languages[1]
            first = new_conversation(context.thread_id, context.customer_id, language)
        return first | new_run(context.run_id) | {"incoming": incoming}

    async def _guarded(self, context: RunContext, graph_input: Any, config: dict[str, Any]) -> AsyncIterator[Event]:
        """The graph's events; whatever goes wrong ends in an honest `end`, and a cancelled run in an orderly thread."""
        try:
            parts = self.graph.astream(
                graph_input, config, context=context, stream_mode="custom", subgraphs=True,
                durability=DURABILITY,
            )  # fmt: skip
            async with aclosing(parts) as stream:
                async for _, event in stream:
                    yield Event(event["type"], event["data"])
            after = await self.graph.aget_state(config)
        except (asyncio.CancelledError, GeneratorExit):
            context.stopped = True
            await asyncio.shield(self._put_in_order(context))
            raise
        except Exception as error:  # the customer gets an answer, the log gets the reason
            log.exception("run %s in %s failed", context.run_id, context.thread_id)
            for event in await self._after_failure(context, error):
                yield event
            return
        await self._remember(context, after.values)
        for event in ending(after):
            yield event

    async def _after_failure(self, context: RunContext, error: Exception) -> list[Event]:
        """Put the conversation in order and say what happened, and what was done before it."""
        code, retryable = "internal", True
        if isinstance(error, GraphRecursionError):
            code, retryable = "loop", False
        elif isinstance(error, ToolError):
            code = error.code
        with suppress(Exception):
            await self._put_in_order(context)
        language = "en"
        with suppress(Exception):
            language = (await self.graph.aget_state(self._config(context.thread_id))).values.get("language", "en")
        text = say("failed_after_write" if context.written else "failed", language)
        return failed(code, type(error).__name__, retryable, text)

    async def _put_in_order(self, context: RunContext) -> None:
        """End the turn that was cut off: what it had not answered is forgotten, what it wrote is said."""
        config = self._config(context.thread_id)
        snapshot = await self.graph.aget_state(config)
        if not snapshot.values or not (snapshot.tasks or snapshot.interrupts):
            return
        while snapshot.tasks:  # a node that had finished makes its successor due, which is cleared as well
            await self.graph.aupdate_state(config, None, as_node=END)
            snapshot = await self.graph.aget_state(config)
        values = snapshot.values
        done = [{**each, "status": "done"} for each in values["requests"]]
        update = new_run(values.get("run_id")) | {"requests": done, "asked": None, "proposal": None, "offer": None}
        if context.written:
            done_already = (tool_title(each["proposal"]["tool"], values["language"]) for each in context.written)
            text = say("stopped_after_write", values["language"], title=", ".join(done_already))
            message = {"role": "agent", "text": text, "turn": values["turn"], "citations": [], "run_id": context.run_id}
            update["messages"] = [*values["messages"], message]
        await self.graph.aupdate_state(config, update, as_node="check")

    async def _remember(self, context: RunContext, values: dict[str, Any]) -> None:
        """After a run: the profile, and no more checkpoints than are needed."""
        order_id = values["slots"].get("order_id")
        await asyncio.to_thread(self.services.profiles.note, context.customer_id, values["language"], order_id)
        await prune_thread(self.checkpointer, context.thread_id, self.settings.keep_checkpoints)

    def _told_again(self, snapshot: Any) -> list[Event]:
        """The end of a run that finished before it could say so."""
        answer = snapshot.values.get("answer", "")
        citations = [Event("citation", citation) for citation in snapshot.values.get("citations", [])]
        return [*citations, *([Event("token", {"text": answer})] if answer else []), *ending(snapshot)]

    def _check_owner(self, values: dict[str, Any], context: RunContext) -> None:
        if values and values.get("customer_id") != context.customer_id:
            raise NotYourThread(context.thread_id)

    def _shop_language(self, customer_id: str) -> str:
        try:
            return self.services.shop.customer(customer_id).language
        except ToolError:
            raise LabError(f"the shop has no customer {customer_id}", "one of the shop's, such as C1001") from None

    def _config(self, thread_id: str) -> dict[str, Any]:
        return {"configurable": {"thread_id": thread_id}, "recursion_limit": self.settings.recursion_limit}

    async def snapshot(self, thread_id: str) -> dict[str, Any]:
        """What a page needs to show a conversation; an empty one that has not begun."""
        state = await self.graph.aget_state(self._config(thread_id))
        values = state.values
        proposal = values.get("proposal") if state.interrupts else None
        return {
            "thread_id": thread_id,
            "customer_id": values.get("customer_id"),
            "messages": values.get("messages", []),
            "slots": values.get("slots", {}),
            "asked": (values.get("asked") or {}).get("slot"),
            "active_agent": values.get("active_agent", "supervisor"),
            "proposal": {name: proposal[name] for name in ("proposal_id", "tool", "arguments", "summary", "title")}
            if proposal
            else None,
            "human": values.get("human", False),
            "human_active": values.get("human_active", False),
            "ticket_id": values.get("ticket_id"),
            "language": values.get("language"),
            "turn": values.get("turn", 0),
            "run_id": values.get("run_id"),
        }

    async def cancelled_text(self, thread_id: str) -> str:
        """What to tell a customer who stopped a run: what it had written before, or that nothing was changed."""
        use_wording(self._answers)
        snapshot = await self.snapshot(thread_id)
        last = snapshot["messages"][-1] if snapshot["messages"] else None
        if last and last["role"] == "agent" and last["run_id"] == snapshot["run_id"]:
            return last["text"]
        return say("stopped", snapshot["language"] or "en")

    async def unfinished(self, thread_id: str) -> bool:
        """Whether a run of the conversation was cut off. One that waits for a yes is not cut off."""
        return cut_off(await self.graph.aget_state(self._config(thread_id)))

    async def operator_reply(self, thread_id: str, text: str) -> dict[str, Any]:
        """A person writes to the customer; the agents are silent from now on. Returns the snapshot.

        Raises:
            LabError: no such conversation, an empty text, or a run is going on.
        """
        text = mask_pii(text.strip()).text
        if not text:
            raise LabError("an empty reply", "write something")
        values = await self._update(thread_id, lambda values: human_handoff.operator_message(values, text))
        await human_handoff.take_ticket(self.services.shop, values.get("ticket_id"))
        return await self.snapshot(thread_id)

    async def release(self, thread_id: str) -> dict[str, Any]:
        """Hand the conversation back to the agents. Returns the snapshot."""
        values = await self._update(thread_id, lambda _: human_handoff.handed_back())
        await human_handoff.close_ticket(self.services.shop, values.get("ticket_id"))
        return await self.snapshot(thread_id)

    async def _update(self, thread_id: str, change: Any) -> dict[str, Any]:
        """Change the state between runs; an open proposal is withdrawn. Returns the values before it."""
        if thread_id in self._running:
            raise ThreadBusy(thread_id)
        self._running.add(thread_id)
        try:
            config = self._config(thread_id)
            values = (await self.graph.aget_state(config)).values
            if not values:
                raise LabError(f"there is no conversation {thread_id}", "one from the queue")
            requests = [{**each, "status": "done"} for each in values["requests"]]
            update = {"proposal": None, "requests": requests, "asked": None, "offer": None} | change(values)
            await self.graph.aupdate_state(config, update, as_node="check")
            return values
        finally:
            self._running.discard(thread_id)

    @staticmethod
    def draw() -> str:
        """The graph as Mermaid, with the agents' inner nodes."""
        return draw_mermaid()

    @staticmethod
    def topology() -> dict[str, list[dict[str, Any]]]:
        """The graph as nodes and edges."""
        return graph_topology()


async def warm(understander: Any) -> None:
    """Load the classifier before the first customer waits for it; also where it only stands in for an endpoint."""
    local = getattr(understander, "second", understander)
    if isinstance(local, ClassifierUnderstander):
        await local.understand("hello", "en")


def cut_off(snapshot: Any) -> bool:
    """Whether a run was cut off. Its `tasks` say so and its `next` does not: a node that had just finished, whose
    successor was not yet known to the checkpoint, is a task and not next."""
    return bool(snapshot.tasks) and not snapshot.interrupts


def open_services(settings: AgentSettings, given: dict[str, Any]) -> Services:
    """What the settings ask for, but for what is given; slow (it loads models), so not for the event loop."""
    shop, release = Shop(settings.shop), given.get("release")
    wording = given.get("wording")
    if wording is None and settings.wording_endpoint:
        wording = ModelClient(
            settings.wording_endpoint, settings.wording_model, settings.wording_api_key, deadline=settings.deadline
        )
    understander = given.get("understander") or build_understander(settings, release)
    knowledge = given.get("knowledge")
    if knowledge is None:
        from stage3_agents_llmops.agent.knowledge import Knowledge  # brings stage 2's search, and with it torch

        knowledge = Knowledge.open(settings)
    return Services(settings, shop, understander, knowledge, ProfileStore(settings.profiles), wording, release)
