"""`sweep`: every library and family on one set of vectors; recall against speed, as a table and a plot."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from rich import box
from rich.table import Table

from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.plots import COLOURS, new_figure, save_figure
from labkit.progress import console, error_console
from labkit.runs import Run, start_run
from stage1_foundations.vector_index.adapters import Adapter, library_class, make_adapter, why_missing
from stage1_foundations.vector_index.adapters.adapter import FAMILIES, Settings, formula_bytes
from stage1_foundations.vector_index.measure import Built, Point, build, measure, one_thread, pareto, qps_at, warm_up
from stage1_foundations.vector_index.problems import PROBLEMS, Problem, load_problem
from stage1_foundations.vector_index.recall import DEFINITION, GroundTruth, ground_truth

TARGETS = (0.90, 0.95, 0.99)
GRID = {"nprobe": (1, 2, 4, 8, 16, 24, 32, 48, 64, 128), "ef": (10, 20, 40, 60, 80, 120, 200, 400), None: (0,)}
MARKERS = {"flat": "s", "ivf": "o", "pq": "v", "ivf_pq": "^", "ivf_pq_refine": "D", "hnsw": "*"}


@dataclass(frozen=True)
class SweepConfig:
    """What is searched, and by what."""

    data: str = option("glove", "what is searched", PROBLEMS)
    vectors: int = option(50_000, "how many vectors; 0 for all there are (GloVe: 400,000)")
    queries: int = option(300, "held-out queries")
    k: int = option(10, "neighbours wanted")
    libraries: str = option("ours,faiss,usearch,hnswlib", "which, with commas; a missing one is left out")
    families: str = option("flat,ivf,ivf_pq,ivf_pq_refine,hnsw", f"which of {', '.join(FAMILIES)}")
    lists: int = option(0, "cells of IVF; 0 for about 1.2 sqrt(N), a power of two")
    parts: int = option(0, "bytes of a PQ code; 0 for one byte for about 5 dimensions")
    refine: int = option(10, "candidates per result that ivf_pq_refine looks at again")
    neighbours: int = option(16, "M of HNSW")
    ef_construction: int = option(100, "beam while HNSW is built")
    rounds: int = option(2, "timing rounds, the best counts")
    encoder: str = option("minilm", "for --data passages, an encoder of the embeddings lab")
    seed: int = option(1, "of the sample, k-means and HNSW's levels")


PRESETS = {
    "smoke": SweepConfig(data="clustered", vectors=3000, queries=50, families="flat,ivf,hnsw", rounds=1),
    "cpu": SweepConfig(vectors=40_000),
    "study": SweepConfig(vectors=0, queries=1000, ef_construction=200, rounds=3),
}
PRESETS["gpu"] = PRESETS["study"]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    library: str
    family: str
    built: Built
    formula: float
    points: list[Point]


def run_sweep(config: SweepConfig, preset: str) -> None:
    """The command."""
    with start_run("stage1", "vector_index", "sweep", config, preset=preset, seed=config.seed) as run, one_thread():
        problem = load_problem(config.data, config.vectors, config.queries, config.seed, config.encoder)
        problem.note(run)
        truth = exact(problem, config.k)
        rows = sweep(config, problem, truth)
        show(rows, problem, config.k)
        record(run, rows, problem, config)


def exact(problem: Problem, k: int) -> GroundTruth:
    """The true neighbours. Raises LabError where k is larger than the set."""
    if not 1 <= k <= len(problem.vectors):
        most = len(problem.vectors)
        raise LabError(f"k is {k}, but there are {most} vectors", f"--k {min(10, most)}")
    return ground_truth(problem.queries, problem.vectors, problem.metric, k)


def settings_for(config: SweepConfig, problem: Problem) -> Settings:
    """The parameters that all libraries share; zeros in the config become sizes that fit the data."""
    count, dimensions = problem.vectors.shape
    lists = config.lists or max(1, 2 ** round(np.log2(1.2 * np.sqrt(count))))
    fitting = [parts for parts in range(1, dimensions + 1) if dimensions % parts == 0]
    parts = config.parts or min(fitting, key=lambda parts: abs(parts - dimensions / 5))
    bits = 8 if count >= 39 * 256 else 6 if count >= 39 * 64 else 4
    return Settings(
        dimensions, problem.metric, lists=lists, parts=parts, bits=bits, refine=config.refine,
        neighbours=config.neighbours, ef_construction=config.ef_construction, seed=config.seed,
    )  # fmt: skip


def chosen(config: SweepConfig) -> dict[str, list[str]]:
    """The libraries asked for that have each family asked for; says which libraries are missing."""
    libraries = []
    for library in _words(config.libraries):
        reason = why_missing(library)
        if reason:
            error_console.print(reason, style="dim", markup=False, soft_wrap=True)
        else:
            libraries.append(library)
    families = _words(config.families)
    for family in families:
        if family not in FAMILIES:
            raise LabError(f"no family is called {family}", f"--families with some of: {', '.join(FAMILIES)}")
    found = {family: [name for name in libraries if family in library_class(name).families] for family in families}
    if not any(found.values()):
        raise LabError("no library is left that has such an index", "--libraries ours,faiss --families hnsw")
    return {family: names for family, names in found.items() if names}


def sweep(config: SweepConfig, problem: Problem, truth: GroundTruth) -> list[Row]:
    """Build and measure everything, family by family."""
    return [row for group in built_groups(config, problem) for row in group.measured(truth, config.k, config.rounds)]


@dataclass(frozen=True)
class Group:
    """The libraries' indexes of one family, ready to be searched, and what building them cost."""

    adapters: list[Adapter]
    builds: list[Built]
    formula: float
    arguments: list[int]

    def measured(self, truth: GroundTruth, k: int, rounds: int) -> list[Row]:
        """One row for each library; they take turns."""
        points = measure(self.adapters, [self.arguments] * len(self.adapters), truth, k, rounds)
        return [
            Row(adapter.library, adapter.family, built, self.formula, found)
            for adapter, built, found in zip(self.adapters, self.builds, points, strict=True)
        ]


