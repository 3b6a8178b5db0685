"""The supervisor: whose turn is it? It gives every request to an agent and takes it back, and stops loops.

Agents do not call each other. One that cannot go on names another, and the supervisor passes the request on as long as
the run's handoffs allow it; after that a person takes over.
"""

from typing import Any, Literal

from langgraph.types import Command

from stage3_agents_llmops.agent.agents import complaint_agent, order_agent, product_agent, refund_agent
from stage3_agents_llmops.agent.dialogue import asks_about_rules
from stage3_agents_llmops.agent.run_context import RunContext, node, tell
from stage3_agents_llmops.agent.shop import TOOLS
from stage3_agents_llmops.agent.state import AGENTS, ConversationState, Outcome, Request
from stage3_agents_llmops.agent.worklist import finish, outcome

AGENT_OF = {
    intent: name
    for name, module in (
        ("order_agent", order_agent),
        ("refund_agent", refund_agent),
        ("product_agent", product_agent),
        ("complaint_agent", complaint_agent),
    )
    for intent in module.INTENTS
}
SMALL_TALK = ("greeting", "thanks")
FORBIDDEN = "forbidden"  # the intent of a wish that no tool can fulfil; the slot `rule` has the rule
Target = Literal[
    "order_agent", "refund_agent", "product_agent", "complaint_agent", "human_handoff", "retrieve", "generate"
]


# exercise: agent.route
def route(request: Request) -> str:
    """The node that works on a request.

    - `greeting`, `thanks` and FORBIDDEN: "generate", there is nothing to do but to answer;
    - `human_agent`: "human_handoff";
    - what nobody understood (`abstain`) or the shop does not do (`out_of_scope`): "retrieve", the help centre may know;
    - a question about the rules (`asks_about_rules`) that names no order: "retrieve" as well, "how long can I return
      something?" has the intent `return_item` and is no return;
    - every other intent: its agent, from AGENT_OF.
    """
    intent = request["intent"]
    if intent in (*SMALL_TALK, FORBIDDEN):
        return "generate"
    if intent == "human_agent":
        return "human_handoff"
    if request.get("abstain") or intent == "out_of_scope":
        return "retrieve"
    if "order_id" not in request["slots"] and not request.get("filled") and asks_about_rules(request["text"]):
        return "retrieve"
    return AGENT_OF[intent]


# end exercise


# exercise: agent.may_handoff
def may_handoff(count: int, limit: int, sender: str, receiver: str) -> bool:
    """Whether one agent may pass a request on to another.

    A person may always be called. Between agents it is allowed while fewer than `limit` handoffs were made in this
    run, and never from an agent to itself.
    """
    if receiver == "human_handoff":
        return True
    return sender != receiver and count < limit


# end exercise


def next_request(state: ConversationState) -> Request | None:
    """The first request that is still open. While a proposal waits for its yes, only those that need none."""
    for request in state["requests"]:
        waits = state.get("proposal") and needs_a_yes(request)
        if request["status"] == "open" and not waits:
            return request
    return None


def needs_a_yes(request: Request) -> bool:
    """Whether working on the request may end in a question to confirm."""
    spec = TOOLS.get(request["intent"])
    return spec is not None and spec.sensitive and route(request) != "retrieve"


@node("supervisor")
async def supervisor(state: ConversationState, context: RunContext) -> Command[Target]:
    """Pass on what an agent could not finish, else the next request; when there is none, the answer is due."""
    if state.get("handoff_to"):
        return pass_on(state, context.services.settings.max_handoffs)
    chatted: dict[str, Any] = {}
    while (request := next_request(state)) and route(request) == "generate":
        chatted |= finish({**state, "current": request["number"]}, plain_answer(request, state))
        state = {**state, **chatted}
    if request is None:
        return Command(goto="generate", update=chatted | {"current": None})
    target = route(request)
    if target != state["active_agent"]:
        tell("handoff", **{"from": state["active_agent"], "to": target, "count": state["handoffs"]})
    update = chatted | {"current": request["number"], "active_agent": target}
    return Command(goto=target, update=update | ({"answered_by": target} if target in AGENTS else {}))


def pass_on(state: ConversationState, limit: int) -> Command[Target]:
    """The handoff that an agent asked for, or a person where there were too many."""
    sender, receiver = state["active_agent"], state["handoff_to"]
    count = state["handoffs"] + 1
    update: dict[str, Any] = {"handoff_to": None, "handoffs": count, "active_agent": receiver}
    if not may_handoff(state["handoffs"], limit, sender, receiver):
        receiver = "human_handoff"
        said = finish(state, outcome("passed_around"))
        update |= said | {"active_agent": receiver}
    tell("handoff", **{"from": sender, "to": receiver, "count": count})
    return Command(goto=receiver, update=update | ({"answered_by": receiver} if receiver in AGENTS else {}))


def plain_answer(request: Request, state: ConversationState) -> Outcome:
    """What to say to a greeting, a thank you, or a wish that a rule forbids."""
    if request["intent"] == FORBIDDEN:
        return outcome(f"refused_{request['slots']['rule']}", rule=request["slots"]["rule"])
    if request["intent"] == "thanks":
        return outcome("thanks")
    return outcome("greeting" if state["turn"] == 1 else "greeting_again")
