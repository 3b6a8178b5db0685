"""Before a sensitive write the graph stops (confirm) and goes on only with the customer's answer; then it writes (act).

LangGraph runs a node from its first line again when it is resumed, so `confirm` does nothing before `interrupt` that
anybody could notice, and it is the only node that interrupts. The write stands alone in `act`: a process that dies
there runs it again, and the idempotency key, the proposal's id, makes the second time a look-up.
"""

import asyncio
from typing import Any, Literal

from langgraph.types import Command, interrupt

from stage3_agents_llmops.agent.run_context import RunContext, node, tell
from stage3_agents_llmops.agent.shop import TOOLS, ToolError, ToolResult, call_tool, record_confirmation
from stage3_agents_llmops.agent.state import ConversationState, Proposal, new_run
from stage3_agents_llmops.agent.wording import money, tool_title
from stage3_agents_llmops.agent.worklist import changed, outcome, told

SHOWN = ("proposal_id", "tool", "arguments", "summary", "title")


def shown(proposal: Proposal) -> dict[str, Any]:
    """What the customer is asked to agree to."""
    return {name: proposal[name] for name in SHOWN}


def decision_of(proposal: Proposal, approve: bool) -> dict[str, Any]:
    """The decision as the conversation keeps it."""
    return {"proposal_id": proposal["proposal_id"], "approve": approve}


@node("confirm")
async def confirm(state: ConversationState, context: RunContext) -> Command[Literal["act", "supervisor", "guard"]]:
    """Wait. A button's answer is taken as it is; words go through guard and classify like every message."""
    asks = context.services.settings.ask_before_writing
    answer = interrupt(shown(state["proposal"])) if asks else {"approve": True}
    update = new_run(context.run_id)
    if answer.get("incoming"):
        return Command(goto="guard", update=update | {"incoming": answer["incoming"]})
    proposal = state["proposal"]
    await asyncio.to_thread(record, context, proposal, answer["approve"])
    update |= {"proposal": None, "turn": state["turn"] + 1, "current": proposal["request"], "failures": 0,
               "decided": decision_of(proposal, answer["approve"])}  # fmt: skip
    if answer["approve"]:
        return Command(goto="act", update=update | {"write": proposal})
    said = outcome("declined", proposal["request"], title=tool_title(proposal["tool"], state["language"]))
    requests = changed(state, proposal["request"], status="done")
    return Command(goto="supervisor", update=update | {"outcomes": [said], "requests": requests})


def record(context: RunContext, proposal: Proposal, approve: bool) -> None:
    """Keep the decision in the shop, where the write will look for it."""
    record_confirmation(
        context.services.shop, proposal["proposal_id"], context.customer_id, context.thread_id, proposal["tool"],
        proposal["arguments"], approve,
    )  # fmt: skip


@node("act")
async def act(state: ConversationState, context: RunContext) -> dict[str, Any]:
    """Do the write that `write` holds, and say what came of it."""
    proposal = state["write"]
    result = await write(context, proposal)
    said = result_outcome(result, proposal, state["language"])
    requests = changed(state, proposal["request"], status="done")
    outcomes = told(state, said)
    if proposal["tool"] == "open_complaint" and (state.get("offer") or {}).get("intent") == "return_item":
        outcomes.append(outcome("offer_return", order_id=state["offer"]["slots"]["order_id"]))
    return {"write": None, "requests": requests, "outcomes": outcomes}


async def write(context: RunContext, proposal: Proposal) -> ToolResult | ToolError:
    """The call in a thread, told before and after. A run that is stopped meanwhile still learns what was written."""
    tool, arguments = proposal["tool"], proposal["arguments"]
    told_as = {"name": tool, "arguments": arguments, "sensitive": TOOLS[tool].sensitive, "write": True}
    tell("tool", phase="call", **told_as)
    task = asyncio.create_task(asyncio.to_thread(attempt, context, proposal))
    try:
        result = await asyncio.shield(task)
    except asyncio.CancelledError:
        result = await task
        if isinstance(result, ToolResult):
            context.written.append({"proposal": proposal, "result": result})
        raise
    ok = isinstance(result, ToolResult)
    if ok:
        context.written.append({"proposal": proposal, "result": result})
    code = result.message_code if ok else result.code
    tell("tool", phase="result", ok=ok, message_code=code, result=dict(result.data) if ok else {}, **told_as)
    return result


def attempt(context: RunContext, proposal: Proposal) -> ToolResult | ToolError:
    """The one door to every write. A refusal is a result like another; a busy shop is an error of the run."""
    try:
        return call_tool(
            context.services.shop, proposal["tool"], context.customer_id, proposal["arguments"],
            key=proposal["proposal_id"], thread_id=context.thread_id,
        )  # fmt: skip
    except ToolError as error:
        if error.code == "busy":
            raise
        return error


def result_outcome(result: ToolResult | ToolError, proposal: Proposal, language: str) -> dict[str, Any]:
    """What to say: what was done, or that it could not be done any more."""
    facts = dict(proposal["facts"])
    if isinstance(result, ToolError):
        return outcome("not_done", proposal["request"], title=tool_title(proposal["tool"], language), **facts)
    facts = {name: value for name, value in result.data.items() if isinstance(value, str | int)} | facts
    if "refund_cents" in result.data:
        facts["amount"] = money(result.data["refund_cents"], result.data["currency"])
    return outcome(f"done_{result.message_code}", proposal["request"], **facts)
