"""`task`: how much recall does retrieval need? nDCG@10 of real questions against the recall of the index.

An index may lose neighbours that nobody wanted. The curve shows what is left of the retrieval's quality (are the
passages that answer found, and how high?) when the index finds only a share of the nearest neighbours. For comparison
the same share is lost by chance: every neighbour is dropped with the same probability, and the next ones move up.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from rich import box
from rich.table import Table

import data
from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.plots import new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage1_foundations.vector_index.hnsw import HNSWIndex
from stage1_foundations.vector_index.inverted_file import IVFIndex
from stage1_foundations.vector_index.kmeans import FEWEST
from stage1_foundations.vector_index.measure import one_thread
from stage1_foundations.vector_index.problems import Problem
from stage1_foundations.vector_index.product_quantizer import ProductQuantizer
from stage1_foundations.vector_index.recall import DEFINITION, GroundTruth, ground_truth, recall_at_k

K = 10
TARGET = 0.9  # the recall that the report speaks of


@dataclass(frozen=True)
class TaskConfig:
    """Which questions, seen by which encoder."""

    retrieval: str = option("squad", "a retrieval set (python -m data list)")
    encoder: str = option("minilm", "an encoder of the embeddings lab")
    queries: int = option(300, "questions")
    passages: int | None = option(None, "passages: those that answer, and others; none for all")
    seed: int = option(1, "of the sample and the indexes")


PRESETS = {
    "smoke": TaskConfig(encoder="random", queries=50, passages=300),
    "cpu": TaskConfig(queries=200, passages=400),
    "study": TaskConfig(queries=3000),
}
PRESETS["gpu"] = PRESETS["study"]


@dataclass(frozen=True)
class Outcome:
    """One index at one setting: what share of the neighbours it found, and what the task made of it."""

    index: str
    setting: str
    recall: float
    ndcg: float


def run_task(config: TaskConfig, preset: str) -> None:
    """The command."""
    with start_run("stage1", "vector_index", "task", config, preset=preset, seed=config.seed) as run:
        chosen = data.load_retrieval(config.retrieval).sample(config.queries, config.passages, config.seed)
        if len(chosen.corpus) < 4 * K:
            raise LabError(f"{len(chosen.corpus)} passages are too few to lose any", f"--passages {40 * K}")
        queries, vectors = encoded(config.encoder, chosen)
        Problem(f"{config.retrieval}, {config.encoder}", vectors, queries).note(run)
        with one_thread():
            truth = ground_truth(queries, vectors, depth=5 * K)
            outcomes = [
                Outcome(index, setting, recall_at_k(ids, truth, K), ndcg(ids, chosen))
                for index, setting, ids in answers(queries, vectors, truth, config.seed)
            ]
        record(run, outcomes, ndcg(truth.ids[:, :K], chosen), config, len(vectors))


def encoded(name: str, chosen: data.RetrievalSet) -> tuple[np.ndarray, np.ndarray]:
    """Questions and passages as unit vectors, from the embedding cache where they are known."""
    from stage1_foundations.embeddings.encoders import load_encoder

    encoder = load_encoder(name)
    passages = encoder.encode(list(chosen.corpus.values()), "passage")
    return encoder.encode(list(chosen.queries.values()), "query"), passages


def ndcg(ids: np.ndarray, chosen: data.RetrievalSet) -> float:
    """Mean nDCG@10 of ranked passages, by trec_eval. Ids count the corpus; -1 is nothing."""
    import pytrec_eval

    names = list(chosen.corpus)
    ranked = {
        query: {names[found]: float(K - rank) for rank, found in enumerate(row[:K]) if found >= 0}
        for query, row in zip(chosen.queries, ids, strict=True)
    }
    scores = pytrec_eval.RelevanceEvaluator(chosen.qrels, {f"ndcg_cut.{K}"}).evaluate(ranked)
    return float(np.mean([scores.get(query, {}).get(f"ndcg_cut_{K}", 0.0) for query in chosen.queries]))


def answers(
    queries: np.ndarray, vectors: np.ndarray, truth: GroundTruth, seed: int
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Index, setting and ids (Q, 10), from bad to good."""
    for share in np.linspace(0.1, 1, 10):
        yield "lost by chance", f"keep {share:.0%}", dropped(truth.ids, share, seed)
    count, dimensions = vectors.shape
    lists = 2 ** int(np.log2(max(count / FEWEST, 2)))
    ivf = trained(IVFIndex(dimensions, lists=lists, seed=seed), vectors)
    for nprobe in (2**power for power in range(int(np.log2(lists)) + 1)):
        ivf.nprobe = nprobe
        yield "IVF", f"nprobe {nprobe} of {lists}", ivf.search(queries, K)[1]
    bits = min(8, int(np.log2(count / FEWEST)))
    sizes = [parts for parts in range(2, dimensions + 1) if dimensions % parts == 0][::2]
    for parts in progress(sizes, description="PQ"):
        quantizer = trained(ProductQuantizer(dimensions, parts=parts, bits=bits, seed=seed), vectors)
        yield "PQ", f"{parts} x {bits} bits", quantizer.search(queries, K)[1]
    for neighbours, ef_construction in ((2, 4), (2, 10), (3, 20), (4, 20), (8, 40), (16, 80)):
        settings = {"neighbours": neighbours, "ef_construction": ef_construction, "ef_search": K, "seed": seed}
        graph = trained(HNSWIndex(dimensions, **settings), vectors)
        yield "HNSW", f"M {neighbours}, built by ef {ef_construction}", graph.search(queries, K)[1]


