"""A small agent of real LangGraph, graphs in graphs, for tests that need slow, many or failing events.

It does what a message says, word by word: `say N` tells N tokens, each after a request to the model server where there
is one, else after a pause; `invoice ORDER` writes to the shop between two tokens; `ask` interrupts for a decision;
`fail` raises; `big N` tells events of 64 kB; `deaf` does not listen to a cancellation for a while.

    python small_service.py FOLDER OPTIONS_JSON      serves it in a process of its own
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_config, get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from stage3_agents_llmops.agent.events import Decision, Event
from stage3_agents_llmops.agent.shop import Shop, call_tool


def merge(old: list[dict], new: list[dict]) -> list[dict]:
    """Add new messages; a graph inside another gives all of them back."""
    return new if new[: len(old)] == old else old + new


class State(TypedDict, total=False):
    messages: Annotated[list[dict], merge]
    turn: int
    order: str
    customer_id: str


class SmallAgent:
    """The protocol of `runs.Agent` around the graph."""

    def __init__(self, saver: AsyncSqliteSaver, shop: Shop, model_url: str | None, pause: float) -> None:
        self.shop, self.model_url, self.pause = shop, model_url, pause
        self.http = httpx.AsyncClient(trust_env=False, timeout=10)
        self.graph = self._build().compile(checkpointer=saver)
        self.facts = {"understander": "words", "wording": "words", "model": model_url}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, folder: Path, shop: Path, model_url: str | None = None, pause: float = 0.01
    ) -> AsyncIterator["SmallAgent"]:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver:
            agent = cls(saver, Shop(shop), model_url, pause)
            try:
                yield agent
            finally:
                await agent.http.aclose()

    def _build(self) -> StateGraph:
        inner = StateGraph(State).add_node("work", self._work).add_edge(START, "work").add_edge("work", END).compile()
        middle = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").add_edge("inner", END).compile()

        async def by_hand(state: State) -> dict:  # the other way to nest: called inside a node
            return {"messages": (await middle.ainvoke(state))["messages"]}

        def kind(state: State) -> str:
            text = state["messages"][-1]["text"]
            return "confirm" if text == "ask" else "by_hand" if text.endswith("by hand") else "agent"

        graph = StateGraph(State)
        graph.add_node("agent", middle).add_node("by_hand", by_hand).add_node("confirm", self._confirm)
        graph.add_conditional_edges(START, kind, ["agent", "by_hand", "confirm"])
        return graph

    async def _confirm(self, state: State) -> dict:
        proposal = {"proposal_id": f"p-{state['turn']}", "tool": "cancel_order", "arguments": {}, "summary": "?",
                    "title": "?"}  # fmt: skip
        yes = interrupt(proposal)
        return {"messages": [self._answer(state, "done" if yes else "left")]}

    def _answer(self, state: State, text: str) -> dict:
        return {"role": "agent", "text": text, "turn": state["turn"], "citations": []}

    async def _work(self, state: State) -> dict:
        tell = get_stream_writer()
        words = state["messages"][-1]["text"].split()
        told = []
        if words[0] == "fail":
            raise ValueError(f"cannot work on {state['messages'][-1]['text']}")
        if words[0] == "deaf":
            tell({"type": "token", "text": "pardon? "})
            until = time.monotonic() + 8
            while time.monotonic() < until:
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    continue
        count = int(words[1]) if words[0] in ("say", "big") else 20
        for number in range(count):
            await self._think()
            if words[0] == "invoice" and number == count // 2:
                key = f"{get_config()['configurable']['thread_id']}-{state['turn']}"
                await asyncio.to_thread(
                    call_tool, self.shop, "send_invoice", state["customer_id"], {"order_id": words[1]}, key=key,
                    thread_id="t",
                )  # fmt: skip
            told.append("x" * 65536 if words[0] == "big" else f"w{number} ")
            tell({"type": "token", "text": told[-1]})
        return {"messages": [self._answer(state, "".join(told)[:1000])]}

    async def _think(self) -> None:
        if self.model_url:
            await self.http.post(self.model_url, json={"model": "m"})
        else:
            await asyncio.sleep(self.pause)

    async def stream(
        self, *, thread_id: str, customer_id: str, message: str | None = None, decision: Decision | None = None,
        resume: bool = False, run_id: str | None = None, language: str | None = None,
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        config = {"configurable": {"thread_id": thread_id}, "recursion_limit": 25}
        state = await self.graph.aget_state(config)
        turn, given = state.values.get("turn", 0) + 1, None
        if resume and run_id in [m.get("run") for m in state.values.get("messages", [])]:
            turn -= 1
        elif decision:
            turn, given = turn - 1, Command(resume=decision.approve)
        else:
            given = {"messages": [{"role": "customer", "text": message, "turn": turn, "run": run_id}], "turn": turn,
                     "customer_id": customer_id}  # fmt: skip
        yield Event("start", {"thread_id": thread_id, "turn": turn, "run_id": run_id, "understander": "words",
                              "wording": "words", "resumed": resume, "schema": 1})  # fmt: skip
        modes = ["custom", "updates"]
        reason, text = "answered", ""
        async for part in self.graph.astream(given, config, stream_mode=modes, subgraphs=True, durability="sync",
                                             version="v2"):  # fmt: skip
            if part["type"] == "custom":
                text += part["data"]["text"]
                yield Event("token", {"text": part["data"]["text"]})
            elif "__interrupt__" in part["data"] and not part["ns"]:
                reason = "waiting"
                yield Event("interrupt", part["data"]["__interrupt__"][0].value)
        yield Event("end", {"reason": reason, "text": text[:1000]})

    async def snapshot(self, thread_id: str) -> dict[str, Any]:
        state = await self.graph.aget_state({"configurable": {"thread_id": thread_id}})
        asked = [one.value for task in state.tasks for one in task.interrupts]
        messages = [{k: v for k, v in m.items() if k != "run"} for m in state.values.get("messages", [])]
        return {"messages": messages, "turn": state.values.get("turn", 0), "proposal": asked[0] if asked else None,
                "human": any(m["text"] == "person" for m in messages)}  # fmt: skip

    async def cancelled_text(self, thread_id: str) -> str:
        return "stopped"

    async def operator_reply(self, thread_id: str, text: str) -> None:
        config = {"configurable": {"thread_id": thread_id}}
        message = {"role": "human", "text": text, "turn": 0}
        await self.graph.aupdate_state(config, {"messages": [message]}, as_node="agent")

    async def release(self, thread_id: str) -> None:
        await self.operator_reply(thread_id, "released")

    def draw(self) -> str:
        return self.graph.get_graph(xray=True).draw_mermaid()

    def topology(self) -> dict[str, Any]:
        drawn = self.graph.get_graph(xray=True)
        edges = [{"source": e.source, "target": e.target, "conditional": e.conditional} for e in drawn.edges]
        return {"nodes": list(drawn.nodes), "edges": edges}


def small_app(
    folder: Path, model_url: str | None = None, pause: float = 0.01, demo: bool = True, instance: str = "main",
    **limits: Any,
) -> Any:  # fmt: skip
    """The service around the small agent; the shop lies in the folder."""
    from stage3_agents_llmops.agent.guardrails.pii import mask_pii
    from stage3_agents_llmops.agent.service.app import ServiceOptions, make_app
    from stage3_agents_llmops.agent.service.limits import Limits

    shop = folder / "shop.sqlite"
    options = ServiceOptions(folder, shop, lambda text: mask_pii(text).text, Limits(**limits), demo, instance)
    return make_app(lambda: SmallAgent.open(folder, shop, model_url, pause), options)


def main() -> int:
    from stage3_agents_llmops.agent.service.instances import instance
    from stage3_agents_llmops.agent.service.private_logs import private_logging
    from stage3_agents_llmops.agent.service.server import bind, run_server

    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    private_logging()
    port = options.pop("port", 0)
    app = small_app(folder, **options)
    with instance(folder, options.get("instance", "main")), bind("127.0.0.1", port) as listening:
        from stage3_agents_llmops.agent.service.limits import Limits

        limits = Limits(grace=options.get("grace", 5.0))
        return run_server(app, listening, limits, lambda: print(listening.getsockname()[1], flush=True))


if __name__ == "__main__":
    sys.exit(main())
