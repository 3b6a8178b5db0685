"""`explain`: what is inside the vectors, with figures: anisotropy, pooling, prompts, normalisation.

Every part changes one thing and measures the retrieval of the same questions, so that each of the usual mistakes gets
its price in nDCG.
"""

from dataclasses import dataclass

import numpy as np
import pytrec_eval
from rich.table import Table

import data
from labkit import plots
from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console, error_console
from labkit.runs import Run, start_run
from stage1_foundations.embeddings.anisotropy import effective_dimensions, mean_cosine, random_cosines, remove_mean
from stage1_foundations.embeddings.encoders import Encoder, load_encoder, unit_length
from stage1_foundations.embeddings.pooling import POOLINGS, pooled
from stage1_foundations.embeddings.tasks import retrieval_sample
from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder

E5_MISTAKES = {
    "right": {"query": "query: ", "passage": "passage: "},
    "none": {"query": "", "passage": ""},
    "swapped": {"query": "passage: ", "passage": "query: "},
    "of another model": {"query": "Represent this sentence for searching relevant passages: ", "passage": ""},
}


@dataclass(frozen=True)
class ExplainConfig:
    """Which encoders and which questions."""

    models: str = option("random,glove,gpt,minilm,e5", "encoders whose spread is compared")
    model: str = option("minilm", "the encoder whose pooling is exchanged")
    data: str = option("amazon-reviews", "a retrieval set")
    queries: int = option(100, "questions")
    passages: int = option(120, "passages")


PRESETS = {
    "smoke": ExplainConfig(models="random,glove", queries=10, passages=12),
    "cpu": ExplainConfig(),
    "study": ExplainConfig(queries=500, passages=1000),
    "gpu": ExplainConfig(queries=500, passages=1000),
}


@dataclass(frozen=True)
class Spread:
    """One encoder's vectors: how they lie, and what taking their mean out does."""

    name: str
    mean_cosine: float
    dimensions: float
    random: np.ndarray
    gold: np.ndarray
    raw: float
    centred: float


def run_explain(config: ExplainConfig, preset: str) -> None:
    """All parts, one figure each."""
    if config.queries < 2 or config.passages < config.queries:
        raise LabError("explain wants 2 questions or more, and as many passages", "--queries 50 --passages 100")
    with start_run("stage1", "embeddings", "explain", config, preset=preset, seed=1) as run:
        # inside the sample that `evaluate --preset cpu` uses, so that its vectors are found in the cache
        whole = retrieval_sample(config.data, 150, 240) if config.passages <= 240 else data.load_retrieval(config.data)
        chosen = whole.sample(min(config.queries, len(whole.queries)), config.passages, seed=1)
        spreads = [spread(encoder, chosen) for encoder in encoders(config.models)]
        show_spreads(spreads, run)
        if preset != "smoke":
            show_mistakes(config, chosen, run)
        run.next("python -m stage1_foundations.embeddings leaderboard")


def encoders(names: str) -> list[Encoder]:
    """The encoders by name; without a mini-GPT its place stays empty."""
    found = []
    for name in (word.strip() for word in names.split(",") if word.strip()):
        try:
            found.append(load_encoder(name))
        except LabError as error:
            if name != "gpt":
                raise
            error_console.print(f"gpt: {error.message}; left out", style="yellow")
    return found


def ndcg(chosen: data.RetrievalSet, queries: np.ndarray, passages: np.ndarray) -> float:
    """Mean nDCG@10 × 100 of exact search by dot product; the rows are in the set's order."""
    ids = list(chosen.corpus)
    scores = queries @ passages.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    ranked = {query: {ids[column]: float(scores[row, column]) for column in best[row]}
              for row, query in enumerate(chosen.queries)}  # fmt: skip
    measured = pytrec_eval.RelevanceEvaluator(chosen.qrels, {"ndcg_cut.10"}).evaluate(ranked)
    return 100 * float(np.mean([values["ndcg_cut_10"] for values in measured.values()]))


def spread(encoder: Encoder, chosen: data.RetrievalSet) -> Spread:
    """How an encoder's passages lie on the sphere."""
    passages = encoder.encode(list(chosen.corpus.values()), "passage")
    queries = encoder.encode(list(chosen.queries.values()), "query")
    row_of = {passage: row for row, passage in enumerate(chosen.corpus)}
    gold = [row_of[next(iter(chosen.qrels[query]))] for query in chosen.queries]
    mean = passages.mean(axis=0)
    centred = ndcg(chosen, remove_mean(queries, queries.mean(axis=0)), remove_mean(passages, mean))
    return Spread(
        encoder.name, mean_cosine(passages), effective_dimensions(passages), random_cosines(passages),
        (queries * passages[gold]).sum(axis=1), ndcg(chosen, queries, passages), centred,
    )  # fmt: skip


