"""The report of a grading in every format, written whole or not at all.

runs/milestones/    milestones.json   everything: figures, thresholds, seed, samples
                    junit.xml         for CI systems
                    milestones.md     also appended to $GITHUB_STEP_SUMMARY where that is set
                    milestones.html   one page, nothing to load
                    badge.svg
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit.environment import git_state, machine
from labkit.files import sha256_file, write_json, write_text
from labkit.runs import runs_root
from milestones.criteria import CRITERIA
from milestones.grade import PASSED, CheckResult, Grading, MonthResult
from milestones.report_page import badge, page
from milestones.report_text import junit, markdown

SCHEMA = 1
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


def report_folder(out: Path | None = None) -> Path:
    """Where reports go: `--out`, else runs/milestones of this checkout (never into a hand-in)."""
    return out or runs_root() / "milestones"


def write_reports(
    grading: Grading, folder: Path, *, command: str = "", without: str = "", problem: str = ""
) -> dict[str, Any]:
    """Write all formats and return the report.

    Args:
        command: what the user typed.
        without: if given, months that were not graded yet stay so, with this reason.
        problem: what went wrong with the grading as a whole, such as that no test was collected.
    """
    results = grading.results(without)
    report = as_json(grading, results, command, problem, previous_marks(folder, submission_name(grading)))
    write_json(folder / "milestones.json", report)
    write_text(folder / "junit.xml", junit(report))
    text = markdown(report)
    write_text(folder / "milestones.md", text)
    write_text(folder / "milestones.html", page(report))
    write_text(folder / "badge.svg", badge(report))
    summary = os.environ.get(SUMMARY_VARIABLE)
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text + "\n")
    return report


def as_json(
    grading: Grading,
    results: list[MonthResult],
    command: str,
    problem: str,
    before: Mapping[int, dict[str, Any]],
) -> dict[str, Any]:
    """The report as plain data; every other format is made from it."""
    statuses = {result.month.number: result.status for result in results}
    return {
        "schema": SCHEMA,
        "grader": {
            "version": grading.criteria.grader_version,
            "criteria_sha256": sha256_file(CRITERIA),
            "git": git_state(),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": machine(),
        "submission": submission_name(grading),
        "seed": grading.seed,
        "seconds": round(sum(result.seconds for result in results), 1),
        "required": list(grading.required),
        "ok": not problem and all(statuses[number] == PASSED for number in grading.required),
        "problem": problem,
        "months": [month_json(result, before.get(result.month.number)) for result in results],
    }


def month_json(result: MonthResult, before: dict[str, Any] | None) -> dict[str, Any]:
    """One month; `before` is its status and points in the report that this one replaces, if they differ."""
    now = {"status": result.status, "points": result.points}
    return {
        "month": result.month.number,
        "title": dict(result.month.title),
        "criterion": dict(result.month.criterion),
        **now,
        "max_points": result.max_points,
        "before": before if before and before != now else None,
        "message": result.message,
        "next": result.next,
        "seconds": result.seconds,
        "checks": [check_json(check) for check in result.checks],
        "details": result.details,
    }


def check_json(result: CheckResult) -> dict[str, Any]:
    """One check; NaN and infinity become null, because JSON has no word for them."""
    finite = result.value is not None and abs(result.value) < float("inf")
    return {
        "id": result.check.id,
        "title": dict(result.check.title),
        "status": result.status,
        "value": result.value if finite else None,
        "unit": result.unit,
        "figure": result.figure,
        "wanted": result.wanted,
        "why": result.threshold.why,
        "points": result.earned,
        "max_points": result.check.points,
        "message": result.message,
    }


def submission_name(grading: Grading) -> str | None:
    """The hand-in's folder, without where it lies; None for this checkout."""
    return grading.submission.name if grading.submission else None


def previous_marks(folder: Path, submission: str | None) -> dict[int, dict[str, Any]]:
    """Status and points of each month in the report that lies in the folder, if it is of the same hand-in."""
    try:
        report = json.loads((folder / "milestones.json").read_text(encoding="utf-8"))
        months = report["months"] if report["submission"] == submission else []
        return {m["month"]: {"status": m["status"], "points": m["points"]} for m in months}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
