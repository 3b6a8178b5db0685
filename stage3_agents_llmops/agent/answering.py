"""The last nodes: the help centre for what no agent knows (retrieve), the words (generate), the check (check).

Nothing reaches the customer that `check` has not seen. The draft is the templates' text; where a model may reword it,
its version is taken only if it says nothing that the facts and passages do not say.
"""

import asyncio
import re
from typing import Any

from stage3_agents_llmops.agent.confirmation import shown
from stage3_agents_llmops.agent.guardrails.grounding import check_grounding
from stage3_agents_llmops.agent.guardrails.injection import screen_message
from stage3_agents_llmops.agent.guardrails.pii import mask_pii
from stage3_agents_llmops.agent.model_client import ModelUnavailable
from stage3_agents_llmops.agent.retrieval import find_passages, quote
from stage3_agents_llmops.agent.run_context import RunContext, node, tell
from stage3_agents_llmops.agent.state import ConversationState
from stage3_agents_llmops.agent.wording import say
from stage3_agents_llmops.agent.worklist import current_request, finish, outcome

TOKEN = re.compile(r"\s*[\u3000-\u9fff\uff00-\uffef]{1,3}|\s*[^\s\u3000-\u9fff\uff00-\uffef]+|\s+")
REWORD_TOKENS = 400
REWORD = (
    "You word the answers of a shop's customer service. Rewrite the draft below so that it reads naturally and kindly, "
    "in the same language. Keep every number, date, name, order and rule number and citation mark exactly. Add nothing."
)


@node("retrieve")
async def retrieve(state: ConversationState, context: RunContext) -> dict[str, Any]:
    """Answer from the help centre; count what nobody understood, and call a person when that happens again."""
    request, settings = current_request(state), context.services.settings
    passages, sure = await find_passages(context, request["text"], state["language"], "help")
    if sure:
        said = outcome("from_help", passages=passages[:1], question=request["text"])
        return finish(state, said, failures=0)
    if not request.get("abstain"):
        return finish(state, outcome("out_of_scope"))
    alone = all(each["abstain"] for each in state["requests"] if each["turn"] == state["turn"])
    if not alone:
        return finish(state, outcome("part_not_understood", part=request["text"][:60]))
    failures = state["failures"] + 1
    if failures >= settings.failures_until_human and not state["human"]:
        return finish(state, outcome("give_up"), failures=failures) | {"handoff_to": "human_handoff"}
    return finish(state, outcome("human_will_read" if state["human"] else "not_understood"), failures=failures)


@node("generate")
async def generate(state: ConversationState, context: RunContext) -> dict[str, Any]:
    """Put the outcomes in words, and the question to confirm after them."""
    draft, citations = compose(state)
    wording = context.services.wording
    if wording is None or not draft:
        return {"draft": draft, "citations": citations}
    return {"draft": await reworded(draft, state, context) or draft, "citations": citations}


def compose(state: ConversationState) -> tuple[str, list[dict[str, Any]]]:
    """The templates' text, and the passages it cites, numbered from 1."""
    language, parts = state["language"], []
    citations: list[dict[str, Any]] = []
    for said in state["outcomes"]:
        facts = dict(said["facts"])
        for passage in said["passages"]:
            number = len(citations) + 1
            citations.append({"number": number, **passage})
            facts |= {
                "quote": quote(passage["text"], facts.get("question", ""), passage.get("section", "")),
                "number": number,
                "title": passage["title"],
            }
        text = say(said["code"], language, **facts)
        if text not in parts:
            parts.append(text)
    if state.get("proposal"):
        parts.append(say("please_confirm", language, summary=state["proposal"]["summary"]))
    if not parts and not state["human_active"]:
        parts.append(say("not_understood", language))
    return "\n\n".join(part for part in parts if part), citations


async def reworded(draft: str, state: ConversationState, context: RunContext) -> str | None:
    """The model's version of the draft, or None where there is none in time."""
    messages = [{"role": "system", "content": REWORD}, {"role": "user", "content": draft}]
    client = context.services.wording
    try:
        reply = await context.think(lambda: client.chat(messages, max_tokens=REWORD_TOKENS))
    except ModelUnavailable as error:
        tell("guardrail", stage="answer", finding=f"wording_{error.code}", action="template")
        return None
    tell("usage", model=reply.model or client.model or "", ms=round(1000 * reply.seconds, 1), **reply.usage)
    text = reply.text.strip()
    return text if text and len(text) <= 3 * len(draft) + 200 else None


@node("check")
async def check(state: ConversationState, context: RunContext) -> dict[str, Any]:
    """Let the answer out if everything in it is supported; the template instead of a reworded one that is not."""
    plain, citations = compose(state)
    draft = state["draft"]
    if draft != plain and (why := faults(draft, plain, state, citations)):
        for fault in why:
            tell("guardrail", stage="answer", finding=fault, action="template")
        draft = plain
    if draft and (why := unsupported(draft, state, citations)):
        for fault in why:
            tell("guardrail", stage="answer", finding=f"unsupported {fault}", action="withheld")
        draft, citations = say("cannot_answer", state["language"]), []
    for citation in citations:
        tell("citation", **citation)
    pause = context.services.settings.typing_pause
    for token in TOKEN.findall(draft):
        tell("token", text=token)
        if pause:
            await asyncio.sleep(pause)
    said = [*state["messages"], message_of(draft, citations, state, context)] if draft else state["messages"]
    limit = context.services.settings.max_messages
    return {"answer": draft, "draft": "", "citations": citations, "messages": said[-limit:], "current": None}


def message_of(
    text: str, citations: list[dict[str, Any]], state: ConversationState, context: RunContext
) -> dict[str, Any]:
    """The answer as the conversation keeps it, with what a page needs to draw it again."""
    message = {"role": "agent", "text": text, "turn": state["turn"], "citations": citations, "run_id": context.run_id,
               "agent": state.get("answered_by", "supervisor")}  # fmt: skip
    if state.get("proposal"):
        message["proposal"] = shown(state["proposal"])
    if state.get("decided"):
        message["decided"] = state["decided"]
    return message


def unsupported(text: str, state: ConversationState, citations: list[dict[str, Any]]) -> tuple[str, ...]:
    """What of the text stands in no passage and in no fact."""
    facts = {"outcomes": [said["facts"] for said in state["outcomes"]], "proposal": state.get("proposal") or {}}
    return check_grounding(text, [passage["text"] for passage in citations], facts).unsupported


def faults(text: str, plain: str, state: ConversationState, citations: list[dict[str, Any]]) -> list[str]:
    """Why a reworded answer may not be used: it invents, drops a figure, commands, or shows personal data."""
    found = [f"unsupported {fault}" for fault in unsupported(text, state, citations)]
    figures = set(re.findall(r"[A-Z]{2}\d{6}|\d[\d.,-]*\d|\[\d+\]", plain))
    found += [f"dropped {figure}" for figure in sorted(figures) if figure not in text]
    found += list(screen_message(text).findings)
    found += [f"pii {kind}" for kind, _ in mask_pii(text).found if kind not in dict(mask_pii(plain).found)]
    return found