def built_groups(config: SweepConfig, problem: Problem) -> Iterator[Group]:
    """One family after the other, so that only one family's indexes are in memory."""
    settings = settings_for(config, problem)
    for family, libraries in chosen(config).items():
        adapters = [make_adapter(library, family, settings) for library in libraries]
        builds = []
        for adapter in adapters:
            error_console.print(f"build {adapter.name} ...", style="dim")
            warm_up(adapter, problem.vectors)
            builds.append(build(adapter, problem.vectors))
        arguments = [value for value in GRID[FAMILIES[family]] if family == "hnsw" or value <= settings.lists]
        yield Group(adapters, builds, formula_bytes(family, settings), arguments)


def show(rows: list[Row], problem: Problem, k: int) -> None:
    """Two tables that fit a terminal of 80 columns: speed at a recall, and what it costs."""
    count, dimensions = problem.vectors.shape
    console.print(f"\n{problem.name}: {count:,} x {dimensions}, {len(problem.queries)} queries, one thread")
    console.print(f"queries a second, one by one, at a recall@{k}")
    heads = ["best recall", *(f"QPS at .{round(100 * target)}" for target in TARGETS)]
    console.print(grid(heads, rows, speed_cells))
    console.print(DEFINITION.replace("@k", f"@{k}", 1), style="dim", markup=False)
    console.print("\ntime and memory; times at the first setting with recall >= .95, else at the best one")
    heads = ["p50 ms", "p95 ms", "batch QPS", "build s", "B/vector", "formula"]
    console.print(grid(heads, rows, cost_cells))
    console.print("B/vector: size of the index's file; formula: the textbook's (adapters/adapter.py)", style="dim")