def trained(index: IVFIndex | ProductQuantizer | HNSWIndex, vectors: np.ndarray):
    """The index with the vectors in it."""
    index.train(vectors)
    index.add(vectors)
    return index


def dropped(ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Keep every id (Q, 50) with the probability `share`; the first ten that are left, filled up with -1."""
    draw = np.random.default_rng(seed)
    out = np.full((len(ids), K), -1, np.int64)
    for row, kept in enumerate(draw.random(ids.shape) < share):
        left = ids[row, kept][:K]
        out[row, : len(left)] = left
    return out


def quality_at(outcomes: list[Outcome], index: str, recall: float) -> float | None:
    """nDCG of one index at a recall, linear between its measured points; None outside of them."""
    real = sorted((item for item in outcomes if item.index == index), key=lambda item: item.recall)
    if not real or not real[0].recall <= recall <= real[-1].recall:
        return None
    return float(np.interp(recall, [item.recall for item in real], [item.ndcg for item in real]))


def record(run: Run, outcomes: list[Outcome], exact: float, config: TaskConfig, passages: int) -> None:
    """The table, the plot, the report."""
    title = f"{config.retrieval}, {config.encoder}, {passages} passages"
    show(outcomes, exact, title)
    write_json(run.dir / "task.json", {"exact": exact, "outcomes": [asdict(item) for item in outcomes]})
    run.artefact("task.json", kind="results")
    save_figure(plot(outcomes, exact, title), run.dir / "task.png")
    run.figure("task.png", "nDCG@10 against the recall of the index")
    run.metric("exact_ndcg", exact, "", meaning="nDCG@10 of exact search: the encoder's own quality")
    run.next("python -m stage1_foundations.vector_index clusters")
    kept = {index: quality_at(outcomes, index, TARGET) for index in dict.fromkeys(item.index for item in outcomes)}
    kept = {index: value / exact for index, value in kept.items() if value is not None and exact}
    for index, share in kept.items():
        band = (0.85, 1.05) if index == "IVF" and config.encoder != "random" else None
        name = f"ndcg_kept_{index.lower().replace(' ', '_')}"
        run.metric(name, share, "", band, f"share of exact nDCG@10 left at recall@10 = {TARGET}, {index}")
    if kept:
        parts = ", ".join(f"{index} {share:.0%}" for index, share in kept.items())
        why = "; a code confuses near-ties, a cell or a graph loses neighbours of any rank" if "PQ" in kept else ""
        run.learnt(f"at recall@10 = {TARGET} this much of exact search's nDCG@10 ({exact:.3f}) is left: {parts}{why}")


def show(outcomes: list[Outcome], exact: float, title: str) -> None:
    """The table."""
    console.print(f"\n{title}: exact search has nDCG@10 {exact:.4f}", markup=False)
    table = Table(header_style="dim", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("index", "setting", "recall@10", "nDCG@10", "of exact"):
        table.add_column(head, justify="left" if head in ("index", "setting") else "right", no_wrap=True)
    for item, following in zip(outcomes, [*outcomes[1:], None], strict=True):
        share = f"{item.ndcg / exact:.1%}" if exact else "-"
        table.add_row(item.index, item.setting, f"{item.recall:.3f}", f"{item.ndcg:.4f}", share,
                      end_section=following is None or following.index != item.index)  # fmt: skip
    console.print(table)
    console.print(DEFINITION.replace("@k", "@10", 1), style="dim", markup=False)


def plot(outcomes: list[Outcome], exact: float, title: str):
    """One line for each index; the dashed one loses neighbours by chance."""
    fig, axis = new_figure()
    for name in dict.fromkeys(item.index for item in outcomes):
        line = sorted((item for item in outcomes if item.index == name), key=lambda item: item.recall)
        chance = name == "lost by chance"
        axis.plot([item.recall for item in line], [item.ndcg for item in line], "--" if chance else "o-",
                  color="#888888" if chance else None, markersize=4, label=name)  # fmt: skip
    axis.axhline(exact, color="#bbbbbb", linewidth=1)
    axis.text(0, exact, "exact search", fontsize=8, va="bottom", color="#666666")
    axis.set(xlabel="recall@10 of the index", ylabel="nDCG@10 of the retrieval", title=title, xlim=(0, 1.02))
    axis.set_ylim(bottom=0)
    axis.legend(loc="lower right")
    return fig
