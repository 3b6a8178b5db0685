"""The report as a terminal table, as Markdown and as JUnit XML."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from milestones.grade import ERROR, FAILED, NOT_MEASURED, NOT_STARTED, PARTIAL, PASSED

STYLES = {PASSED: "green", PARTIAL: "yellow", FAILED: "red", NOT_STARTED: "dim", ERROR: "magenta"}
MARKS = {PASSED: "ok", FAILED: "no", NOT_MEASURED: "-"}
Report = Mapping[str, Any]


def measured(month: Report) -> bool:
    """Whether a month has figures to show."""
    return any(check["status"] != NOT_MEASURED for check in month["checks"])


def points(entry: Report) -> str:
    """`40/100`; a condition has none to give."""
    return f"{entry['points']}/{entry['max_points']}" if entry["max_points"] else "-"


def status_text(month: Report) -> str:
    """`partial (was failed, 10)`."""
    before = month["before"]
    return month["status"] + (f" (was {before['status']}, {before['points']})" if before else "")


def verdict(report: Report) -> str:
    """The last line: what was required, and whether it is there."""
    passed = sum(month["status"] == PASSED for month in report["months"])
    required = ", ".join(map(str, report["required"]))
    line = f"{passed} of {len(report['months'])} months passed; required ({required}): "
    line += "ok" if report["ok"] else "not ok"
    return f"{report['problem']}; {line}" if report["problem"] else line


def next_command(report: Report) -> str:
    """The first thing to type."""
    return next((month["next"] for month in report["months"] if month["next"]), "")


def print_table(report: Report, console: Console) -> None:
    """Months, their checks with figures, and the next command."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("month", "figure", "wanted"):
        table.add_column(name, overflow="fold")
    table.add_column("points", justify="right", no_wrap=True)
    for month in report["months"]:
        status = f"[{STYLES[month['status']]}]{month['status']}[/]"
        name = f"[bold]{month['month']}  {escape(month['title']['en'])}[/bold]"
        table.add_row(name, status, "", f"[bold]{points(month)}[/bold]")
        for check in month["checks"] if measured(month) else ():
            mark = f"[{STYLES.get(check['status'], 'dim')}]{MARKS[check['status']]:2}[/]"
            figures = (escape(check["figure"]), escape(check["wanted"]), points(check))
            table.add_row(f"   {mark} {escape(check['title']['en'])}", *figures)
    console.print(table)
    for month in report["months"]:
        if month["before"]:
            console.print(f"month {month['month']}: {status_text(month)}", markup=False, soft_wrap=True)
        if month["message"] and month["status"] != NOT_STARTED:
            console.print(f"month {month['month']}: {month['message']}", markup=False, soft_wrap=True)
    console.print(f"\nseed {report['seed']}; {verdict(report)}", markup=False, soft_wrap=True)
    if next_command(report):
        console.print(f"next: [bold]{escape(next_command(report))}[/bold]", soft_wrap=True)


def markdown(report: Report) -> str:
    """Two tables: the months, and the checks of those that were measured."""
    lines = ["## Milestones", "", "| month | | status | points | next |", "|---|---|---|---|---|"]
    for month in report["months"]:
        next_step = f"`{month['next']}`" if month["next"] else ""
        cells = (month["month"], cell(month["title"]["en"]), status_text(month), points(month), next_step)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for month in filter(measured, report["months"]):
        lines += ["", f"### Month {month['month']}: {cell(month['criterion']['en'])}", ""]
        lines += ["| check | | figure | wanted | points |", "|---|---|---|---|---|"]
        for check in month["checks"]:
            cells = (check["title"]["en"], check["status"], check["figure"], check["wanted"], points(check))
            lines.append("| " + " | ".join(map(cell, cells)) + " |")
    remarks = [m for m in report["months"] if m["message"] and m["status"] != NOT_STARTED]
    if remarks:
        lines += [""] + [f"- month {month['month']}: {cell(month['message'])}" for month in remarks]
    return "\n".join([*lines, "", f"Seed {report['seed']}. {verdict(report)}.", ""])


def cell(text: str) -> str:
    """Text for a table's cell: what a hand-in wrote must not draw columns or links."""
    flat = " ".join(str(text).split()).replace("|", "\\|")
    return "".join(f"\\{c}" if c in "`<>[]*_" else c for c in flat)


def junit(report: Report) -> str:
    """One suite a month, one case a check; a month that is not started is skipped, not failed."""
    root = ElementTree.Element("testsuites", name="milestones", time=str(report["seconds"]))
    if report["problem"]:
        case = ElementTree.SubElement(
            suite(root, "grading", 0.0), "testcase", name="grading", classname="milestones"
        )
        ElementTree.SubElement(case, "error", message=clean(report["problem"]))
    for month in report["months"]:
        group = suite(root, f"month {month['month']}: {month['title']['en']}", month["seconds"])
        for check in month["checks"]:
            case = ElementTree.SubElement(
                group, "testcase", name=check["id"], classname=f"milestones.month{month['month']}", time="0"
            )
            outcome = outcome_of(month, check)
            if outcome:
                tag, message = outcome
                ElementTree.SubElement(case, tag, message=clean(message))
    for group in root:
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            group.set(key, str(len(group.findall(f"./testcase/{tag}"))))
        group.set("tests", str(len(group.findall("./testcase"))))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def suite(root: ElementTree.Element, name: str, seconds: float) -> ElementTree.Element:
    """A test suite."""
    return ElementTree.SubElement(root, "testsuite", name=name, time=str(seconds))


def outcome_of(month: Report, check: Report) -> tuple[str, str] | None:
    """The element that says how a case went, and its message; None for a pass."""
    if check["status"] == PASSED:
        return None
    step = f"; next: {month['next']}" if month["next"] else ""
    if month["status"] == NOT_STARTED:
        return "skipped", f"not started{step}"
    if month["status"] == ERROR:
        return "error", f"{month['message']}{step}"
    figure = f"{check['figure'] or 'no figure'}, wanted {check['wanted']}"
    found = "not measured" if check["status"] == NOT_MEASURED else figure
    return "failure", "; ".join(part for part in (found, check["message"]) if part) + step


def clean(text: str) -> str:
    """Text without the control characters that XML forbids."""
    return "".join(c if c.isprintable() else " " for c in text)
