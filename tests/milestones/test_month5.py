"""Month 5 passes a platform that watches what it deploys, and nothing easier. A test names what it closes.

The hand-in is stand_in/pipeline.py, a gateway with a canary in front of stand_in/advice_service.py: real processes and
real HTTP, streams and faults. behaviour.txt makes it do one thing wrong.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import data.help_articles
from labkit.runs import start_run
from milestones import month5
from milestones.criteria import Month, load_criteria
from milestones.grade import FAILED, NOT_STARTED, PARTIAL, PASSED, Context, MonthResult, grade_month
from milestones.hidden_release import draw
from milestones.service_faults import KINDS
from tests.shared.hand_in import write_hand_in

STAND_INS = Path(__file__).with_name("stand_in")
QUICK = {
    "customers": 120, "orders": 120, "at_once": 8, "questions": 12, "pause": [0.2, 0.8], "delay": [0.2, 0.3],
    "warm": 1.0, "settle": 3.0, "confirm": 1.0, "start_limit": 30, "answer_limit": 10, "time_limit": 150,
    "deploy_limit": 60,
}  # fmt: skip
SEEDS = {"slow": 20, "errors": 13, "wrong": 7, "unsafe": 11}  # of each fault; the good release is first in 20 and 7
GOOD_FIRST, BAD_FIRST = 14, 13  # errors both times, which are found out soonest
TIDY = {"unsafe": "leaves services behind"}  # a platform that works, but for its end: the grader ends what it leaves
CASES = [
    *((TIDY.get(fault, "honest"), seed) for fault, seed in SEEDS.items()),
    ("counts deployments", BAD_FIRST),
    *((behaviour, GOOD_FIRST) for behaviour in (
        "always promotes", "always rolls back", "exposes everyone", "only says so", "every alert, drops streams",
        "no alert, constant metrics", "wrong alert, metrics without traffic", "wraps nothing", "does not start",
        "hangs",
    )),
]  # fmt: skip


def month(**settings: float) -> Month:
    """Month 5 with less traffic, for a platform whose canary takes seconds."""
    month = load_criteria().month(5)
    return replace(month, settings=month.settings | QUICK | settings)


def write_release(folder: Path) -> None:
    """A release as a run of the pipeline leaves it: what the service answers from."""
    for language in data.help_articles.LANGUAGES:
        shutil.copytree(data.help_articles.FOLDER / language, folder / "rag" / "articles" / language)
    (folder / "release.json").write_text(json.dumps({"name": "advice", "note": "first"}), encoding="utf-8")


def make_hand_in(folder: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hand-in whose platform behaves in one way."""
    write_hand_in(folder, "stage3_agents_llmops.pipeline", STAND_INS / "pipeline.py", behaviour)
    agent = folder / "stage3_agents_llmops" / "agent"
    agent.mkdir()
    (agent / "__init__.py").touch()
    shutil.copy(STAND_INS / "advice_service.py", agent / "__main__.py")
    with monkeypatch.context() as patch:
        patch.setenv("COURSE_LAB_RUNS", str(folder / "runs"))
        with start_run("stage3", "pipeline", "run", {}, preset="cpu", seed=1) as run:
            write_release(run.dir / "release")
    return folder


def same_but(hand_in: Path, folder: Path, behaviour: str) -> Path:
    """The same hand-in with another behaviour; the files are shared."""
    shutil.copytree(hand_in, folder, copy_function=os.link)
    (folder / "behaviour.txt").unlink()
    (folder / "behaviour.txt").write_text(behaviour, encoding="utf-8")
    return folder


def graded(folder: Path, seed: int = GOOD_FIRST) -> MonthResult:
    settings = {"deploy_limit": 3} if (folder / "behaviour.txt").read_text(encoding="utf-8") == "hangs" else {}
    return grade_month(month5.grade, Context(month(**settings), folder, folder / "runs", seed))


def verdicts(result: MonthResult) -> dict[str, str]:
    return {check.check.id: check.status for check in result.checks}


def lines(result: MonthResult) -> str:
    return "\n".join(f"{check.status} {check.line}" for check in result.checks)



