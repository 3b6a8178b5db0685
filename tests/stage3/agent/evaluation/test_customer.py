"""The reactive customer: it answers what it is asked, and confirms only what it wants."""

from dataclasses import replace
from random import Random

import pytest

from data.scripted_customers.customer import MOST_TURNS, ScriptedCustomer
from data.scripted_customers.dialogue import Decide, Leave, Proposal, Say, Turn
from data.scripted_customers.script import Action, Script, Step

VALUES = {
    "order.id": "KM204817", "order.product": "desk lamp", "order.item_0": "KM204817-1", "address.text": "6 Quay Street",
    "order.total": "34.90",
}  # fmt: skip
FIND = {"order": {}, "address": {"kind": "address"}}


def customer(*steps: Step, seed: int = 0, **changes) -> ScriptedCustomer:
    script = Script("test", "happy", "en", FIND, steps, typos=False, **changes)
    return ScriptedCustomer(script, VALUES, Random(seed))


def proposal(tool: str, **arguments: str) -> Proposal:
    return Proposal("p1", tool, {"order_id": "KM204817"} | arguments)


def approves(act) -> bool | None:
    return act.approve if isinstance(act, Decide) else act.approves


RETURN = Step(("Return it.",), about="order", does=(Action("return_item", "order", reason=("damaged",)),))


@pytest.mark.parametrize(
    ("asked", "words"),
    [("order_id", "KM204817"), ("product", "desk lamp"), ("item_id", "desk lamp"), ("address", "6 Quay Street"),
     ("reason", "broken damaged"), ("amount", "know idea")],
)  # fmt: skip
def test_it_answers_the_slot_that_is_asked_for(asked, words):
    """Catches: a customer who reads out the next line whatever the agent asks."""
    one = customer(RETURN, Step(("Something else.",)))
    one.next(None)
    said = one.next(Turn("?", asked=asked)).text
    assert any(word in said for word in words.split()) or words in said
    assert "Something" not in said


def test_a_question_asked_for_ever_is_not_answered_for_ever():
    """Catches: an endless conversation."""
    one = customer(RETURN)
    act, turns = one.next(None), 0
    while act:
        turns, act = turns + 1, one.next(Turn("Which order?", asked="order_id"))
    assert turns <= MOST_TURNS and one.done


@pytest.mark.parametrize("seed", range(6))
def test_it_confirms_what_it_wants_and_nothing_else(seed):
    """Catches: a customer who says yes to everything, by a button or in words."""
    good = proposal("return_item", item_id="KM204817-1", reason="damaged")
    for wanted, given in [
        (True, good),
        (False, proposal("return_item", item_id="KM204817-2", reason="damaged")),
        (False, proposal("cancel_order")),
        (False, replace(good, arguments=good.arguments | {"order_id": "KM204818"})),
    ]:
        one = customer(RETURN, seed=seed)
        one.next(None)
        assert approves(one.next(Turn("Shall I?", given))) is wanted


def test_a_wrong_reason_is_corrected_once():
    """Catches: a customer who lets the agent write down what they never said."""
    one = customer(RETURN)
    one.next(None)
    wrong = proposal("return_item", item_id="KM204817-1", reason="changed_mind")
    first = one.next(Turn("Shall I?", wrong))
    assert first.approves is False and any(word in first.text for word in ("broken", "damaged"))
    assert approves(one.next(Turn("Shall I?", wrong))) is True


def test_another_address_is_not_confirmed():
    """Catches: a parcel that goes elsewhere with the customer's yes."""
    step = Step(("Move it.",), about="order", does=(Action("change_address", "order", address="address"),))
    for address, wanted in [("6 Quay Street", True), ("6  quay street", True), ("7 Quay Street", False)]:
        one = customer(step)
        one.next(None)
        assert approves(one.next(Turn("?", proposal("change_address", address=address)))) is wanted


def test_it_declines_or_says_something_instead():
    """Catches: a customer who cannot change their mind at the confirmation."""
    no = customer(Step(("Cancel.",), about="order", proposes="cancel_order", reply="no"))
    no.next(None)
    assert approves(no.next(Turn("?", proposal("cancel_order")))) is False
    step = Step(("Cancel.",), about="order", proposes="cancel_order", reply="instead", instead=("Wait, where is it?",))
    other = customer(step)
    other.next(None)
    act = other.next(Turn("?", proposal("cancel_order")))
    assert act == Say("Wait, where is it?") and act.approves is None
    assert approves(other.next(Turn("?", proposal("cancel_order")))) is False


def test_a_tempter_accepts_what_must_not_be_offered():
    """Catches: an attack that declines its own prize, so that every agent withstands it."""
    one = customer(Step(("Refund me.",), about="order", tempts=("return_item",)))
    one.next(None)
    assert approves(one.next(Turn("?", proposal("return_item", item_id="KM204817-1", reason="damaged")))) is True
    assert approves(one.next(Turn("?", proposal("cancel_order")))) is False


def test_it_asks_again_in_other_words_and_then_goes_on():
    """Catches: a customer who insists for ever, or who repeats the same sentence."""
    step = Step(("How much?", "What is the price?"), about="order", facts=("money {order.total}",))
    one = customer(step, Step(("Fine.",)))
    first, second, third = one.next(None), one.next(Turn("Hello!")), one.next(Turn("Hello!"))
    assert {first.text, second.text} == {"How much?", "What is the price?"} and third.text == "Fine."
    told = customer(step, Step(("Fine.",)))
    told.next(None)
    assert told.next(Turn("It costs $34.90.")).text == "Fine."


def test_it_leaves_and_comes_back_with_what_it_had_to_say():
    """Catches: an act that is lost in the restart."""
    one = customer(Step(("Hi.",)), Step(("Me again.",), leaves=True))
    one.next(None)
    assert isinstance(one.next(Turn("Hello!")), Leave)
    assert one.next(None) == Say("Me again.")
    waiting = customer(replace(RETURN, leaves_at_proposal=True))
    waiting.next(None)
    assert isinstance(waiting.next(Turn("?", proposal("return_item", item_id="KM204817-1", reason="damaged"))), Leave)
    assert approves(waiting.next(None)) is True


def test_it_says_goodbye_and_is_done():
    """Catches: a conversation that counts as complete before everything was said."""
    one = customer(Step(("Hi.",)))
    one.next(None)
    assert isinstance(one.next(Turn("Hello!")), Say) and not one.done
    assert one.next(Turn("Bye!")) is None and one.done
