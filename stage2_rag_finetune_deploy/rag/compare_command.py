"""`compare`: what each part of the search buys, and what it costs."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table

import data
from labkit import plots
from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console, error_console
from labkit.runs import Run, start_run
from stage1_foundations.embeddings.bootstrap import Comparison, mean_interval
from stage2_rag_finetune_deploy.rag.comparison import (
    Scored,
    differences,
    milliseconds,
    row_above,
    score_variants,
    with_typo,
)
from stage2_rag_finetune_deploy.rag.cross_encoder import CrossEncoderReranker
from stage2_rag_finetune_deploy.rag.evaluation.retrieval import write_trec_run
from stage2_rag_finetune_deploy.rag.llm_reranker import QueryLikelihood
from stage2_rag_finetune_deploy.rag.pair_reranker import RememberedScores
from stage2_rag_finetune_deploy.rag.retriever import Corpus
from stage2_rag_finetune_deploy.rag.variants import VARIANTS, Parts, load_token_encoder

BARS = {"squad": 0.90, "amazon-reviews": 0.45}  # MRR@10 after reranking, over the whole corpus
SLOWEST = {"hybrid": 60.0, "late": 400.0, "cross": 400.0}  # p95 in ms on two cores
EVERY = "dense,windows,bm25,rm3,rrf,hybrid,late,cross,llm,spelling"


@dataclass(frozen=True)
class CompareConfig:
    """Which questions, which variants."""

    data: str = option("squad", "a retrieval set: squad, amazon-reviews, construction-faq, construction-faq-sv")
    questions: int = option(500, "how many questions; 0 is all of them")
    passages: int = option(0, "size of the corpus; 0 is the whole")
    variants: str = option(EVERY, "which, in the order of the table, with commas")
    encoder: str = option("minilm", "minilm, e5, or a folder")
    llm_questions: int = option(150, "questions that the language model reranks; 0 leaves it out")
    typo_questions: int = option(200, "questions that get a typo, to see what correction is worth; 0: none")
    timed: int = option(40, "questions on which the time is taken")
    seed: int = option(1, "draws the questions")


PRESETS = {
    "smoke": CompareConfig(questions=12, passages=40, variants="dense,windows,bm25,rrf,hybrid,late,spelling",
                           typo_questions=8, timed=6),
    "cpu": CompareConfig(llm_questions=0, typo_questions=100),
    "study": CompareConfig(questions=0, typo_questions=2000, timed=200),
}  # fmt: skip
PRESETS["gpu"] = PRESETS["study"]


def run_compare(config: CompareConfig, preset: str) -> None:
    """Search with every variant, test the differences, take the time, show."""
    names = check(config)
    with start_run("stage2", "rag", "compare", config, preset=preset, seed=config.seed) as run:
        loaded = data.load_retrieval(config.data)
        if config.questions or config.passages:
            count = config.questions or len(loaded.queries)
            loaded = loaded.sample(count, config.passages or None, seed=config.seed)
        loaded = in_random_order(loaded, config.seed)
        corpus = Corpus.from_texts(loaded.corpus)
        parts, names = make_parts(corpus, config, names)
        scored = score_variants(parts, loaded.queries, loaded.qrels, names, {"llm": config.llm_questions})
        times = take_times(parts, loaded, names, config.timed)
        typos = typo_values(parts, loaded, names, config)
        gains = differences(scored, "mrr@10")
        record(config, scored, gains, times, typos, run)
        draw(config, scored, times, run)
        show(config, scored, gains, times, typos, len(corpus))


def in_random_order(loaded: data.RetrievalSet, seed: int) -> data.RetrievalSet:
    """The same set with its queries shuffled: what only the first N are asked is then asked of a random sample, and not
    of the first article."""
    names = list(loaded.queries)
    order = np.random.default_rng(seed).permutation(len(names))
    return replace(loaded, queries={names[row]: loaded.queries[names[row]] for row in order})


def check(config: CompareConfig) -> list[str]:
    """The names of the variants. Raises LabError for one that is not there, and for impossible counts."""
    names = list(dict.fromkeys(name.strip() for name in config.variants.split(",") if name.strip()))
    for name in names:
        if name not in VARIANTS:
            raise LabError(f"no variant is called {name!r}", f"--variants with some of: {EVERY}")
    if not names:
        raise LabError("no variants to compare", f"--variants {EVERY}")
    for name in ("questions", "passages", "llm_questions", "typo_questions"):
        if getattr(config, name) < 0:
            raise LabError(f"--{name.replace('_', '-')} {getattr(config, name)}", "0 or more")
    if config.timed < 1:
        raise LabError(f"--timed {config.timed}", "1 or more")
    return names


def make_parts(corpus: Corpus, config: CompareConfig, names: list[str]) -> tuple[Parts, list[str]]:
    """The parts, and the variants that can be had: without a trained cross-encoder there is one row less."""
    rerankers: dict[str, Any] = {}
    if "cross" in names:
        try:
            rerankers["cross"] = RememberedScores(CrossEncoderReranker.of_latest_run())
        except LabError as error:
            error_console.print(f"without the row `cross`: {error.message}; {error.try_next}", style="yellow")
            names = [name for name in names if name != "cross"]
    if "llm" in names and config.llm_questions:
        rerankers["llm"] = RememberedScores(QueryLikelihood(data.fetch("smollm2-135m-instruct")))
    elif "llm" in names:
        error_console.print("without the row `llm`, seconds a question: --llm-questions 20 to see it", style="dim")
        names = [name for name in names if name != "llm"]
    return Parts(corpus, load_token_encoder(config.encoder), rerankers=rerankers), names


def take_times(parts: Parts, loaded: data.RetrievalSet, names: list[str], count: int) -> dict[str, np.ndarray]:
    """Milliseconds a query for every variant, without any memory of earlier answers."""
    fresh = {name: getattr(part, "inner", part) for name, part in parts.rerankers.items()}
    cold = replace(parts, rerankers=fresh)
    queries = list(loaded.queries.values())[-count:]
    few = queries[:6]  # a language model needs seconds for each
    return {name: milliseconds(cold, name, few if name == "llm" else queries) for name in names}


def typo_values(
    parts: Parts, loaded: data.RetrievalSet, names: list[str], config: CompareConfig
) -> dict[str, Scored]:
    """`late` with and without correction on questions that have a typo."""
    if not config.typo_questions or not {"late", "spelling"} <= set(names):
        return {}
    rng = np.random.default_rng(config.seed)
    chosen = list(loaded.queries)[: config.typo_questions]
    queries = {query: with_typo(loaded.queries[query], rng) for query in chosen}
    return score_variants(parts, queries, loaded.qrels, ["late", "spelling"])


def confidence(scored: Scored) -> tuple[float, float]:
    """The 95 % interval of MRR@10."""
    return mean_interval(scored.values["mrr@10"])


def record(
    config: CompareConfig, scored: dict[str, Scored], gains: dict[str, Comparison], times: dict[str, np.ndarray],
    typos: dict[str, Scored], run: Run,
) -> None:  # fmt: skip
    """Metrics, per-query values and run files."""
    whole = not config.passages
    values: dict[str, Any] = {}
    for name, result in scored.items():
        mrr = result.values["mrr@10"].mean()
        bar = BARS.get(config.data) if whole and name in ("late", "cross") else None
        run.metric(f"mrr10_{name}", mrr, band=bar and (bar, None), meaning=f"MRR@10, {VARIANTS[name].title}")
        slow = SLOWEST.get(name)
        run.metric(f"p95_{name}", np.quantile(times[name], 0.95), unit="ms", band=slow and (None, slow),
                   meaning=f"19 of 20 queries are faster, {VARIANTS[name].title}")  # fmt: skip
        compared = gains.get(name)
        values[name] = {
            "title": VARIANTS[name].title, "queries": len(result), "against": row_above(name, list(scored)),
            "mean": {measure: float(part.mean()) for measure, part in result.values.items()},
            "mrr10_interval": confidence(result), "difference": compared and vars(compared),
            "ms": {"p50": float(np.median(times[name])), "p95": float(np.quantile(times[name], 0.95))},
            "mrr10_per_query": [round(float(value), 4) for value in result.values["mrr@10"]],
        }  # fmt: skip
        write_trec_run(run.dir / f"{name}.trec", result.run, name)
        run.artefact(f"{name}.trec", kind="run")
    for name, result in typos.items():
        run.metric(f"mrr10_typos_{name}", result.values["mrr@10"].mean(), meaning="MRR@10 on questions with a typo")
    write_json(run.dir / "comparison.json", values)
    run.artefact("comparison.json", kind="table")
    best = max(scored, key=lambda name: scored[name].values["mrr@10"].mean())
    first = next(iter(scored))
    run.learnt(f"{config.data}: from {scored[first].values['mrr@10'].mean():.3f} ({VARIANTS[first].title}) to "
               f"{scored[best].values['mrr@10'].mean():.3f} ({VARIANTS[best].title})")  # fmt: skip
    run.next("python -m stage2_rag_finetune_deploy.rag ask")


def show(
    config: CompareConfig, scored: dict[str, Scored], gains: dict[str, Comparison], times: dict[str, np.ndarray],
    typos: dict[str, Scored], size: int,
) -> None:  # fmt: skip
    """The table."""
    count = max(len(result) for result in scored.values())
    console.print(f"\n{config.data}: {count:,} questions, {size:,} passages", highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for title, justify in (("", "left"), ("MRR@10", "right"), ("nDCG", "right"), ("R@10", "right"),
                           ("against", "left"), ("ΔMRR", "right"), ("95 % interval", "right"), ("p", "right"),
                           ("p50 ms", "right"), ("p95", "right")):  # fmt: skip
        table.add_column(title, justify=justify, no_wrap=True)
    for name, result in scored.items():
        against = row_above(name, list(scored))
        compared = gains.get(name)
        cells = ["", "", "", ""] if compared is None else [
            against, f"{compared.difference:+.3f}", f"{compared.low:+.3f} {compared.high:+.3f}", f"{compared.p:.3f}",
        ]  # fmt: skip
        means = [f"{result.values[measure].mean():.3f}" for measure in ("mrr@10", "ndcg@10", "recall@10")]
        few = f" {len(result)}" if len(result) < count else ""
        quantiles = [f"{value:.0f}" for value in np.quantile(times[name], [0.5, 0.95])]
        table.add_row(f"{name}{few}", *means, *cells, *quantiles)
    console.print(table)
    if typos:
        before, after = (typos[name].values["mrr@10"].mean() for name in ("late", "spelling"))
        compared = differences(typos, "mrr@10")["spelling"]
        console.print(f"with a typo in each of {len(typos['late']):,} questions: late {before:.3f}, corrected first "
                      f"{after:.3f}, p {compared.p:.4f}", highlight=False)  # fmt: skip
    for name, result in scored.items():
        few = f"; {len(result)} questions only" if len(result) < count else ""
        console.print(f"  {name:<9} {VARIANTS[name].title}{few}", style="dim", highlight=False)


def draw(config: CompareConfig, scored: dict[str, Scored], times: dict[str, np.ndarray], run: Run) -> None:
    """Quality against time."""
    figure, axes = plots.new_figure(width=7.0, height=4.2)
    for name, result in scored.items():
        mean, (low, high) = result.values["mrr@10"].mean(), confidence(result)
        x = float(np.quantile(times[name], 0.95))
        axes.errorbar(x, mean, yerr=[[mean - low], [high - mean]], fmt="o", capsize=3)
        axes.annotate(name, (x, mean), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlabel("p95 of a query, ms (log)")
    axes.set_ylabel("MRR@10, with 95 % interval")
    axes.set_title(f"What each part buys on {config.data}, and what it costs")
    plots.save_figure(figure, run.dir / "comparison.png")
    run.figure("comparison.png", "quality of every variant against its time")