@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Iterator[Callable[..., MonthResult]]:
    """The grading of a hand-in with a behaviour; all of them run beside each other, because they mostly wait."""
    folder, patch = tmp_path_factory.mktemp("hand-ins"), pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", str(folder))  # the grader's own folders lie there: processes are known by it
    first = make_hand_in(folder / "first", "honest", patch)
    folders = {case: same_but(first, folder / f"{place}", case[0]) for place, case in enumerate(CASES)}
    with ThreadPoolExecutor(4) as pool:
        running = {case: pool.submit(graded, folders[case], case[1]) for case in CASES}
        yield lambda behaviour, seed=GOOD_FIRST: running[behaviour, seed].result()
    patch.undo()
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(folder) in command]


@pytest.mark.parametrize("fault", SEEDS)
def test_a_platform_that_watches_passes(results, fault):
    """Catches: a grader that no honest work can pass, whatever goes wrong and whichever release comes first."""
    result = results(TIDY.get(fault, "honest"), SEEDS[fault])
    assert result.status == PASSED and result.points == 100, lines(result)
    assert result.details["fault"] == fault


def test_every_fault_and_both_orders_are_tried():
    """Catches: seeds that no longer draw what the tests above are for."""
    drawn = [draw(Context(month(), Path(), Path(), seed)) for seed in SEEDS.values()]
    assert [one.fault for one in drawn] == list(SEEDS) and set(SEEDS) == set(KINDS)
    assert {one.order for one in drawn} == {("good", "bad"), ("bad", "good")}


@pytest.mark.parametrize(
    ("behaviour", "seed", "caught_by"),
    [
        ("always promotes", GOOD_FIRST, {"exposed", "rolled_back", "alerted"}),
        ("always rolls back", GOOD_FIRST, {"deployed"}),
        ("counts deployments", BAD_FIRST, {"deployed", "exposed", "rolled_back"}),
        ("exposes everyone", GOOD_FIRST, {"exposed"}),
        ("only says so", GOOD_FIRST, {"exposed", "rolled_back"}),
        ("every alert, drops streams", GOOD_FIRST, {"broken", "alerted"}),
    ],
)
def test_pipelines_that_do_not_look_fail(results, behaviour, seed, caught_by):
    """Catches: marks for half of the work, which costs nothing: everybody can promote, and everybody can roll back."""
    result = results(behaviour, seed)
    failed = {check for check, status in verdicts(result).items() if status == FAILED}
    assert result.status == FAILED and failed >= caught_by and result.points <= 55, lines(result)


@pytest.mark.parametrize("behaviour", ["no alert, constant metrics", "wrong alert, metrics without traffic"])
def test_alerts_and_metrics_must_be_true(results, behaviour):
    """Catches: a rollback that nobody is told of, or told the wrong reason; figures of another time, or always good."""
    result = results(behaviour)
    families = {verdicts(result)[family] for family in (*month5.FAMILIES, "alerted")}
    assert families == {FAILED} and verdicts(result)["rolled_back"] == PASSED, lines(result)
    assert result.status == PARTIAL and result.points == 65


@pytest.mark.parametrize(
    ("behaviour", "check", "words"),
    [
        ("wraps nothing", "starts", "did not come through the service that --wrap starts"),
        ("does not start", "starts", "no gateway today"),
        ("hangs", "deployed", "deploy did not end within"),
    ],
)
def test_what_does_not_work_says_why(results, behaviour, check, words):
    """Catches: a hanging grader, and a message that does not help."""
    result = results(behaviour)
    assert result.status == FAILED and result.points <= 30
    assert next(one for one in result.checks if one.check.id == check).message.count(words), lines(result)


def test_no_run_is_not_started(tmp_path):
    """Catches: a failed month where nobody has begun."""
    (tmp_path / "runs").mkdir()
    result = grade_month(month5.grade, Context(month(), tmp_path, tmp_path / "runs", GOOD_FIRST))
    assert result.status == NOT_STARTED and result.next == "make stage3"


def test_a_run_without_a_release_says_so(tmp_path, monkeypatch):
    """Catches: an error of the grader for a pipeline that left nothing to deploy."""
    folder = make_hand_in(tmp_path / "hand-in", "honest", monkeypatch)
    shutil.rmtree(next((folder / "runs").glob("*/*/*/release")))
    result = graded(folder)
    assert result.status == FAILED and "no release/release.json" in result.message
