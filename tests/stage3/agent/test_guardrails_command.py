"""Each test names the bug that it catches."""

import json

from labkit.cli import lab_main
from labkit.runs import latest_run
from stage3_agents_llmops.agent import guardrails_command
from stage3_agents_llmops.agent.guardrails.pii import Masked


def run(*words):
    return lab_main("agent", "agent", guardrails_command.COMMANDS, ["guardrails", "--no-classifier", *words])


def report():
    folder = latest_run("stage3", "agent", "guardrails")
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_every_bar_is_kept(capsys):
    """Catches: a bar that is printed and not looked at."""
    assert run() == 0
    metrics = report()["metrics"]
    assert all(metrics[name]["value"] == 0 for name in ("pii_leaked", "message_orders", "passage_orders"))
    assert metrics["pii_leaked"]["band"] == [None, 0] and "kept" in capsys.readouterr().out


def test_a_guard_that_does_nothing_fails(monkeypatch, capsys):
    """Catches: a table that says "kept" whatever the guards do."""
    monkeypatch.setattr(guardrails_command, "mask_pii", lambda text: Masked(text))
    monkeypatch.setattr(guardrails_command, "reply_kind", lambda text: "yes")
    assert run() == 1
    assert "below the bar: pii_leaked, reply_false_yes, reply_wrong" in capsys.readouterr().out
