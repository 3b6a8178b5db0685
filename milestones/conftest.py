"""`pytest milestones/`: one test a check, red for a month not passed, a report in all cases."""

import shlex

import pytest
from rich.console import Console

from labkit.errors import LabError
from labkit.runs import shown
from milestones.__main__ import months_of, seed_of
from milestones.criteria import load_criteria
from milestones.grade import Grading, MonthResult
from milestones.report import report_folder, write_reports
from milestones.report_text import print_table
from milestones.submission import check_submission

GRADING = pytest.StashKey[Grading]()
REPORT = pytest.StashKey[dict]()
TIME_LIMIT = 600  # seconds for a test: the first of a month does the month's work


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `python -m milestones`; `--seed` is a name that plugins like to take."""
    group = parser.getgroup("milestones")
    group.addoption("--months", metavar="1,2", help="which months to grade (all)")
    group.addoption("--submission", metavar="DIR", help="a hand-in folder (this checkout)")
    group.addoption("--grade-seed", metavar="N", help="of samples and passages (a fresh one)")


def pytest_configure(config: pytest.Config) -> None:
    """Read the options before anything is collected: bad usage is one line and exit code 4."""
    config.addinivalue_line("markers", "month(number): the month that a test grades")
    try:
        criteria = load_criteria()
        months, seed = config.getoption("--months"), config.getoption("--grade-seed")
        config.stash[GRADING] = Grading(
            criteria,
            months_of(months, criteria) if months else None,
            submission=check_submission(config.getoption("--submission")),
            seed=seed_of(seed) if seed else None,
        )
    except LabError as error:
        raise pytest.UsageError(f"{error.message}\n  try: {error.try_next}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that wants `check` runs once for each of its month's checks."""
    mark = metafunc.definition.get_closest_marker("month")
    if mark and "check" in metafunc.fixturenames:
        month = load_criteria().month(mark.args[0])
        metafunc.parametrize("check", [check.id for check in month.checks])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the months that were not picked."""
    picked, left_out = [], []
    for item in items:
        mark = item.get_closest_marker("month")
        (picked if mark is None or mark.args[0] in config.stash[GRADING].numbers else left_out).append(item)
        if mark and config.pluginmanager.hasplugin("timeout"):
            item.add_marker(pytest.mark.timeout(TIME_LIMIT))
    items[:] = picked
    if left_out:
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def graded(request: pytest.FixtureRequest) -> MonthResult:
    """The verdict on the test's month; the work is done once a session."""
    mark = request.node.get_closest_marker("month")
    return request.config.stash[GRADING].month(mark.args[0])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the reports however the session ended; a session without a graded check is red."""
    config = session.config
    if config.getoption("collectonly") or GRADING not in config.stash:
        return
    grading = config.stash[GRADING]
    problem = "" if session.items else "no test was collected"
    typed = shlex.join(["pytest", *map(str, config.invocation_params.args)])
    config.stash[REPORT] = write_reports(
        grading, report_folder(), command=typed, without="not graded", problem=problem
    )
    if session.exitstatus == pytest.ExitCode.OK and (problem or not config.stash[REPORT]["ok"]):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The milestone table, after pytest's own summary."""
    if REPORT in config.stash:
        terminalreporter.section("milestones")
        console = Console(
            file=terminalreporter._tw._file, highlight=False, width=terminalreporter._tw.fullwidth
        )
        print_table(config.stash[REPORT], console)
        console.print(f"report: {shown(report_folder() / 'milestones.html')}", markup=False, soft_wrap=True)
