"""Month 4 passes a customer service that works, and nothing easier. A test names the short cut that it closes.

The hand-in is stand_in/agent.py, a service of key words over real HTTP; it keeps the shop's rules and survives a
kill -9, and behaviour.txt makes it do one thing wrong.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from data.scripted_customers.script import SENSITIVE, Script, load_scripts
from data.scripted_customers.shop_values import Market
from data.shop.shop_database import create_shop, dump
from labkit.errors import LabError
from labkit.runs import start_run
from milestones import month4
from milestones.criteria import Month, load_criteria
from milestones.grade import NOT_STARTED, PASSED, Context, MonthResult, grade_month
from milestones.learner_service import RunEvent, parsed, streamed_well, turn_of
from tests.shared.hand_in import write_hand_in

STAND_IN = Path(__file__).with_name("stand_in") / "agent.py"


@pytest.fixture
def month() -> Month:
    """Month 4 with limits for a service that needs no model."""
    month = load_criteria().month(4)
    return replace(month, settings=month.settings | {"start_limit": 30, "answer_limit": 10, "time_limit": 60})


@pytest.fixture
def hand_in(tmp_path, monkeypatch) -> Callable[..., Path]:
    """A function that makes a hand-in whose service behaves in one way."""

    def make(behaviour: str = "honest") -> Path:
        folder = tmp_path / "hand-in"
        write_hand_in(folder, "stage3_agents_llmops.agent", STAND_IN, behaviour)
        with monkeypatch.context() as patch:
            patch.setenv("COURSE_LAB_RUNS", str(folder / "runs"))
            with start_run("stage3", "agent", "evaluate", {}, preset="cpu", seed=1) as run:
                run.metric("pass_1", 1.0)
        return folder

    return make


@pytest.fixture
def few(monkeypatch, tmp_path) -> None:
    """Fewer hidden customers, for what does not depend on their number."""
    for language in ("en", "zh"):
        text = (month4.FOLDER / f"{language}.toml").read_text(encoding="utf-8")
        blocks = text.split("[[customers]]")[1:]
        kept = [block for block in blocks if block.split('"')[1] in ("h2", "h3", "h5", "h6", "h9")]
        path = tmp_path / "few" / f"{language}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"[[customers]]{block}" for block in kept), encoding="utf-8")
    monkeypatch.setenv("COURSE_LAB_HIDDEN_CUSTOMERS", str(tmp_path / "few"))


def graded(month: Month, folder: Path, seed: int = 5) -> MonthResult:
    return grade_month(month4.grade, Context(month, folder, folder / "runs", seed))


def verdicts(result: MonthResult) -> dict[str, str]:
    return {check.check.id: check.status for check in result.checks}


def figures(result: MonthResult) -> dict[str, float | None]:
    return {check.check.id: check.value for check in result.checks}


def test_a_service_that_works_passes(month, hand_in):
    """Catches: a grader that no honest work can pass."""
    result = graded(month, hand_in())
    assert result.status == PASSED, [check.line for check in result.checks]
    assert figures(result)["solved"] >= 0.9 and result.points == 100


@pytest.mark.parametrize("behaviour", ["null", "refuses", "looks nothing up", "forgets"])
def test_agents_that_do_not_serve_fail(month, hand_in, behaviour):
    """Catches: marks for staying out of trouble. Whoever does nothing breaks no rule and must have no points for it."""
    result = graded(month, hand_in(behaviour))
    assert result.status == "failed", [check.line for check in result.checks]
    assert verdicts(result)["solved"] == "failed" and result.points <= 35
    assert figures(result)["solved"] <= (0.5 if behaviour == "forgets" else 0.1)


def test_writing_without_asking_fails(month, few, hand_in):
    """Catches: an agent that does what was asked before the customer could say no; the end state is often the same."""
    result = graded(month, hand_in("writes without asking"))
    assert verdicts(result)["safe"] == "failed" and result.status == "failed" and result.points <= 20


def test_breaking_the_rules_fails(month, few, hand_in):
    """Catches: an agent that gives everybody what they want."""
    result = graded(month, hand_in("breaks the rules"))
    assert verdicts(result)["safe"] == "failed" and result.points <= 20 and ": R" in result.message


def test_telling_and_changing_other_peoples_orders_fails(month, few, hand_in):
    """Catches: orders found by their number alone."""
    result = graded(month, hand_in("tells strangers"))
    assert verdicts(result)["safe"] == "failed" and result.status == "failed"


@pytest.mark.parametrize("behaviour", ["forgets at the restart", "drops runs"])
def test_a_service_that_loses_conversations_is_not_passed(month, few, hand_in, behaviour):
    """Catches: memory that lives in the process, and runs that die with it."""
    result = graded(month, hand_in(behaviour))
    assert verdicts(result)["resumes"] == "failed" and result.status != PASSED


@pytest.mark.parametrize("behaviour", ["streams at once", "replays from the start"])
def test_streams_are_looked_at(month, few, hand_in, behaviour):
    """Catches: an answer in one piece, and a replay that tells everything twice."""
    result = graded(month, hand_in(behaviour))
    assert verdicts(result)["streams"] == "failed" and result.points == 90 and result.status == "partial"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [("does not start", "no model, no service"), ("hangs", "did not answer"), ("malformed", "no thread_id")],
)
def test_services_that_do_not_serve_say_why(month, few, hand_in, behaviour, words):
    """Catches: a hanging grader, and a message that does not help."""
    settings = month.settings | ({"answer_limit": 1, "time_limit": 3} if behaviour == "hangs" else {})
    result = graded(replace(month, settings=settings), hand_in(behaviour))
    assert result.status == "failed" and result.points <= 10
    assert words in " ".join(check.message for check in result.checks)


def test_no_run_is_not_started(month, tmp_path):
    """Catches: "failed" for a learner who has not come that far."""
    assert graded(month, tmp_path).status == NOT_STARTED


def test_hidden_customers_are_others_than_the_evaluations(tmp_path):
    """Catches: hidden wordings that can be read in the lab, and conversations shorter than five turns."""
    hidden = month4.hidden_scripts()
    root = Path(month4.__file__).parent.parent
    public = load_scripts(root / "stage3_agents_llmops" / "agent" / "evaluation" / "customers")
    assert len(hidden) >= 10 and sum(script.restarts for script in hidden) >= 4
    assert {script.language for script in hidden} == {"en", "zh"}
    for script in hidden:  # steps, decisions, goodbye
        decisions = sum(bool(step.proposes) + sum(a.tool in SENSITIVE for a in step.does) for step in script.steps)
        assert len(script.steps) + decisions + 1 >= 5, script.name
    assert not wordings(hidden) & wordings(public)


def wordings(scripts: list[Script]) -> set[str]:
    """Everything that is said, whatever the values are called."""
    said = [text for script in scripts for step in script.steps for texts in (step.say, *step.parts) for text in texts]
    return {re.sub(r"{\w+", "{x", text).lower() for text in said}


def test_hidden_customers_are_fresh(tmp_path):
    """Catches: order numbers that could be learnt by heart, and a shop in which somebody finds nothing."""
    scripts, found = month4.hidden_scripts(), []
    sizes = {"customers": 80, "orders": 900}
    for seed in range(8):
        market = Market.of(dump(create_shop(tmp_path / f"{seed}.sqlite", seed=seed, **sizes)))
        found.append([market.find(script, Random(seed)) for script in scripts])
        assert len({one.customer_id for one in found[-1]}) == len(scripts)
    ids = [{value for one in each for name, value in one.values.items() if name.endswith(".id")} for each in found]
    assert not ids[0] & ids[1]


def test_an_instructors_folder_without_customers_is_said(month, hand_in, monkeypatch, tmp_path):
    """Catches: a grading of nothing."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("COURSE_LAB_HIDDEN_CUSTOMERS", str(tmp_path / "empty"))
    with pytest.raises(LabError, match="no scripts"):
        month4.hidden_scripts()
    assert graded(month, hand_in()).status == "error"


def test_events_are_read_as_the_standard_says():
    """Catches: comments, several data lines, a resumed run that counts its first half twice."""
    lines = [": ping", "", "id: 1", "event: start", "data: {", "data: }", "", "id: 2", "event: token"]
    lines += ['data: {"text": "lost"}', "", "id: 3", "event: start", 'data: {"resumed": true}', ""]
    for id, text in ((4, "a "), (5, "b")):
        lines += [f"id: {id}", "event: token", f'data: {{"text": "{text}"}}', ""]
    lines += ["id: 6", "event: end", 'data: {"reason": "answered", "text": "a b"}', ""]
    events = list(parsed(iter(lines)))
    assert [event.id for event in events] == [1, 2, 3, 4, 5, 6] and turn_of(events, 0.0).text == "a b"
    assert streamed_well(events, events[3:], 3)
    assert not streamed_well(events, events, 3) and not streamed_well(events[::-1], events[3:], 3)
    once = [*events[:3], RunEvent(5, "token", {"text": "a b"}), events[-1]]
    assert not streamed_well(once, once[2:], 2)
