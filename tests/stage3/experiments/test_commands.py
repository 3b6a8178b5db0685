"""The command line as a user types it. Each test names the bug that it catches."""

import json
from pathlib import Path

import pytest

from stage3_agents_llmops.experiments.configuration import DEFAULT_FILE


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def latest(tmp_path: Path, command: str) -> Path:
    return (tmp_path / "runs" / "stage3" / "experiments" / f"latest-{command}").resolve()


def test_demo_then_report(cli, tmp_path):
    """Catches: a demo whose figures leave their bands, and files that the other commands cannot read."""
    code, out, err = cli("demo", "--preset", "smoke")
    assert code == 0, err
    assert "outside" not in out
    folder = latest(tmp_path, "demo")
    made = report(folder)
    assert made["status"] == "finished" and len(made["figures"]) == 10
    assert made["metrics"]["ramp_strays"]["value"] == 0
    events, exposures = folder / "runs.sqlite", folder / "exposures.sqlite"
    code, out, err = cli("report", "--experiment", "rerank", "--events", events, "--exposures", exposures)
    assert code == 0, err
    assert "sample ratio p =" in out and "treatment: " in out
    assert (latest(tmp_path, "report") / "rerank.html").stat().st_size > 20_000
    code, out, err = cli("analyse", "--experiment", "hint")  # the latest demo's files
    assert code == 0, err
    assert json.loads((latest(tmp_path, "analyse") / "analysis.json").read_text())["experiment"] == "hint"


def test_assign_says_what_and_why(cli):
    """Catches: a forced arm that looks like a drawn one; a biased event without a word."""
    code, out, _ = cli("assign", "--user", "u-1", "--force", "rerank=treatment", "--attributes", "orders=0")
    assert code == 0
    assert "forced" in out and "rerank = True" in out
    told = [cli("assign", "--user", f"u-{number}", "--attributes", "orders=0")[1] for number in range(12)]
    assert any("condition not fulfilled" in text for text in told)


def test_validate_shows_every_problem(cli, tmp_path):
    """Catches: a valid file called wrong, a wrong one called valid, one problem at a time."""
    code, out, _ = cli("validate")
    assert code == 0 and "valid, 9 experiments" in " ".join(out.split())
    assert (latest(tmp_path, "validate") / "tree.png").is_file()
    wrong = tmp_path / "wrong.toml"
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    text = text.replace("traffic = [60, 90]", "traffic = [50, 90]").replace('"tone"\ntraffic', '"tonne"\ntraffic')
    wrong.write_text(text, encoding="utf-8")
    code, out, _ = cli("validate", "--config", wrong)
    assert code == 2
    assert "overlap in layer retrieval" in out and "tonne, which does not exist" in out and "3 problems" in out


def test_plan(cli):
    """Catches: a planner that forgets the traffic."""
    code, out, _ = cli("plan", "--baseline", 0.8, "--effect", 0.03, "--units-per-day", 100, "--traffic", 50)
    assert code == 0
    assert "2,626" in out and "105.0" in out and "5,029" in out
    code, out, _ = cli("plan", "--baseline", 25, "--effect", 1, "--deviation", 16)
    assert code == 0 and "4,019" in out


def test_ramp_independence_and_simulate(cli, tmp_path):
    """Catches: commands that fail outside the demo."""
    for command in ("ramp", "independence", "simulate"):
        code, out, err = cli(command, "--preset", "smoke")
        assert code == 0, err
        assert report(latest(tmp_path, command))["figures"]


@pytest.mark.parametrize(("words", "error", "advice"), [
    (("assign",), "whom to assign?", "assign --user u-1"),
    (("assign", "--user", "u", "--attributes", "langage=zh"), "there is no attribute langage", "language"),
    (("assign", "--user", "u", "--attributes", "orders=many"), "orders is a number, not many",
     "--attributes orders=3"),
    (("assign", "--user", "u", "--attributes", "orders"), "--attributes orders has no value",
     "--attributes orders=..."),
    (("assign", "--user", "u", "--force", "rerenk=control"), "there is no experiment rerenk", "rerank"),
    (("assign", "--usr", "u"), "unknown option --usr", "--user"),
    (("validate", "--config", "none.toml"), "there is no file none.toml", None),
    (("ramp", "--steps", "5,1"), "--steps 5,1 are no rising per cent", "--steps 1,5,25,50,100"),
    (("ramp", "--steps", "a"), "--steps a are no rising per cent", "--steps 1,5,25,50,100"),
    (("simulate", "--rate", "1.2"), "--rate and --rate + --effect must be between 0 and 1", None),
    (("simulate", "--units", "10"), "10 users are not enough for 40 looks", "--looks 10"),
    (("simulate", "--tau", "0"), "--tau 0 is not possible", None),
    (("analyse", "--events", "x"), "which experiment?", None),
    (("analyse", "--experiment", "rerank"), "there are no events yet", "demo first, or --events FILE"),
    (("analyse", "--experiment", "rerenk", "--events", "x"), "there is no experiment rerenk", "rerank"),
    (("analyse", "--experiment", "rerank", "--events", "none.csv"), "there are no events at none.csv", None),
    (("plan", "--effect", "0"), "an effect of 0 cannot be found", None),
    (("plan", "--baseline", "1.2"), "a proportion of 1.2 and 1.23 is not possible", None),
    (("plan", "--traffic", "0"), "--traffic 0 is not possible", None),
    (("plan", "--power", "0.01"), "--alpha 0.05 --power 0.01 are not possible", None),
    (("demo", "--customers", "10"), "--customers 10 is not possible", None),
])  # fmt: skip
def test_bad_input_is_two_lines(cli, words, error, advice):
    """Catches: a traceback, or an answer to a question that was not asked."""
    code, out, err = cli(*words)
    lines = err.splitlines()
    assert code == 2
    assert lines[0] == f"error: {error}"
    assert lines[1].startswith("  try: ") and (advice is None or lines[1] == f"  try: {advice}")
    assert len(lines) == 2
