"""`compare`: MLflow's registry and the course's own, side by side in one run.

The same releases go into both: a model of some size that never changes, and a prompt that always does. What is measured
is what a pipeline waits for (publish, load, move an alias) and what it pays for (bytes on the disk).
"""

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.table import Table

from labkit.cli import option, require_at_least
from labkit.files import write_json
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from labkit.timing import Timer
from stage3_agents_llmops.registry.conformance import Make, Result
from stage3_agents_llmops.registry.conformance_command import check_all, chosen_checks, record
from stage3_agents_llmops.registry.interface import CAPABILITIES, CHAMPION, Registry
from stage3_agents_llmops.registry.release import PARTS, Draft
from stage3_agents_llmops.registry.targets import KINDS, maker_of

CALLS = ("publish", "get", "load", "set_alias", "rollback", "versions", "verify")
QUICK = "a_release_comes_back_byte_for_byte,a_missing_file_is_refused_at_load,the_second_writer_is_told"


@dataclass(frozen=True)
class CompareConfig:
    """How many releases, how large."""

    releases: int = option(30, "releases to publish")
    size: float = option(2.0, "MB of the model that they share")
    repeats: int = option(7, "measurements of load, get and the aliases; the median counts")
    only: str = option("", "these checks of the conformance suite, parted by commas; empty: all")


PRESETS = {
    "smoke": CompareConfig(releases=3, size=0.5, repeats=2, only=QUICK),
    "cpu": CompareConfig(),
    "study": CompareConfig(releases=300, size=20.0, repeats=15),
}
PRESETS["gpu"] = PRESETS["study"]  # nothing here computes on a GPU


@dataclass
class Measured:
    """One registry.

    Attributes:
        seconds: call -> seconds of every one.
        bytes: on the disk, after every release.
    """

    capabilities: frozenset[str]
    results: list[Result]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CALLS})
    bytes: list[int] = field(default_factory=list)

    def timed(self, name: str, call: Callable, *words: object, **named: object) -> object:
        """Call, and note how long it took."""
        with Timer() as timer:
            result = call(*words, **named)
        self.seconds[name].append(timer.seconds)
        return result


def run_compare(config: CompareConfig, preset: str) -> None:
    """Conformance, capabilities, seconds and bytes of both."""
    from stage3_agents_llmops.registry.figures import plot_comparison  # matplotlib: a second

    require_at_least(config, 2, "releases", "repeats")
    checks = chosen_checks(config.only)
    with start_run("stage3", "registry", "compare", config, preset) as run, tempfile.TemporaryDirectory() as scratch:
        measured = {}
        for kind in KINDS:
            make = maker_of(kind)
            results = check_all(make, checks, Path(scratch, "checks"), kind)
            measured[kind] = measure(make, Path(scratch, f"measured-{kind}"), config, results)
            record(run, results, f"{kind}_")
        record_figures(run, measured, config)
        plot_comparison({kind: _medians(each) for kind, each in measured.items()},
                        {kind: each.bytes for kind, each in measured.items()}, run.dir / "compare.png")  # fmt: skip
        run.figure("compare.png", "milliseconds of a call, and bytes on the disk release by release")
        console.print(_table(measured, config))
        run.learnt("MLflow stores every release whole and forgets where an alias was; 100 lines of SQL add the history")
        run.next("python -m stage3_agents_llmops.registry conformance --target mlflow")


def measure(make: Make, folder: Path, config: CompareConfig, results: Sequence[Result]) -> Measured:
    """Publish, then read and move aliases."""
    place = folder / "registry"
    place.mkdir(parents=True)
    registry = make(place)
    measured = Measured(registry.capabilities, list(results))
    for number in progress(range(config.releases), description="publish"):
        measured.timed("publish", registry.publish, draft(folder / "parts", number, config.size))
        measured.bytes.append(size_of(place))
    for number in range(config.repeats):
        read(measured, registry, folder / f"loaded-{number}", 1 + number % config.releases)
    return measured


def read(measured: Measured, registry: Registry, target: Path, version: int) -> None:
    """One measurement of each call that does not publish."""
    other = version % len(measured.bytes) + 1
    registry.set_alias(CHAMPION, version)
    measured.timed("set_alias", registry.set_alias, CHAMPION, other, expected=version)
    measured.timed("rollback", registry.rollback, CHAMPION, expected=other)
    measured.timed("get", registry.get, CHAMPION)
    measured.timed("load", registry.load, version, target)
    measured.timed("versions", registry.versions)
    measured.timed("verify", registry.verify, version)


def draft(folder: Path, number: int, megabytes: float) -> Draft:
    """A release whose model is always the same, and whose prompt never is."""
    contents = {"model": random.Random(1).randbytes(int(megabytes * 1e6)), "rag": b'{"k": 4}\n',
                "graph": f"prompt number {number}\n".encode()}  # fmt: skip
    for part, content in contents.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "content").write_bytes(content)
    report = folder / "report.json"
    write_json(report, {"metrics": {"number": number}})
    return Draft({part: folder / part for part in PARTS}, evaluation=report, metrics={"number": float(number)})


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def record_figures(run: Run, measured: dict[str, Measured], config: CompareConfig) -> None:
    """Medians and bytes as metrics."""
    for kind, each in measured.items():
        for name, seconds in _medians(each).items():
            run.metric(f"{kind}_{name}_ms", 1000 * seconds, "ms", None, "median")
        run.metric(f"{kind}_megabytes", each.bytes[-1] / 1e6, "MB", None, f"{config.releases} releases on the disk")
    whole = config.releases * config.size
    run.metric("files_share", measured["files"].bytes[-1] / 1e6 / whole, "", (None, 0.9), "of the releases' bytes")


def _medians(each: Measured) -> dict[str, float]:
    return {name: median(seconds) for name, seconds in each.seconds.items()}


def _table(measured: dict[str, Measured], config: CompareConfig) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for kind in measured:
        table.add_column(kind, justify="right")

    def row(title: str, say: Callable[[Measured], str]) -> None:
        table.add_row(title, *map(say, measured.values()))

    for status in ("passed", "failed", "left out"):
        row(f"checks {status}", lambda each, status=status: str(sum(r.status == status for r in each.results)))
    for name in CAPABILITIES:
        row(name, lambda each, name=name: "yes" if name in each.capabilities else "no")
    for name in CALLS:
        row(f"{name}, ms", lambda each, name=name: f"{1000 * median(each.seconds[name]):.1f}")
    for title, place in (("first", 0), ("last", -1)):
        row(f"{title} publish, ms", lambda each, place=place: f"{1000 * each.seconds['publish'][place]:.1f}")
    row(f"MB on the disk, {config.releases} x {config.size:g} MB", lambda each: f"{each.bytes[-1] / 1e6:.1f}")
    return table
