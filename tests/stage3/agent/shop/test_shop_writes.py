"""The one door to every write: confirmed, allowed, noted, done once. Each test names the bug that it catches."""

import sqlite3
import threading

import pytest

from data.shop import create_shop, dump, open_shop
from stage3_agents_llmops.agent.shop import Shop, ToolError, call_tool, record_confirmation
from stage3_agents_llmops.agent.shop.write_tools import WRITES


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return create_shop(tmp_path_factory.mktemp("shop") / "shop.sqlite", seed=3, customers=40, orders=160).read_bytes()


@pytest.fixture
def shop(tmp_path, template):
    path = tmp_path / "shop.sqlite"
    path.write_bytes(template)
    return Shop(path)


@pytest.fixture
def order(shop):
    """(customer, order) that can be cancelled."""
    ids = (f"C{number}" for number in range(1001, 1041))
    return next((one, each) for one in ids for each in shop.orders(one)
                if each.status == "placed" and each.total_cents <= 20000)  # fmt: skip


def cancel(shop, order, key="P1", thread_id="t1", **more):
    return call_tool(shop, "cancel_order", order[0], {"order_id": order[1].order_id, **more}, key=key,
                     thread_id=thread_id)  # fmt: skip


def agree(shop, order, key="P1", thread_id="t1", decision=True, **more):
    record_confirmation(shop, key, order[0], thread_id, "cancel_order", {"order_id": order[1].order_id, **more},
                        decision)  # fmt: skip


def rows(shop, table):
    return dump(shop.path)[table]


def test_a_write_is_done_once(shop, order):
    """Catches: a process that died after the write, and refunds again when it goes on."""
    agree(shop, order)
    first, again = cancel(shop, order), cancel(shop, order)
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.data, again.message_code) == (first.data, first.message_code)
    assert len([row for row in rows(shop, "refunds") if row["order_id"] == order[1].order_id]) == 1
    assert len([row for row in rows(shop, "audit") if row["idempotency_key"] == "P1"]) == 1


def test_two_at_the_same_moment_write_once(shop, order):
    """Catches: a look at the key outside the transaction that writes."""
    agree(shop, order)
    results, go = [], threading.Barrier(4)

    def call():
        go.wait()
        results.append(cancel(shop, order))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.replayed for result in results) == [False, True, True, True]
    assert len([row for row in rows(shop, "audit") if row["idempotency_key"] == "P1"]) == 1


@pytest.mark.parametrize(
    "confirmed",
    [
        None,
        {"decision": False},
        {"key": "P2"},
        {"thread_id": "t2"},
        {"reason": "price"},
    ],
)
def test_a_sensitive_write_needs_a_yes_to_exactly_it(shop, order, confirmed):
    """Catches: a write without a yes, after a no, or with the yes of another proposal, thread or set of arguments."""
    if confirmed is not None:
        agree(shop, order, **confirmed)
    before = dump(shop.path)
    with pytest.raises(ToolError) as refused:
        cancel(shop, order)
    assert refused.value.code == "unconfirmed"
    after = dump(shop.path)
    assert [table for table in before if before[table] != after[table]] == ["audit"], "only the attempt is noted"
    assert rows(shop, "audit")[-1]["idempotency_key"] is None


def test_the_policy_decides_again_when_it_is_written(shop, order):
    """Catches: a parcel that left between the question and the yes, and is cancelled all the same."""
    agree(shop, order)
    with open_shop(shop.path) as connection:
        connection.execute("UPDATE orders SET status = 'shipped' WHERE order_id = ?", (order[1].order_id,))
    connection.close()
    with pytest.raises(ToolError) as refused:
        cancel(shop, order)
    assert (refused.value.code, refused.value.rule) == ("not_allowed", "R2")


def test_a_key_is_of_one_write(shop, order):
    """Catches: the result of one write given out as that of another."""
    agree(shop, order)
    cancel(shop, order)
    with pytest.raises(ToolError) as refused:
        call_tool(shop, "send_invoice", order[0], {"order_id": order[1].order_id}, key="P1", thread_id="t1")
    assert refused.value.code == "conflict"


def test_a_write_that_breaks_leaves_nothing(shop, order, monkeypatch):
    """Catches: a write and its audit row in two transactions, of which one can be lost."""
    agree(shop, order)
    real = WRITES["cancel_order"]

    def breaks(call):
        real(call)
        raise RuntimeError("the power went")

    before = dump(shop.path)
    monkeypatch.setitem(WRITES, "cancel_order", breaks)
    with pytest.raises(RuntimeError):
        cancel(shop, order)
    assert dump(shop.path) == before
    monkeypatch.setitem(WRITES, "cancel_order", real)
    assert not cancel(shop, order).replayed


def test_the_audit_cannot_be_rewritten(shop, order):
    """Catches: a trace of a write that whoever did it can remove."""
    agree(shop, order)
    cancel(shop, order)
    for statement in ("DELETE FROM audit", "UPDATE audit SET actor = 'nobody'"):
        connection = sqlite3.connect(shop.path)
        with pytest.raises(sqlite3.DatabaseError):
            connection.execute(statement)
        connection.close()


@pytest.mark.parametrize(
    "arguments", [{}, {"order_id": "KM1"}, {"order_id": "KM204817", "amount": 5}, {"order_id": 204817}, [], None]
)
def test_arguments_that_do_not_fit_are_refused(shop, arguments):
    """Catches: a field that a model invented going through to the database."""
    with pytest.raises(ToolError) as refused:
        call_tool(shop, "cancel_order", "C1001", arguments, key="P1", thread_id="t1")
    assert refused.value.code == "invalid"


def test_a_no_cannot_become_a_yes(shop, order):
    """Catches: a second decision about the same proposal."""
    agree(shop, order, decision=False)
    with pytest.raises(ToolError) as refused:
        agree(shop, order)
    assert refused.value.code == "conflict"
    with pytest.raises(ToolError):
        agree(shop, order, key="P3", decision="no")  # a string is true
