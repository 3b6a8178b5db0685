"""`bench`: the hand-written indexes beside the libraries, in one process on one thread; one JSON line each.

    flat    queries a second of exact search, in a batch (BLAS) and one by one
    ivf     queries a second at recall@10 = .95, interpolated, one by one and in a batch
    hnsw    the same; and seconds to build

Every index is built once and measured several times; a figure is [lowest, median, highest] of the repetitions. Within
one the libraries take turns and the best of two rounds counts. A busy machine slows all of them, but not all alike: run
it on a quiet one. `--preset study` takes all of GloVe (building HNSW takes minutes).

NumPy and FAISS bring a BLAS each, and an old one may not know a new processor: the line says which kernel each runs.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.cli import option
from labkit.files import write_json
from labkit.progress import error_console
from labkit.runs import Run, start_run
from stage1_foundations.vector_index.measure import one_thread, qps_at
from stage1_foundations.vector_index.problems import PROBLEMS, load_problem
from stage1_foundations.vector_index.sweep import Row, SweepConfig, built_groups, exact

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
    repetitions: int = option(3, "measurements of every index")
    rounds: int = option(2, "timing rounds within a measurement, the best counts")
    seed: int = option(1, "of the sample, k-means and HNSW's levels")


PRESETS = {
    "smoke": BenchConfig(data="clustered", vectors=3000, queries=50, repetitions=2, rounds=1),
    "cpu": BenchConfig(),
    "study": BenchConfig(vectors=0, queries=1000, ef_construction=200),
}
PRESETS["gpu"] = PRESETS["study"]


def run_bench(config: BenchConfig, preset: str) -> None:
    """Run the parts and print their lines."""
    with start_run("stage1", "vector_index", "bench", config, preset=preset, seed=config.seed) as run, one_thread():
        problem = load_problem(config.data, config.vectors, config.queries, config.seed)
        problem.note(run)
        truth = exact(problem, 10)
        settings = SweepConfig(
            libraries=config.libraries, families=",".join(BARS) if config.parts == "all" else config.parts,
            neighbours=config.neighbours, ef_construction=config.ef_construction, seed=config.seed,
        )  # fmt: skip
        facts = {"data": problem.name, "vectors": len(problem.vectors), "threads": 1}
        lines = []
        for group in built_groups(settings, problem):
            repetitions = [group.measured(truth, 10, config.rounds) for _ in range(max(1, config.repetitions))]
            lines.append({"bench": group.adapters[0].family, **compare(repetitions, config.recall), **facts,
                          "blas": blas_kernels()})  # fmt: skip
            print(json.dumps(lines[-1]), flush=True)
            error_console.print(in_words(lines[-1]), style="dim", markup=False, soft_wrap=True)
        record(run, lines)


def compare(repetitions: list[list[Row]], recall: float) -> dict:
    """Every library's QPS at the recall (null where it is not reached), and ours over faiss's of the same repetition.

    Args:
        repetitions: the rows of each measurement of the same indexes.
    """
    rows = repetitions[0]
    single = [{row.library: qps_at(row.points, recall) for row in rows} for rows in repetitions]
    batch = [{row.library: qps_at(row.points, recall, batch=True) for row in rows} for rows in repetitions]
    return {
        "recall": recall,
        "qps": {row.library: spread([speeds[row.library] for speeds in single], 0) for row in rows},
        "batch_qps": {row.library: spread([speeds[row.library] for speeds in batch], 0) for row in rows},
        "ours_over_faiss": spread([ratio(speeds) for speeds in single], 3),
        "ours_over_faiss_batch": spread([ratio(speeds) for speeds in batch], 3),
        "build_seconds": {row.library: round(row.built.seconds, 2) for row in rows},
    }


def ratio(speeds: dict[str, float | None]) -> float | None:
    """Ours over faiss's, None where one is missing."""
    ours, theirs = speeds.get("ours"), speeds.get("faiss")
    return ours / theirs if ours and theirs else None


def spread(values: list[float | None], digits: int) -> list[float] | None:
    """Lowest, median and highest; None where a value is missing."""
    if None in values:
        return None
    return [round(float(value), digits) for value in (min(values), np.median(values), max(values))]


def in_words(line: dict) -> str:
    """Two lines for a person: the medians, one by one and in a batch."""
    texts = []
    for field, share, how in (("qps", "ours_over_faiss", "one by one"),
                              ("batch_qps", "ours_over_faiss_batch", "in a batch")):  # fmt: skip
        speeds = [f"{name} {'-' if found is None else f'{found[1]:,.0f}'}" for name, found in line[field].items()]
        low, median, high = line[share] or (None, None, None)
        rest = f"; ours over faiss {median:.2f} ({low:.2f} to {high:.2f})" if median else ""
        texts.append(f"{line['bench']} {how}, queries a second: {', '.join(speeds)}{rest}")
    return "\n".join(texts)


def blas_kernels() -> dict[str, str]:
    """Which processor the BLAS of NumPy and of FAISS takes this one for; a kernel for an older one is slower."""
    from threadpoolctl import threadpool_info

    owners = {"numpy.libs": "numpy", "faiss_cpu.libs": "faiss"}  # folders of their wheels
    pools = {Path(pool["filepath"]).parent.name: pool for pool in threadpool_info() if pool["user_api"] == "blas"}
    return {
        owner: pools[folder].get("architecture") or pools[folder]["internal_api"]
        for folder, owner in owners.items() if folder in pools
    }  # fmt: skip


def record(run: Run, lines: list[dict]) -> None:
    """The lines as a file, and the bars as metrics."""
    write_json(run.dir / "bench.json", lines)
    run.artefact("bench.json", kind="results")
    for line in lines:
        family = line["bench"]
        share = line["ours_over_faiss_batch" if family == "flat" else "ours_over_faiss"]  # BLAS works on batches
        if share:
            meaning = f"QPS over faiss's, one thread, recall {line['recall']}, {line['vectors']:,} vectors"
            run.metric(f"{family}_speed", share[1], "x", (BARS[family], None), meaning)
    shown = [f"{line['bench']} {line['qps']['ours'][1]:,.0f}" for line in lines if line["qps"].get("ours")]
    run.learnt(f"queries a second of the hand-written indexes, one thread, recall {lines[0]['recall']}: "
               + ", ".join(shown))  # fmt: skip
