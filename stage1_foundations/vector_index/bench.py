"""`bench`: the hand-written indexes beside the libraries, in one process on one thread; one JSON line each.

    flat    queries a second of exact search, in a batch (BLAS) and one by one
    ivf     queries a second at recall@10 = .95, interpolated, one by one and in a batch
    hnsw    the same; and seconds to build

The libraries take turns in every round, and the best round counts. A machine that is busy slows all of them, not all
of them alike: run it on a quiet one, `--preset study` for all of GloVe (the build of HNSW takes minutes).
"""

import json
from dataclasses import dataclass

from labkit.cli import option
from labkit.files import write_json
from labkit.progress import error_console
from labkit.runs import Run, start_run
from stage1_foundations.vector_index.measure import one_thread, qps_at
from stage1_foundations.vector_index.problems import PROBLEMS, load_problem
from stage1_foundations.vector_index.sweep import Row, SweepConfig, exact, sweep

BARS = {"flat": 1 / 1.5, "ivf": 0.5, "hnsw": 0.5}  # our speed over that of faiss


@dataclass(frozen=True)
class BenchConfig:
    """Which parts, on what."""

    parts: str = option("all", "all, or one of them", ("all", *BARS))
    data: str = option("glove", "what is searched", PROBLEMS)
    vectors: int = option(50_000, "how many vectors; 0 for all there are (GloVe: 400,000)")
    queries: int = option(500, "held-out queries")
    recall: float = option(0.95, "where speeds are compared")
    libraries: str = option("ours,faiss,hnswlib,usearch", "which, with commas; a missing one is left out")
    neighbours: int = option(16, "M of HNSW")
    ef_construction: int = option(100, "beam while HNSW is built")
    rounds: int = option(5, "timing rounds, the best counts")
    seed: int = option(1, "of the sample, k-means and HNSW's levels")


PRESETS = {
    "smoke": BenchConfig(data="clustered", vectors=3000, queries=50, rounds=1),
    "cpu": BenchConfig(),
    "study": BenchConfig(vectors=0, queries=1000, ef_construction=200),
}
PRESETS["gpu"] = PRESETS["study"]


def run_bench(config: BenchConfig, preset: str) -> None:
    """Run the parts and print their lines."""
    with start_run("stage1", "vector_index", "bench", config, preset=preset, seed=config.seed) as run, one_thread():
        problem = load_problem(config.data, config.vectors, config.queries, config.seed)
        truth = exact(problem, 10)
        lines = []
        for family in BARS:
            if config.parts not in ("all", family):
                continue
            error_console.print(f"bench {family} ...", style="dim")
            settings = SweepConfig(
                libraries=config.libraries, families=family, neighbours=config.neighbours,
                ef_construction=config.ef_construction, rounds=config.rounds, seed=config.seed,
            )  # fmt: skip
            rows = sweep(settings, problem, truth)
            line = {"bench": family, **compare(rows, config.recall), "data": problem.name,
                    "vectors": len(problem.vectors), "threads": 1}  # fmt: skip
            print(json.dumps(line), flush=True)
            lines.append(line)
        record(run, lines)


def compare(rows: list[Row], recall: float) -> dict:
    """Every library's QPS at the recall (null where it is not reached), and ours over faiss's."""
    single = {row.library: qps_at(row.points, recall) for row in rows}
    batch = {row.library: qps_at(row.points, recall, batch=True) for row in rows}
    return {
        "recall": recall,
        "qps": single,
        "batch_qps": batch,
        "ours_over_faiss": ratio(single),
        "ours_over_faiss_batch": ratio(batch),
        "build_seconds": {row.library: row.built.seconds for row in rows},
    }


def ratio(speeds: dict[str, float | None]) -> float | None:
    """Ours over faiss's, None where one is missing."""
    ours, theirs = speeds.get("ours"), speeds.get("faiss")
    return ours / theirs if ours and theirs else None


def record(run: Run, lines: list[dict]) -> None:
    """The lines as a file, and the bars as metrics."""
    write_json(run.dir / "bench.json", lines)
    run.artefact("bench.json", kind="results")
    for line in lines:
        family = line["bench"]
        field = "ours_over_faiss_batch" if family == "flat" else "ours_over_faiss"  # BLAS works on batches
        if line[field]:
            meaning = f"QPS over faiss's, one thread, recall {line['recall']}, {line['vectors']:,} vectors"
            run.metric(f"{family}_speed", line[field], "x", (BARS[family], None), meaning)
    shown = [f"{line['bench']} {line['qps']['ours']:,.0f}" for line in lines if line["qps"].get("ours")]
    run.learnt(f"queries a second of the hand-written indexes, one thread, recall {lines[0]['recall']}: "
               + ", ".join(shown))  # fmt: skip
