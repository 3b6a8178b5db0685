"""The product agent: is it in stock, what does it cost, and what do those say who bought it."""

from typing import Any

from stage3_agents_llmops.agent.agents.agent_graph import AgentState, build_agent
from stage3_agents_llmops.agent.dialogue import asks_the_price, named
from stage3_agents_llmops.agent.retrieval import find_passages
from stage3_agents_llmops.agent.run_context import RunContext, tell, use_tool
from stage3_agents_llmops.agent.shop import ProductView
from stage3_agents_llmops.agent.wording import money, product_name
from stage3_agents_llmops.agent.worklist import ask, current_request, finish, outcome

INTENTS = ("product_question", "stock_check")
CURRENCY = "USD"  # of the shop's prices


async def lookup(state: AgentState, context: RunContext) -> dict[str, Any]:
    """Find the product that is named, or the one that was talked about."""
    request, shop = current_request(state), context.services.shop
    name = request["slots"].get("product") or state["slots"].get("product")
    if not name and request["intent"] == "product_question":
        return {"product": None}
    if not name:
        tell("slots", slots=state["slots"], asked="product")
        return ask(state, "product", outcome("ask_product"))
    product = await use_tool(context, "product", {"name": name}, lambda: shop.product(name))
    asked = state.get("asked") or {}
    update = {"asked": None} if asked.get("request") == request["number"] else {}
    if product is None and request["intent"] == "stock_check":
        return finish(state, outcome("product_unknown", product=name)) | update
    if product is None:
        return {"product": None} | update
    slots = {**state["slots"], "product": name}
    tell("slots", slots=slots, asked=None)
    if request["intent"] == "stock_check" or asks_the_price(request["text"]):
        return finish(state, stock_outcome(product, state["language"]), slots=slots) | update
    return {"product": product, "slots": slots} | update


async def retrieve(state: AgentState, context: RunContext) -> dict[str, Any]:
    """What the help centre says, and where that is nothing, what the reviews say about a product of this name."""
    question, language, product = current_request(state)["text"], state["language"], state.get("product")
    passages, sure = await find_passages(context, question, language, "help")
    if not sure and product:
        passages, sure = await find_passages(context, f"{product.name_en}: {question}", language, "product")
        sure = sure and named(passages[0]["text"], product.name_en)  # reviews tell of all kinds of things
    return {"passages": passages, "confident": sure}


async def decide(state: AgentState, context: RunContext) -> dict[str, Any]:
    """Quote the passage, or say what is known about the product, or that nothing is."""
    product, language = state.get("product"), state["language"]
    if state["confident"]:
        code = "from_help" if state["passages"][0]["kind"] == "help" else "from_reviews"
        return finish(state, outcome(code, passages=state["passages"][:1], question=current_request(state)["text"]))
    if product:
        return finish(state, outcome("product_not_described"), stock_outcome(product, language))
    name = current_request(state)["slots"].get("product")
    return finish(state, outcome("product_unknown", product=name) if name else outcome("not_in_help"))


def stock_outcome(product: ProductView, language: str) -> dict[str, Any]:
    """Price and stock."""
    code = "in_stock" if product.stock else "out_of_stock"
    return outcome(
        code, product=product_name(product, language), price=money(product.price_cents, CURRENCY), stock=product.stock
    )


PRODUCT_AGENT = build_agent("product_agent", {"lookup": lookup, "retrieve": retrieve, "decide": decide})
