"""Grade the milestones: `python -m milestones`.

Exit code: 0 if every required month passed, 1 if not, 2 for bad usage.
"""

import shlex
import sys
from pathlib import Path

from labkit.cli import Parser
from labkit.errors import LabError, guarded
from labkit.progress import console, error_console
from labkit.runs import shown
from milestones.criteria import Criteria, load_criteria
from milestones.grade import Grading
from milestones.report import report_folder, write_reports
from milestones.report_text import print_table
from milestones.submission import check_submission

EPILOG = "examples: python -m milestones --months 1;  python -m milestones --submission hand-ins/ada --seed 7"


def months_of(text: str, criteria: Criteria) -> tuple[int, ...]:
    """`1,2` as numbers.

    Raises:
        LabError: not numbers, or no such month.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise LabError(f"months are numbers with commas between them, not {text!r}", "--months 1,2")
    return tuple(criteria.month(int(word)).number for word in words)


def seed_of(text: str) -> int:
    """A seed.

    Raises:
        LabError: not a whole number.
    """
    if not text.isdigit():
        raise LabError(f"a seed is a whole number, not {text!r}", "--seed 7, or none for a fresh one")
    return int(text)


def main(argv: list[str]) -> int:
    """Parse, grade, write the reports, print the table."""
    criteria = load_criteria()
    parser = Parser(
        prog="python -m milestones", description="Grade the milestones.", epilog=EPILOG, allow_abbrev=False
    )
    parser.add_argument("--months", metavar="1,2", help="which to grade (all)")
    parser.add_argument("--require", metavar="1", help="which must pass for exit code 0 (those of --months)")
    parser.add_argument("--submission", metavar="DIR", help="a hand-in folder (this checkout)")
    parser.add_argument(
        "--seed", metavar="N", help="of samples and passages (a fresh one, kept in the report)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the reports go (runs/milestones)")
    options = parser.parse_words(argv)
    grading = Grading(
        criteria,
        months_of(options.months, criteria) if options.months else None,
        required=months_of(options.require, criteria) if options.require else None,
        submission=check_submission(options.submission),
        seed=seed_of(options.seed) if options.seed else None,
        say=lambda text: error_console.print(text, style="dim", markup=False),
    )
    folder = report_folder(options.out)
    typed = shlex.join(["python", "-m", "milestones", *argv])
    report = write_reports(grading, folder.absolute(), command=typed)
    print_table(report, console)
    console.print(f"report: {shown(folder.absolute() / 'milestones.html')}", markup=False, soft_wrap=True)
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(guarded(main)())