def show_spreads(spreads: list[Spread], run: Run) -> None:
    """The table and the figure of anisotropy."""
    table = Table(box=None, header_style="dim", title="Anisotropy", title_justify="left", pad_edge=False)
    table.add_column("encoder")
    for heading in ("mean cosine of two\nrandom passages", "effective\ndimensions", "nDCG@10", "mean\nremoved"):
        table.add_column(heading, justify="right")
    figure, axes = plots.new_figure(1, len(spreads), width=2.3 * len(spreads), height=2.8, sharex=True, squeeze=False)
    bins = np.linspace(-0.4, 1, 57)
    for axis, row in zip(axes[0], spreads, strict=True):
        numbers = (f"{row.mean_cosine:.2f}", f"{row.dimensions:.0f}", f"{row.raw:.1f}", f"{row.centred:.1f}")
        table.add_row(row.name, *numbers)
        axis.hist(row.random, bins=bins, density=True, color="#bbbbbb", label="two random passages")
        axis.hist(row.gold, bins=bins, density=True, color=plots.COLOURS[0], alpha=0.7, label="question and its answer")
        axis.set(title=row.name, yticks=[], xlabel="cosine")
        run.metric(f"mean_cosine_{row.name}", row.mean_cosine, meaning="mean cosine of two random passages")
    axes[0][0].legend(loc="upper center", fontsize=7)
    console.print(table)
    plots.save_figure(figure, run.dir / "anisotropy.png")
    run.figure("anisotropy.png", "cosines of random passages, and of questions with their answers")
    tightest = max(spreads, key=lambda row: row.mean_cosine)
    run.learnt(
        f"Two unrelated passages have a cosine of {tightest.mean_cosine:.2f} under {tightest.name}: "
        "a cosine is only large or small beside others of the same model."
    )


def show_mistakes(config: ExplainConfig, chosen: data.RetrievalSet, run: Run) -> None:
    """The prices of the usual mistakes."""
    groups = {
        f"pooling ({config.model})": pooling_scores(config.model, chosen),
        "prompts (e5)": prompt_scores(chosen),
        "lengths (glove)": length_scores(chosen),
    }
    table = Table(box=None, header_style="dim", title="The price of a mistake, nDCG@10 × 100", title_justify="left",
                  pad_edge=False)  # fmt: skip
    for heading in ("part", "variant", "nDCG@10", "to the first"):
        table.add_column(heading, justify="right" if heading.startswith(("n", "to")) else "left")
    figure, axes = plots.new_figure(1, len(groups), width=10.5, height=2.9)
    for axis, (title, scores) in zip(axes, groups.items(), strict=True):
        first = next(iter(scores.values()))
        for number, (variant, score) in enumerate(scores.items()):
            table.add_row("" if number else title, variant, f"{score:.1f}", f"{score - first:+.1f}" if number else "")
            axis.barh(number, score, color=plots.COLOURS[0 if number == 0 else 1], height=0.6)
            axis.text(score, number, f" {score:.1f}", va="center", fontsize=8)
        axis.set_yticks(range(len(scores)), list(scores))
        axis.invert_yaxis()
        axis.set(title=title, xlabel="nDCG@10 × 100", xlim=(0, 1.15 * max(scores.values())))
    console.print(table)
    plots.save_figure(figure, run.dir / "mistakes.png")
    run.figure("mistakes.png", "nDCG@10 under another pooling, other prompts, other lengths")
    prompts, pools = groups["prompts (e5)"], groups[f"pooling ({config.model})"]
    run.metric("prompt_none_change", prompts["none"] - prompts["right"], meaning="nDCG@10 of e5 without its prompts")
    change = pools["cls"] - pools["mean"]
    run.metric("pooling_cls_change", change, meaning=f"nDCG@10 of {config.model} with CLS pooling")
    run.learnt(
        f"The wrong pooling costs {config.model} {pools['mean'] - min(pools.values()):.1f} points of nDCG@10, "
        f"missing prompts cost e5 {prompts['right'] - prompts['none']:.1f}."
    )


def pooling_scores(name: str, chosen: data.RetrievalSet) -> dict[str, float]:
    """nDCG@10 of a transformer under every pooling."""
    encoder = load_encoder(name)
    if not isinstance(encoder, TransformerEncoder):
        raise LabError(f"{name} has no tokens to pool", "--model minilm or --model e5")
    passages = pooled(encoder, list(chosen.corpus.values()), "passage", encoder.prompts)
    queries = pooled(encoder, list(chosen.queries.values()), "query", encoder.prompts)
    scores = {kind: ndcg(chosen, unit_length(queries[kind]), unit_length(passages[kind])) for kind in POOLINGS}
    scores["mean, not normalised"] = ndcg(chosen, queries["mean"], passages["mean"])
    return scores


def prompt_scores(chosen: data.RetrievalSet) -> dict[str, float]:
    """nDCG@10 of e5 with its prompts, without, with the two exchanged, and with another model's."""
    scores, encoder = {}, load_encoder("e5")
    for name, prompts in E5_MISTAKES.items():
        encoder.prompts = {**prompts, "symmetric": ""}
        scores[name] = ndcg(chosen, encoder.encode(list(chosen.queries.values()), "query"),
                            encoder.encode(list(chosen.corpus.values()), "passage"))  # fmt: skip
    return scores


def length_scores(chosen: data.RetrievalSet) -> dict[str, float]:
    """nDCG@10 of averaged GloVe by cosine, by dot product of the means, and of the sums."""
    encoder = load_encoder("glove")
    texts, questions = list(chosen.corpus.values()), list(chosen.queries.values())
    passages, queries = encoder.embed(texts), encoder.embed(questions)
    counts = np.array([[len(text.split())] for text in texts], np.float32)
    return {
        "cosine": ndcg(chosen, unit_length(queries), unit_length(passages)),
        "dot product of means": ndcg(chosen, queries, passages),
        "dot product of sums": ndcg(chosen, queries, passages * counts),
    }
