"""The table at the end of a stage: what was learnt, figures against their bands, plots, next command.

python -m labkit.summary stage1
"""

import sys
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.table import Table

from labkit.errors import LabError, guarded
from labkit.progress import console
from labkit.runs import read_report, runs_root, shown
from labkit.timing import human_seconds

Found = tuple[Path, dict[str, Any]]


def in_band(metric: dict[str, Any]) -> bool | None:
    """Whether a metric lies in its band (limits included); None when it has none."""
    if metric["band"] is None:
        return None
    low, high = metric["band"]
    value = metric["value"]
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def band_text(band: list[float | None] | None) -> str:
    """(None, 1.75) is `<= 1.75`, (1, 2) is `1 to 2`."""
    low, high = band or (None, None)
    if low is None and high is None:
        return ""
    if low is None:
        return f"<= {high:.4g}"
    return f">= {low:.4g}" if high is None else f"{low:.4g} to {high:.4g}"


def newest_runs(stage: str) -> tuple[list[Found], list[Found]]:
    """The newest finished run of every lab's every command, and newer runs that did not finish.

    Both are in the order of their start.
    """
    finished: dict[tuple[str, str], Found] = {}
    broken: dict[tuple[str, str], Found] = {}
    for path in (runs_root() / stage).glob("*/*/report.json"):
        if path.parent.is_symlink():
            continue
        try:
            report = read_report(path)
        except LabError:
            continue  # not a report of this version: nothing to say about it here
        if report["status"] == "running":
            continue
        kept = finished if report["status"] == "finished" else broken
        key = (report["lab"], report["command"])
        if key not in kept or _order(kept[key]) < _order((path.parent, report)):
            kept[key] = (path.parent, report)
    late = [run for key, run in broken.items() if key not in finished or _order(finished[key]) < _order(run)]
    return sorted(finished.values(), key=_order), sorted(late, key=_order)


def _order(run: Found) -> tuple[str, str]:
    return run[1]["started"], run[0].name


def show_run(folder: Path, report: dict[str, Any]) -> None:
    """Print one run."""
    facts = [f"preset {report['preset']}"] if report["preset"] else []
    facts += [human_seconds(report["seconds"]), f"peak {report['peak_memory_mb']:.0f} MB"]
    console.print(f"\n[bold]{report['lab']} {report['command']}[/bold]  ({', '.join(facts)})")
    for sentence in report["learnt"]:
        console.print(Padding(f"- {sentence}", (0, 0, 0, 2)), markup=False)
    if report["metrics"]:
        console.print(Padding(metric_table(report["metrics"]), (0, 0, 0, 2)))
    for figure in report["figures"]:
        console.print(f"  {shown(folder / figure['path'])}", markup=False, soft_wrap=True)


def metric_table(metrics: dict[str, dict[str, Any]]) -> Table:
    """Every figure of a report beside its band."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("expected", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("meaning", ratio=1)
    marks = {True: "[green]ok[/green]", False: "[red]outside[/red]", None: ""}
    for name, metric in metrics.items():
        value = "not finite" if metric["value"] is None else f"{metric['value']:.4g} {metric['unit']}".strip()
        table.add_row(name, value, band_text(metric["band"]), marks[in_band(metric)], metric["meaning"])
    return table


def show_broken(folder: Path, report: dict[str, Any]) -> None:
    """Print one line about a run that did not finish."""
    error = report["error"]
    reason = f": {error['type']}: {error['message']}" if error else ""
    line = f"\n{report['lab']} {report['command']}: the newest run {report['status']}{reason}".splitlines()
    console.print("\n".join(line[:2])[:300], markup=False, style="yellow")
    console.print(f"  {shown(folder)}", markup=False, soft_wrap=True)


def main(argv: list[str]) -> None:
    """`python -m labkit.summary STAGE`."""
    if len(argv) != 1 or argv[0].startswith("-"):
        raise LabError("which stage?", "python -m labkit.summary stage1")
    stage = argv[0]
    finished, late = newest_runs(stage)
    if not finished and not late:
        raise LabError(f"no runs of {stage} under {shown(runs_root())}", f"make {stage}")
    console.rule(f"[bold]{stage}[/bold]")
    for run in finished:
        show_run(*run)
    for run in late:
        show_broken(*run)
    verdicts = [in_band(metric) for _, report in finished for metric in report["metrics"].values()]
    console.print(f"\nfigures in their band: {verdicts.count(True)}, outside: {verdicts.count(False)}")
    steps = [report["next"] for _, report in finished if report["next"]]
    console.print(f"next: [bold]{steps[-1] if steps else 'make milestones'}[/bold]")


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
