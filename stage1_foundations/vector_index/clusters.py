"""`clusters`: why PQ "breaks". The same indexes on vectors with structure and on vectors without.

On evenly spread vectors of many dimensions the nearest neighbour is hardly nearer than the hundredth, so a code that
is off by a little swaps them; and no cell of an IVF holds more of a query's neighbours than the next. Learnt embeddings
are not like that: they lie on sheets of few dimensions. Benchmarks on random vectors measure the wrong thing.

Three figures make it visible:
    intrinsic dimension   by the growth of distances around a query (Levina and Bickel 2004, eq. 8)
    gap                   how much farther (in squared distance) the 100th neighbour is than the 10th
    code error            squared length of what PQ leaves out; the larger against the gap, the more ranks are noise
"""

import warnings
from dataclasses import asdict, dataclass, replace

import numpy as np
from rich import box
from rich.table import Table

from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.plots import COLOURS, new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage1_foundations.vector_index.adapters.adapter import Settings
from stage1_foundations.vector_index.adapters.ours import build
from stage1_foundations.vector_index.index import VectorIndex
from stage1_foundations.vector_index.kmeans import TooFewPoints
from stage1_foundations.vector_index.measure import one_thread
from stage1_foundations.vector_index.problems import Problem, load_problem
from stage1_foundations.vector_index.product_quantizer import Codebooks
from stage1_foundations.vector_index.recall import DEFINITION, GroundTruth, ground_truth, recall_at_k

PARTS = (2, 4, 8, 16, 32)  # bytes of a code for 64 dimensions
K = 10


@dataclass(frozen=True)
class ClustersConfig:
    """Size of both sets."""

    vectors: int = option(12_000, "vectors of each set")
    queries: int = option(300, "queries of each set")
    nprobe: int = option(8, "lists that IVF looks into, of 128")
    refine: int = option(10, "candidates per result that are compared again")
    seed: int = option(1, "of the sets and the indexes")


PRESETS = {
    "smoke": ClustersConfig(vectors=2000, queries=50, nprobe=4),
    "cpu": ClustersConfig(),
    "study": ClustersConfig(vectors=200_000, queries=1000, nprobe=8),
}
PRESETS["gpu"] = PRESETS["study"]


@dataclass(frozen=True)
class Finding:
    """What was measured on one set."""

    data: str
    intrinsic_dimension: float
    gap: float
    code_error: float
    pq: dict[int, float]  # bytes -> recall
    ivf: float
    ivf_pq: float
    ivf_pq_refine: float
    hnsw: float


def run_clusters(config: ClustersConfig, preset: str) -> None:
    """The command."""
    if config.vectors < 200:
        raise LabError(f"{config.vectors} vectors have no hundredth neighbour worth the name", "--vectors 2000")
    with start_run("stage1", "vector_index", "clusters", config, preset=preset, seed=config.seed) as run, one_thread():
        findings = []
        for name in progress(("uniform", "clustered"), description="clusters"):
            problem = load_problem(name, config.vectors, config.queries, config.seed)
            problem.note(run)
            findings.append(examine(problem, config))
        show(findings, config)
        record(run, findings, config)


