"""Which order does a customer mean? The first step of every agent that works on orders.

1. a number in the message           an order of theirs, or an honest "no such order" and a list
2. a product in the message          the one order that has it; several: ask which
3. what was talked about before      "where is it?", and whatever makes sense for that order
4. the only one that it can be       used, and said
5. otherwise                         ask, with a list
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.customer_service.normalise import order_number
from stage3_agents_llmops.agent.dialogue import points_back, wants_another
from stage3_agents_llmops.agent.run_context import RunContext, tell, use_tool
from stage3_agents_llmops.agent.shop import OrderView
from stage3_agents_llmops.agent.state import ConversationState
from stage3_agents_llmops.agent.wording import numbered, order_line
from stage3_agents_llmops.agent.worklist import ask, current_request, finish, outcome, told

LISTED = 6  # orders in a list
OPEN = ("placed", "packed", "shipped")


@dataclass(frozen=True)
class Choice:
    """What came of looking for an order.

    Attributes:
        order: the order meant, or None.
        code: what to say: of a choice without an order why there is none; with one, why it was taken, or "".
        among: the orders to choose from.
        written: the number or the name that the customer used.
    """

    order: OrderView | None
    code: str = ""
    among: tuple[OrderView, ...] = ()
    written: str = ""


# exercise: agent.choose_order
def choose_order(
    slots: dict[str, str],
    remembered: str | None,
    orders: Sequence[OrderView],
    fits: Callable[[OrderView], bool],
    points_back: bool = False,
) -> Choice:
    """The order that is meant, or a question about it. The steps are in the module's docstring.

    Args:
        slots: of the request; `order_id` and `product` as the customer wrote them.
        remembered: number of the order that was talked about, or None.
        orders: the customer's, the newest first.
        fits: whether the request makes sense for an order, as "where is it" for one that is not delivered.
        points_back: whether the message speaks of "it". Then step 3 takes the remembered order in any case; else only
            if it fits, or no other does.

    Returns:
        A Choice with `order` and code "" (it is clear) or "only_order" (step 4), or one without: "order_not_found",
        "order_unreadable" (step 1), "product_not_ordered", "which_order_of_product" (step 2), "no_orders" or
        "which_order" (step 5), with `among`, the orders to choose from: those with the product in step 2, those that
        fit in step 5, and all of them where none fits.
    """
    orders = tuple(orders)
    if not orders:
        return Choice(None, "no_orders")
    if written := slots.get("order_id"):
        number = order_number(written)
        found = next((order for order in orders if order.order_id == number), None)
        code = "order_not_found" if number else "order_unreadable"
        return Choice(found) if found else Choice(None, code, orders, number or written)
    fitting = tuple(order for order in orders if fits(order))
    last = next((order for order in orders if order.order_id == remembered), None)
    if product := slots.get("product"):
        if last and last.matching(product):
            return Choice(last)
        having = tuple(order for order in orders if order.matching(product))
        likely = tuple(order for order in having if order in fitting) or having
        if len(likely) == 1:
            return Choice(likely[0])
        return Choice(None, "which_order_of_product" if likely else "product_not_ordered", likely or orders, product)
    if last and (points_back or last in fitting or not fitting):
        return Choice(last)
    if len(fitting) == 1 or len(orders) == 1:
        return Choice((fitting or orders)[0], "only_order")
    return Choice(None, "which_order", fitting or orders)


# end exercise


async def find_order(
    state: ConversationState, context: RunContext, fits: Callable[[OrderView], bool]
) -> dict[str, Any]:
    """The state's changes: `order` is set, or the customer is asked, or told that there is no such order."""
    request, language, slots = current_request(state), state["language"], state["slots"]
    shop = context.services.shop
    orders = await use_tool(context, "orders", {}, lambda: shop.orders(context.customer_id))
    text, last = request["text"], slots.get("order_id")
    if wants_another(text) and last:
        orders = [order for order in orders if order.order_id != last] or orders
        last = None
    choice = choose_order(request["slots"], last, orders, fits, points_back(text))
    if choice.order:
        return settle_order(state, choice)
    if choice.code == "no_orders":
        return finish(state, outcome("no_orders"))
    among = choice.among[:LISTED]
    lines = numbered([order_line(order, language) for order in among])
    options = [option_of(order) for order in among]
    said = outcome(choice.code, orders=lines, written=choice.written)
    if (state.get("asked") or {}).get("times", 0) >= 2 and state["asked"]["request"] == request["number"]:
        return finish(state, outcome("ask_a_person"), asked=None, offer={"intent": "human_agent", "slots": {}})
    tell("slots", slots=slots, asked="order_id")
    return ask(state, "order_id", said, options)


def settle_order(state: ConversationState, choice: Choice) -> dict[str, Any]:
    """Remember the order; say so where it was inferred."""
    order = choice.order
    slots = {**state["slots"], "order_id": order.order_id}
    product = current_request(state)["slots"].get("product")
    if order.order_id != state["slots"].get("order_id"):
        slots.pop("item_id", None)
        slots.pop("product", None)
    if product:
        slots["product"] = product
    tell("slots", slots=slots, asked=None)
    note = [outcome("only_order", state["current"], order_id=order.order_id)] if choice.code == "only_order" else []
    return {"order": order, "slots": slots, "outcomes": told(state, *note), "asked": closed_question(state)}


def closed_question(state: ConversationState) -> dict[str, Any] | None:
    """The open question, unless this request was waiting for its answer."""
    asked = state.get("asked")
    return None if asked and asked["request"] == state["current"] else asked


def option_of(order: OrderView) -> dict[str, Any]:
    """An order as something to choose."""
    names = sorted({name for item in order.items for name in item.names})
    return {"value": order.order_id, "names": names, "date": order.placed_on}
