"""The report as one HTML page, which loads nothing, and as an SVG badge."""

from collections.abc import Mapping
from html import escape
from typing import Any

from milestones.grade import NOT_STARTED, PASSED
from milestones.report_text import measured, next_command, points, status_text, verdict

Report = Mapping[str, Any]
SHOWN_SAMPLES = 3
COLOURS = {"passed": "#2e7d32", "partial": "#b26a00", "failed": "#c62828", "error": "#7b1fa2"}
GREY = "#757575"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; font-size: .85em; opacity: .75; }
td.number { text-align: right; white-space: nowrap; }
td.short { white-space: nowrap; }
.status { display: inline-block; padding: 0 .55em; border-radius: 1em; color: #fff; white-space: nowrap; }
.why { font-size: .85em; opacity: .75; }
.zh { opacity: .75; }
pre { background: var(--soft); padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { background: var(--soft); padding: .1em .3em; }
"""


def page(report: Report) -> str:
    """The page. Everything that a hand-in may have written is escaped."""
    months = "".join(month_row(month) for month in report["months"])
    step = next_command(report)
    facts = [
        report["created"],
        f"seed {report['seed']}",
        f"grader {report['grader']['version']}",
        report["command"],
    ]
    if report["submission"]:
        facts.insert(0, f"hand-in {report['submission']}")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Milestones</title><style>{STYLE}</style></head><body>
<h1>Milestones</h1>
<p>{escape(verdict(report))}.{f" Next: <code>{escape(step)}</code>" if step else ""}</p>
<table><tr><th>month</th><th></th><th>status</th><th>points</th><th>next</th></tr>{months}</table>
{"".join(map(month_section, filter(measured, report["months"])))}
<p class="why">{escape(" · ".join(facts))}</p>
</body></html>
"""


def month_row(month: Report) -> str:
    """A month in the overview."""
    title = f"{escape(month['title']['en'])} <span class='zh' lang='zh'>{escape(month['title']['zh'])}</span>"
    step = f"<code>{escape(month['next'])}</code>" if month["next"] else ""
    message = f"<br><span class='why'>{escape(month['message'])}</span>" if month["message"] else ""
    return (
        f"<tr><td>{month['month']}</td><td>{title}{message if month['status'] != NOT_STARTED else ''}</td>"
        f"<td>{status_mark(month['status'], status_text(month))}</td>"
        f"<td class='number'>{points(month)}</td><td>{step}</td></tr>"
    )


def status_mark(status: str, text: str) -> str:
    """A coloured word."""
    return f"<span class='status' style='background:{COLOURS.get(status, GREY)}'>{escape(text)}</span>"


def month_section(month: Report) -> str:
    """A month's checks, and samples where there are some."""
    rows = "".join(check_row(check) for check in month["checks"])
    samples = month["details"].get("samples") or []
    shown = "".join(f"<pre>{escape(str(text))}</pre>" for text in samples[:SHOWN_SAMPLES])
    if shown:
        shown = f"<details open><summary>{SHOWN_SAMPLES} of {len(samples)} samples</summary>{shown}</details>"
    criterion = month["criterion"]
    return (
        f"<h2>Month {month['month']}: {escape(criterion['en'])}</h2><p class='zh' lang='zh'>"
        f"{escape(criterion['zh'])}</p><table><tr><th>check</th><th></th><th>figure</th><th>wanted</th>"
        f"<th>points</th></tr>{rows}</table>{shown}"
    )


def check_row(check: Report) -> str:
    """A check with its figure, its threshold and how that was chosen."""
    remarks = "<br>".join(escape(text) for text in (check["message"], check["why"]) if text)
    return (
        f"<tr><td>{escape(check['title']['en'])}<br><span class='why'>{remarks}</span></td>"
        f"<td>{status_mark(check['status'], check['status'])}</td><td class='short'>{escape(check['figure'])}</td>"
        f"<td class='short'>{escape(check['wanted'])}</td><td class='number'>{points(check)}</td></tr>"
    )


def badge(report: Report) -> str:
    """`milestones 2/5`, green when everything required passed."""
    passed = sum(month["status"] == PASSED for month in report["months"])
    label, text = "milestones", f"{passed}/{len(report['months'])}"
    colour = COLOURS["passed"] if report["ok"] else COLOURS["partial"] if passed else COLOURS["failed"]
    left, right = 7 * len(label) + 12, 8 * len(text) + 14
    width = left + right
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img"
 aria-label="{label}: {text}">
<title>{label}: {text}</title>
<rect width="{width}" height="20" rx="3" fill="#555"/>
<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3}z" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{left / 2}" y="14">{label}</text><text x="{left + right / 2}" y="14">{text}</text></g></svg>
"""
