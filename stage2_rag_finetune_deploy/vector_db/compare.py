"""The table that chooses a store: the same vectors into each, at growing sizes."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from labkit.cli import nearest, option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from labkit.timing import human_size
from stage2_rag_finetune_deploy.vector_db.measure import Measured, Problem, load_problem, measure
from stage2_rag_finetune_deploy.vector_db.milvus_server import MilvusServer
from stage2_rag_finetune_deploy.vector_db.store import CollectionSpec
from stage2_rag_finetune_deploy.vector_db.stores import open_store

# label in the table: (store, options of the store, index)
ROWS: dict[str, tuple[str, dict, str]] = {
    "faiss-flat": ("faiss", {}, "flat"),
    "faiss": ("faiss", {}, "hnsw"),
    "milvus-lite": ("milvus-lite", {}, "hnsw"),
    "milvus": ("milvus", {}, "hnsw"),
    "milvus-strong": ("milvus", {"consistency": "Strong"}, "hnsw"),
    "weaviate": ("weaviate", {}, "hnsw"),
}
SLOW = {"milvus-strong": 4}  # queries, where each waits for the server's time tick


@dataclass(frozen=True)
class CompareConfig:
    """What is compared."""

    stores: str = option(",".join(ROWS), f"rows of the table, with commas: {', '.join(ROWS)}")
    sizes: str = option("2000,10000", "numbers of vectors, with commas")
    queries: int = option(200, "held-out words, asked one at a time")
    k: int = option(10, "answers to each")
    seed: int = option(1, "which words")


PRESETS = {
    "smoke": CompareConfig(stores="faiss-flat,faiss,milvus-lite", sizes="500,1500", queries=20),
    "cpu": CompareConfig(queries=60),
    "study": CompareConfig(sizes="2000,10000,50000,100000", queries=500),
}


def run_compare(config: CompareConfig, preset: str) -> None:
    """The command: measure, print, plot, record."""
    labels, sizes = parse_stores(config.stores), parse_sizes(config.sizes)
    problems = [load_problem(size, config.queries, config.k, config.seed) for size in sizes]
    with start_run("stage2", "vector_db", "compare", config, preset, config.seed) as run, ExitStack() as servers:
        figures, skipped, places = [], {}, Places(run.dir / "stores", servers)
        with progress(total=len(labels) * len(sizes), description="compare") as bar:
            for label in labels:
                bar.note(label)
                try:
                    for one in measure_store(label, problems, config.k, places):
                        figures.append(one)
                        write_json(run.dir / "table.json", [asdict(each) for each in figures])  # survives Ctrl-C
                        bar.advance()
                except LabError as error:
                    skipped[label] = error
        if not figures:
            raise next(iter(skipped.values()))
        show(figures, skipped)
        run.artefact("table.json", "table")
        run.figure(plot(figures, run.dir / "growth.png"), "How each store grows")
        record(run, figures, skipped)


def parse_stores(text: str) -> list[str]:
    """Labels of ROWS."""
    labels = [word.strip() for word in text.split(",") if word.strip()]
    for label in labels:
        if label not in ROWS:
            raise LabError(f"unknown store {label!r}", nearest(label, list(ROWS)) or f"--stores {','.join(ROWS)}")
    if not labels:
        raise LabError("no stores to compare", f"--stores {','.join(ROWS)}")
    return list(dict.fromkeys(labels))


def parse_sizes(text: str) -> list[int]:
    """Numbers, growing."""
    try:
        return sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise LabError(f"--sizes wants whole numbers with commas, not {text!r}", "--sizes 2000,20000") from None


class Places:
    """Where each row's store lies.

    Args:
        folder: of all stores.
        servers: ends what was started: one Milvus server for all rows that want one, unless MILVUS_URI names one.
    """

    def __init__(self, folder: Path, servers: ExitStack) -> None:
        self.folder, self._servers, self._milvus = folder, servers, os.environ.get("MILVUS_URI", "")

    def of(self, name: str, label: str) -> tuple[str | Path, Path]:
        """The location that `open_store` wants, and the folder that the store fills."""
        place = self.folder / (name if name == "milvus" else label)
        place.mkdir(parents=True, exist_ok=True)
        if name == "milvus":
            self._milvus = self._milvus or self._servers.enter_context(MilvusServer(place)).uri
            return self._milvus, place
        if name == "weaviate":
            return os.environ.get("WEAVIATE_URL") or place, place
        return place / "store.db", place


def measure_store(label: str, problems: list[Problem], k: int, places: Places) -> Iterator[Measured]:
    """One row of ROWS at every size."""
    name, options, index = ROWS[label]
    location, folder = places.of(name, label)
    with open_store(name, location, **options) as store:
        for problem in problems:
            some = SLOW.get(label, len(problem.asked))
            few = Problem(problem.vectors, problem.queries[:some], problem.truth[:some], problem.words,
                          problem.asked[:some])  # fmt: skip
            spec = CollectionSpec("words", problem.vectors.shape[1], {"number": int}, index)
            yield measure(store, label, spec, few, folder, k)


def show(figures: list[Measured], skipped: dict[str, LabError]) -> None:
    """The table in the terminal."""
    title = "GloVe words in 50 dimensions; one query at a time, milliseconds"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("store", "vectors", "in / s", "p50", "p95", "filter", "hybrid", "recall", "disk"):
        table.add_column(name, justify="left" if name == "store" else "right", no_wrap=True)
    for one in figures:
        table.add_row(
            one.store, f"{one.rows:,}", f"{one.ingest:,.0f}", f"{one.p50['search']:.1f}", f"{one.p95['search']:.1f}",
            f"{one.p50['filter']:.1f}", f"{one.p50['hybrid']:.1f}", f"{one.recall:.3f}",
            human_size(one.disk) if one.disk > 0 else "elsewhere",
        )  # fmt: skip
    console.print(table)
    console.print("p50, p95: of a search; filter: 10 % of the rows pass", style="dim")
    for label, error in skipped.items():
        console.print(f"left out: {label}: {error.message}\n  try: {error.try_next}", markup=False, style="yellow")


def plot(figures: list[Measured], path: Path) -> Path:
    """Median latency and ingest rate against the number of vectors, a line for each store."""
    from labkit.plots import new_figure, save_figure  # matplotlib: the other commands do without

    fig, (left, right) = new_figure(1, 2, width=9, height=3.8)
    for label in dict.fromkeys(one.store for one in figures):
        rows = [one for one in figures if one.store == label]
        sizes = [one.rows for one in rows]
        left.plot(sizes, [one.p50["search"] for one in rows], marker="o", markersize=4, label=label)
        right.plot(sizes, [one.ingest for one in rows], marker="o", markersize=4, label=label)
    for axes, title, unit in ((left, "One query", "median, ms"), (right, "Taking records in", "records a second")):
        axes.set(xscale="log", yscale="log", title=title, xlabel="vectors", ylabel=unit)
    left.legend(ncols=2, fontsize=8)
    return save_figure(fig, path)


def record(run: Run, figures: list[Measured], skipped: dict[str, LabError]) -> None:
    """The report's figures, and what to remember of them."""
    for one in figures:
        name = f"{one.store}.{one.rows}"
        run.metric(f"{name}.ingest", one.ingest, "records/s")
        run.metric(f"{name}.p50", one.p50["search"], "ms")
        run.metric(f"{name}.p95", one.p95["search"], "ms")
        run.metric(f"{name}.hybrid_p50", one.p50["hybrid"], "ms")
        run.metric(f"{name}.recall", one.recall, "", (0.9, 1.0), "of the ten true neighbours")
        run.metric(f"{name}.disk", one.disk, "bytes")
    largest = max(one.rows for one in figures)
    there = {one.store: one for one in figures if one.rows == largest}
    quick = min(there.values(), key=lambda one: one.p50["search"])
    run.learnt(f"At {largest:,} vectors {quick.store} answers fastest, {quick.p50['search']:.1f} ms, and finds "
               f"{quick.recall:.0%} of the true neighbours.")  # fmt: skip
    if {"milvus", "milvus-strong"} <= there.keys():
        slow, usual = there["milvus-strong"].p50["search"], there["milvus"].p50["search"]
        run.learnt(f"Waiting for everyone's writes (Strong) costs {slow:.0f} ms a read, for one's own {usual:.1f} ms.")
    if skipped:
        run.report["config"]["left_out"] = json.dumps({label: error.message for label, error in skipped.items()})
    run.next("python -m stage2_rag_finetune_deploy.vector_db features")
