"""Profiles: what stays when a conversation is over, and what never gets in."""

import asyncio
import threading

import pytest
from graph_stand_ins import Talk, open_agent, orders_like

from labkit.errors import LabError
from stage3_agents_llmops.agent.profiles import LAST_ORDERS, ProfileStore
from stage3_agents_llmops.agent.shop import Shop


def test_a_profile_keeps_language_orders_and_preferences(tmp_path):
    store = ProfileStore(tmp_path / "profiles.sqlite")
    assert store.get("C1001").language is None
    for number in range(7):
        store.note("C1001", language="zh", order_id=f"KM20481{number}")
    store.note("C1001", order_id="KM204813", preference=("brief", "yes"))
    profile = ProfileStore(tmp_path / "profiles.sqlite").get("C1001")
    assert profile.language == "zh" and profile.preferences == {"brief": "yes"}
    assert len(profile.orders) == LAST_ORDERS and profile.orders[:2] == ("KM204813", "KM204816")
    assert store.get("C1002").orders == ()


@pytest.mark.parametrize(
    "note",
    [{"order_id": "13812345678"}, {"order_id": "jane@example.org"}, {"preference": ("phone", "13812345678")},
     {"preference": ("brief", "call me")}],
)  # fmt: skip
def test_a_profile_takes_no_free_text(tmp_path, note):
    store = ProfileStore(tmp_path / "profiles.sqlite")
    with pytest.raises(ValueError, match="a profile"):
        store.note("C1001", **note)
    assert store.get("C1001").orders == () and store.get("C1001").preferences == {}


def test_a_profile_can_be_forgotten(tmp_path):
    store = ProfileStore(tmp_path / "profiles.sqlite")
    store.note("C1001", language="en")
    assert store.forget("C1001") and not store.forget("C1001")
    assert store.get("C1001").language is None


def test_many_threads_lose_no_note(tmp_path):
    store = ProfileStore(tmp_path / "profiles.sqlite")
    workers = [
        threading.Thread(target=store.note, args=("C1001",), kwargs={"new_conversation": True}) for _ in range(20)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert store.get("C1001").conversations == 20


def test_a_new_conversation_knows_the_language_of_the_last(settings):
    customer, order = orders_like(Shop(settings.shop), lambda o: o.status == "packed")[0]

    async def run():
        async with open_agent(settings) as agent:
            await Talk(agent, customer, "t1").say(f"{order.order_id} 到哪了")
            reply = await Talk(agent, customer, "t2").say("😀")
            return reply, agent.services.profiles.get(customer)

    reply, profile = asyncio.run(run())
    assert "您" in reply.text or "不好意思" in reply.text
    assert profile.orders == (order.order_id,) and profile.conversations == 2


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path):
    (tmp_path / "profiles.sqlite").write_bytes(b"no database at all, I am afraid" * 100)
    with pytest.raises(LabError, match="cannot be used"):
        ProfileStore(tmp_path / "profiles.sqlite")


def test_a_folder_in_its_place_is_one_clear_line(tmp_path):
    """Catches: a traceback where the database cannot even be opened."""
    with pytest.raises(LabError, match="cannot be used"):
        ProfileStore(tmp_path)
