"""The commands: chat, ask, reset, graph, retention."""

import asyncio
import sqlite3

import pytest
from graph_stand_ins import KeywordUnderstander, SmallKnowledge

from labkit.cli import parse
from labkit.errors import LabError
from stage3_agents_llmops.agent import __main__ as main_module
from stage3_agents_llmops.agent import (
    chat_command,
    customer_service_agent,
    graph_command,
    reset_command,
    retention_command,
)
from stage3_agents_llmops.agent.shop import Shop


@pytest.fixture
def small_models(monkeypatch):
    """The commands open the agent themselves; here with the small models."""
    opened = customer_service_agent.open_services

    def small(settings, given):
        return opened(settings, {"understander": KeywordUnderstander(), "knowledge": SmallKnowledge()} | given)

    monkeypatch.setattr(customer_service_agent, "open_services", small)


def command(name, *words):
    commands = {each.name: each for each in main_module.commands()}
    config, preset = parse(main_module.PROG, commands[name], words)
    return commands[name].run(config, preset) or 0


def test_the_lab_lists_its_commands(capsys):
    assert main_module.main([]) == 0
    printed = capsys.readouterr().out
    for name in ("chat", "ask", "reset", "graph", "retention"):
        assert name in printed


def test_ask_makes_the_shop_and_answers(small_models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    assert main_module.main(["ask", "where is my order?", "--customer", "C1001"]) == 0
    printed = capsys.readouterr().out
    assert "order_agent:lookup" in printed and "agent>" in printed
    assert (tmp_path / "runs/stage3/agent/state/shop.sqlite").exists()


def test_chat_goes_on_until_exit(small_models, settings, monkeypatch, capsys):
    order = next(order for order in Shop(settings.shop).orders("C1001") if order.status in ("placed", "packed"))
    lines = iter([f"cancel {order.order_id}", "yes", "exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert command("chat", "--shop", str(settings.shop), "--state", str(settings.state_dir), "--no-events") == 0
    assert Shop(settings.shop).order("C1001", order.order_id).status == "cancelled"
    assert "is cancelled" in capsys.readouterr().out


def test_ask_without_a_question_or_with_a_missing_shop_is_one_line(small_models, settings, tmp_path):
    with pytest.raises(LabError, match="nothing was asked"):
        command("ask", "--message", "  ")
    with pytest.raises(LabError, match="no shop"):
        command("ask", "--message", "hello", "--shop", str(tmp_path / "none.sqlite"))


def test_reset_makes_a_new_shop_and_drops_the_conversations(small_models, settings, capsys):
    words = ["--shop", str(settings.shop), "--state", str(settings.state_dir)]
    command("ask", "--message", "hello", *words)
    before = [order.order_id for order in Shop(settings.shop).orders("C1001")]
    assert settings.checkpoints.exists()
    assert command("reset", "--seed", "9", "--customers", "10", "--orders", "30", *words) == 0
    assert not settings.checkpoints.exists() and not settings.profiles.exists()
    assert [order.order_id for order in Shop(settings.shop).orders("C1001")] != before


def test_reset_refuses_what_is_no_shop(tmp_path):
    (tmp_path / "notes.txt").write_text("do not lose me " * 100)
    with pytest.raises(LabError):
        command("reset", "--shop", str(tmp_path / "notes.txt"), "--state", str(tmp_path))
    assert "do not lose me" in (tmp_path / "notes.txt").read_text()
    with pytest.raises(LabError, match="no folder"):
        command("reset", "--shop", str(tmp_path / "nowhere/shop.sqlite"), "--state", str(tmp_path))


def test_graph_prints_and_writes(tmp_path, capsys):
    assert command("graph") == 0
    assert "supervisor" in capsys.readouterr().out
    for name in ("graph.png", "graph.svg", "graph.mmd"):
        assert command("graph", "--out", str(tmp_path / name)) == 0 and (tmp_path / name).stat().st_size > 1000
    with pytest.raises(LabError, match="docx"):
        command("graph", "--out", str(tmp_path / "graph.docx"))


def test_retention_prunes_and_shows_the_sizes(small_models, settings, capsys):
    words = ["--state", str(settings.state_dir)]
    with pytest.raises(LabError, match="no conversations"):
        command("retention", *words)
    for message in ("hello", "where is my order?"):
        command("ask", "--message", message, "--shop", str(settings.shop), *words)
    assert command("retention", "--keep", "1", *words) == 0
    connection = sqlite3.connect(settings.checkpoints)
    assert connection.execute("SELECT COUNT(*) FROM checkpoints").fetchone()[0] == 1
    connection.close()
    printed = capsys.readouterr().out
    assert "bytes before" in printed and "checkpoints dropped" in printed
    with pytest.raises(LabError, match="--keep 0"):
        command("retention", "--keep", "0", *words)


def test_a_run_that_was_cut_off_is_finished_when_the_chat_begins(small_models, settings, capsys):
    from graph_stand_ins import Talk, open_agent

    async def cut():
        async with open_agent(settings) as agent:
            stream = agent.graph.astream  # stop after the first steps without putting anything in order
            config = agent._config("terminal")
            from stage3_agents_llmops.agent.run_context import RunContext
            from stage3_agents_llmops.agent.state import new_conversation, new_run

            context = RunContext(agent.services, "terminal", "C1001")
            given = new_conversation("terminal", "C1001", "en") | new_run(None) | {"incoming": agent.screen("hello")}
            async for _ in stream(given, config, context=context, stream_mode="values", interrupt_after=["classify"]):
                pass
            assert await agent.unfinished("terminal")
            return Talk

    asyncio.run(cut())
    words = ["--shop", str(settings.shop), "--state", str(settings.state_dir), "--thread", "terminal"]
    assert command("ask", "--message", "thanks", *words) == 0
    printed = capsys.readouterr().out
    assert "Hello!" in printed and "You're welcome" in printed
    assert all(module.COMMANDS for module in (chat_command, graph_command, reset_command, retention_command))


@pytest.mark.parametrize(
    ("more", "says"), [((), "no fine-tuned model yet"), (("--endpoint", "http://127.0.0.1:9/v1"), "two models")]
)
def test_a_model_that_cannot_be_started_is_said_before_anything_is_loaded(settings, tmp_path, monkeypatch, more, says):
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    with pytest.raises(LabError, match=says):
        command("serve", "--start-model", "--port", "0", "--shop", str(settings.shop), "--state",
                str(settings.state_dir), *more)  # fmt: skip
