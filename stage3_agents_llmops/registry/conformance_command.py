"""`conformance`: the suite over a registry of your choice.

python -m stage3_agents_llmops.registry conformance --target mlflow
python -m stage3_agents_llmops.registry conformance --target my_module:make --only the_second_writer_is_told
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from labkit.cli import nearest, option
from labkit.errors import LabError
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage3_agents_llmops.registry.conformance import Check, Make, Result, load_checks, run_check
from stage3_agents_llmops.registry.targets import maker_of

COLOURS = {"passed": "green", "failed": "red", "left out": "yellow"}


@dataclass(frozen=True)
class ConformanceConfig:
    """Which registry."""

    target: str = option("files", "files, mlflow, or MODULE:FUNCTION, which makes a registry in a folder")
    only: str = option("", "these checks, parted by commas; empty: all")


def run_conformance_command(config: ConformanceConfig, preset: str) -> int:
    """Every check's result; exit code 2 where one failed."""
    checks = chosen_checks(config.only)
    with start_run("stage3", "registry", "conformance", config) as run, tempfile.TemporaryDirectory() as scratch:
        make = maker_of(config.target)
        results = check_all(make, checks, Path(scratch), config.target)
        counts = record(run, results)
        console.print(_table(results))
        console.print(f"{config.target}: {said(counts)}", markup=False)
    return 2 if counts["failed"] else 0


def chosen_checks(only: str) -> list[Check]:
    """The checks with these names.

    Raises:
        LabError: there is no such check.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {check.name: check for check in load_checks()}
    for name in names:
        if name not in known:
            best = nearest(name, list(known))
            raise LabError(f"there is no check {name}", f"--only {best}" if best else "without --only: all of them")
    return [known[name] for name in names] if names else list(known.values())


def check_all(make: Make, checks: Sequence[Check], folder: Path, title: str) -> list[Result]:
    """Run checks, each in a folder of its own."""
    return [run_check(each, make, folder / title.replace(":", "-") / each.name)
            for each in progress(checks, description=title)]  # fmt: skip


def record(run: Run, results: Sequence[Result], prefix: str = "") -> Counter[str]:
    """Results as metrics; returns how many went how."""
    counts = Counter(result.status for result in results)
    run.metric(f"{prefix}passed", counts["passed"], "checks", None, f"of {len(results)}")
    run.metric(f"{prefix}failed", counts["failed"], "checks", (0, 0), ", ".join(
        result.name for result in results if result.status == "failed"))  # fmt: skip
    run.metric(f"{prefix}left_out", counts["left out"], "checks", None, "need what it does not claim")
    return counts


def said(counts: Counter[str]) -> str:
    """22 passed, 2 left out."""
    return ", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "left out") if counts[status])


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("check", "", ""):
        table.add_column(title)
    for result in results:
        colour = COLOURS[result.status]
        table.add_row(result.name, f"[{colour}]{result.status}[/{colour}]", result.message.replace("[", r"\["))
    return table
