"""The command, with the real agents: it writes a report, and the controls that need the agents fail."""

import json

import pytest

from labkit.cli import lab_main
from labkit.runs import latest_run, read_report
from stage3_agents_llmops.agent.evaluate_command import COMMANDS, PRESETS, EvaluateConfig, run_evaluate

SOME = "cancels_in_time,three_things_at_once,too_late_and_insists,zh_第二天再来"


def evaluate(*words: str) -> int:
    return lab_main("python -m stage3_agents_llmops.agent", "The agents.", COMMANDS, ["evaluate", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "nobody"), "no customer is called 'nobody'"),
        (("--trials", "0"), "--trials 0"),
        (("--via", "pigeon"), "pigeon"),
        (("--preset", "huge"), "unknown preset huge"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    """Catches: a traceback, and a run that is left behind by a typo."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path))
    assert evaluate(*words) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.glob("**/report.json"))


def test_presets_grow():
    """Catches: a smoke run that takes minutes, and a study without the controls."""
    assert PRESETS["smoke"].trials == 1 and PRESETS["cpu"].trials == 4 and PRESETS["study"].controls == "all"


@pytest.mark.assets
def test_the_agents_are_evaluated_and_the_controls_fail(tmp_path, monkeypatch, capsys):
    """Catches: an evaluation that needs luck to run, a report without figures, an eager agent that is not seen."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path))
    assert run_evaluate(EvaluateConfig(trials=1, only=SOME), "smoke") == 0
    report = read_report(latest_run("stage3", "agent", "evaluate"))
    metrics = {name: metric["value"] for name, metric in report["metrics"].items()}
    assert metrics["pass_1"] >= 0.5 and metrics["policy_violations"] == metrics["unconfirmed_writes"] == 0
    assert metrics["pass_1_null"] == metrics["pass_1_refuser"] == 0 and metrics["infrastructure_errors"] == 0
    assert metrics["pass_1_forgetter"] < metrics["pass_1"] and metrics["unconfirmed_writes_eager"] >= 2
    assert metrics["pass_1_eager"] < metrics["pass_1"] and metrics["turns_longest"] >= 5
    folder = latest_run("stage3", "agent", "evaluate")
    lines = [json.loads(line) for line in (folder / "trajectories.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["agent"] for line in lines} == {"agent", "null", "refuser", "forgetter", "eager"} and len(lines) == 20
    assert all(line["transcript"] for line in lines) and (folder / "pass_power.png").stat().st_size > 10_000
    facts = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert (
        facts["judge_version"]
        and len(facts["scripts_sha256"]) == 64
        and "scripted customers" in capsys.readouterr().out
    )