def examine(problem: Problem, config: ClustersConfig) -> Finding:
    """All figures of one set. Metric: squared L2, so that gap and error are in the same unit."""
    truth = ground_truth(problem.queries, problem.vectors, "l2", depth=100)
    lists = min(128, len(problem.vectors) // 40)
    settings = Settings(
        problem.dimensions, "l2", lists=lists, parts=8, refine=config.refine, ef_construction=100, seed=config.seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TooFewPoints)  # 2,000 vectors at smoke
        quantizers = {parts: filled("pq", replace(settings, parts=parts), truth) for parts in PARTS}
        ivf, coded = filled("ivf", settings, truth), filled("ivf_pq_refine", settings, truth)
    ivf.nprobe = coded.nprobe = config.nprobe
    refined = recall(coded, truth)
    coded.refine = 0
    return Finding(
        problem.name, *geometry(truth), code_error(quantizers[8].codebooks, problem.vectors),
        pq={parts: recall(index, truth) for parts, index in quantizers.items()}, ivf=recall(ivf, truth),
        ivf_pq=recall(coded, truth), ivf_pq_refine=refined, hnsw=recall(filled("hnsw", settings, truth), truth),
    )  # fmt: skip


def filled(family: str, settings: Settings, truth: GroundTruth) -> VectorIndex:
    """One of our indexes with the vectors in it."""
    index = build(family, settings)
    index.train(truth.vectors)
    index.add(truth.vectors)
    return index


def recall(index: VectorIndex, truth: GroundTruth) -> float:
    """Recall@10."""
    return recall_at_k(index.search(truth.queries, K)[1], truth, K)


def geometry(truth: GroundTruth) -> tuple[float, float]:
    """Intrinsic dimension, and the gap between the 10th and the 100th neighbour (squared)."""
    near = truth.vectors[truth.ids].astype(np.float64)  # (Q, 100, D)
    squared = ((near - truth.queries[:, None]) ** 2).sum(axis=2)
    logs = np.log(squared[:, -1:] / np.maximum(squared[:, :-1], 1e-30)) / 2
    return float(1 / logs.mean()), float((squared[:, -1] - squared[:, 9]).mean())


def code_error(codebooks: Codebooks, vectors: np.ndarray) -> float:
    """Mean squared length of vector minus decoded code."""
    return float(((vectors - codebooks.decode(codebooks.encode(vectors))) ** 2).sum(axis=1).mean())


def show(findings: list[Finding], config: ClustersConfig) -> None:
    """The two sets side by side."""
    console.print(f"\n{config.vectors:,} vectors of 64 dimensions, {config.queries} queries, squared L2 distances")
    table = Table(header_style="dim", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for item in findings:
        table.add_column(item.data, justify="right")
    rows = [("intrinsic dimension (of 64)", "intrinsic_dimension", ".1f"), ("gap, 10th to 100th", "gap", ".3f"),
            ("code error, 8 bytes", "code_error", ".3f")]  # fmt: skip
    for label, field, form in rows:
        table.add_row(label, *(format(getattr(item, field), form) for item in findings))
    table.add_section()
    for parts in PARTS:
        table.add_row(f"recall@10, PQ {parts} bytes", *(f"{item.pq[parts]:.3f}" for item in findings))
    for field in ("ivf", "ivf_pq", "ivf_pq_refine", "hnsw"):
        table.add_row(f"recall@10, {field}", *(f"{getattr(item, field):.3f}" for item in findings))
    console.print(table)
    console.print("the larger the code error against the gap, the more of a code's ranking is noise", style="dim")
    console.print(DEFINITION.replace("@k", "@10", 1), style="dim", markup=False)


def record(run: Run, findings: list[Finding], config: ClustersConfig) -> None:
    """Files, metrics, the sentence."""
    write_json(run.dir / "clusters.json", [asdict(item) for item in findings])
    run.artefact("clusters.json", kind="results")
    save_figure(plot(findings), run.dir / "clusters.png")
    run.figure("clusters.png", "the same indexes on uniform and on clustered vectors")
    even, grouped = findings
    run.metric("pq_recall_uniform", even.pq[8], "", (0, 0.4), "PQ with 8 bytes, uniform vectors")
    run.metric("pq_recall_clustered", grouped.pq[8], "", meaning="PQ with 8 bytes, clustered vectors")
    advantage = grouped.ivf - even.ivf
    run.metric("ivf_advantage", advantage, "", (0.2, 1), "IVF's recall, clustered minus uniform, same nprobe")
    run.learnt(
        f"PQ does not break, its data does: 8 bytes give recall {even.pq[8]:.2f} on uniform vectors (intrinsic "
        f"dimension {even.intrinsic_dimension:.0f}) and {grouped.pq[8]:.2f} on clustered ones "
        f"({grouped.intrinsic_dimension:.0f}); "
        f"refining lifts IVF-PQ from {grouped.ivf_pq:.2f} to {grouped.ivf_pq_refine:.2f}"
    )
    run.next("python -m stage1_foundations.vector_index bench --preset cpu")


def plot(findings: list[Finding]):
    """Left: recall by bytes of the code. Right: the other indexes."""
    fig, (left, right) = new_figure(1, 2, width=9.0, height=3.8)
    names = {"ivf": "IVF", "ivf_pq": "IVF-PQ", "ivf_pq_refine": "IVF-PQ\nrefined", "hnsw": "HNSW"}
    for number, item in enumerate(findings):
        left.plot(list(item.pq), list(item.pq.values()), "o-", color=COLOURS[number],
                  label=f"{item.data}, intrinsic dimension {item.intrinsic_dimension:.0f}")  # fmt: skip
        places = np.arange(len(names)) + 0.4 * number - 0.2
        right.bar(places, [getattr(item, name) for name in names], 0.36, color=COLOURS[number], label=item.data)
    left.set(xscale="log", xlabel="bytes of a PQ code (64 dimensions)", ylabel="recall@10", ylim=(0, 1.02),
             title="codes without refining")  # fmt: skip
    left.set_xticks(PARTS, [str(parts) for parts in PARTS])
    left.minorticks_off()
    left.legend(loc="best")
    right.set(ylim=(0, 1.02), title="the same parameters on both")
    right.set_xticks(range(len(names)), names.values())
    right.grid(axis="x", visible=False)
    return fig