def grid(heads: list[str], rows: list[Row], cells: Callable[[Row], list[str]]) -> Table:
    """One table, a rule between families."""
    table = Table(header_style="dim", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("index", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        last = following is None or following.family != row.family
        table.add_row(f"{row.library} {row.family}", *cells(row), end_section=last)
    return table


def speed_cells(row: Row) -> list[str]:
    """Best recall, and QPS at each of TARGETS."""
    speeds = [qps_at(row.points, target) for target in TARGETS]
    best = max(point.recall for point in row.points)
    return [f"{best:.3f}", *("-" if speed is None else f"{speed:,.0f}" for speed in speeds)]


def cost_cells(row: Row) -> list[str]:
    """Times of queries and of the build, and memory."""
    point = typical(row.points)
    return [
        f"{point.p50_ms:.3f}", f"{point.p95_ms:.3f}", f"{point.batch_qps:,.0f}", f"{row.built.seconds:.1f}",
        f"{row.built.bytes_per_vector:.1f}", f"{row.formula:.1f}",
    ]  # fmt: skip


def typical(points: list[Point]) -> Point:
    """The first point with recall >= .95, else the one with the best recall."""
    return next((point for point in points if point.recall >= 0.95), max(points, key=lambda point: point.recall))


def plot(rows: list[Row], problem: Problem, k: int):
    """Recall on a logit scale (so that .99 and .999 are apart), QPS on a log scale: up and to the right is better."""
    fig, axis = new_figure(width=7.5, height=4.8)
    libraries = list(dict.fromkeys(row.library for row in rows))
    for row in rows:
        front = pareto(row.points)
        x = [min(point.recall, 0.9995) for point in front]
        colour, style = COLOURS[libraries.index(row.library)], "-" if row.library == "ours" else "--"
        axis.plot(x, [point.qps for point in front], style, color=colour, marker=MARKERS[row.family],
                  markersize=6, linewidth=1.4, label=f"{row.library} {row.family}")  # fmt: skip
    axis.set(xscale="logit", yscale="log", xlabel=f"recall@{k} (1.0 drawn at .9995)", ylabel="queries a second",
             title=f"{problem.name}, {len(problem.vectors):,} vectors, single queries, one thread")  # fmt: skip
    ticks = (0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(fontsize=7, ncols=2, loc="lower left")
    return fig


def record(run: Run, rows: list[Row], problem: Problem, config: SweepConfig) -> None:
    """Files, metrics and the sentence of the report."""
    write_json(run.dir / "sweep.json", [asdict(row) for row in rows])
    run.artefact("sweep.json", kind="results")
    save_figure(plot(rows, problem, config.k), run.dir / "pareto.png")
    run.figure("pareto.png", f"recall@{config.k} against queries a second, {problem.name}")
    by_name = {(row.library, row.family): row for row in rows}
    for family, lowest in (("hnsw", 0.95), ("ivf", 0.95)):
        row = by_name.get(("ours", family))
        if row:
            best = max(point.recall for point in row.points)
            run.metric(f"{family}_best_recall", best, "", (lowest, 1), f"ours, at the largest {FAMILIES[family]}")
    for family in ("ivf", "hnsw"):
        difference = recall_difference(by_name.get(("ours", family)), by_name.get(("faiss", family)))
        if difference is not None:
            meaning = "ours minus faiss at the same parameters, mean over the sweep"
            run.metric(f"{family}_recall_against_faiss", difference, "", (-0.01, 0.01), meaning)
    run.learnt(sentence(rows))
    run.next("python -m stage1_foundations.vector_index task")


def recall_difference(ours: Row | None, theirs: Row | None) -> float | None:
    """Mean difference of recall at equal query arguments."""
    if not ours or not theirs:
        return None
    return float(np.mean([a.recall - b.recall for a, b in zip(ours.points, theirs.points, strict=True)]))


def sentence(rows: list[Row]) -> str:
    """What the sweep says, in figures."""
    speeds = {f"{row.library} {row.family}": qps_at(row.points, 0.95) for row in rows}
    reached = {name: speed for name, speed in speeds.items() if speed}
    best = max(reached, key=reached.get) if reached else None
    if best is None:
        return "no index reached recall .95: raise nprobe or ef"
    missed = [name for name, speed in speeds.items() if not speed]
    rest = f"; never got there: {', '.join(missed)}" if missed else ""
    return f"at recall .95 the fastest index is {best} ({reached[best]:,.0f} queries a second on one thread){rest}"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


