"""`explain`: what is inside the vectors, with figures: anisotropy, pooling, prompts, normalisation, shared words.

Every part changes one thing and measures the retrieval of the same questions, so that each of the usual mistakes gets
its price in nDCG.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from labkit import plots
from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console, error_console
from labkit.runs import Run, start_run
from stage1_foundations.embeddings.bootstrap import paired_bootstrap
from stage1_foundations.embeddings.evaluate_command import CPU, retrieval_size, words_of

if TYPE_CHECKING:
    import data
    from stage1_foundations.embeddings.encoders import Encoder
    from stage1_foundations.embeddings.mistakes import Spread

SETS = "squad,amazon-reviews,construction-faq"


@dataclass(frozen=True)
class ExplainConfig:
    """Which encoders and which questions."""

    models: str = option("random,glove,gpt,minilm,e5", "encoders whose spread is compared")
    model: str = option("minilm", "the encoder whose pooling is exchanged")
    data: str = option("construction-faq", "a retrieval set")
    queries: int = option(80, "questions")
    passages: int = option(100, "passages")
    mistakes: bool = option(True, "measure the prices of wrong pooling, prompts and lengths")
    sets: str = option(SETS, "retrieval sets whose shared words are compared; empty for none")


PRESETS = {
    "smoke": ExplainConfig(models="random,glove", queries=10, passages=12, mistakes=False, sets="construction-faq"),
    "cpu": ExplainConfig(),
    "study": ExplainConfig(queries=500, passages=1000),
    "gpu": ExplainConfig(queries=500, passages=1000),
}


def run_explain(config: ExplainConfig, preset: str) -> None:
    """All parts, one figure each."""
    if config.queries < 2 or config.passages < config.queries:
        raise LabError("explain wants 2 questions or more, and as many passages", "--queries 50 --passages 100")
    from stage1_foundations.embeddings.mistakes import spread
    from stage1_foundations.embeddings.tasks import record_data

    with start_run("stage1", "embeddings", "explain", config, preset=preset, seed=1) as run:
        chosen = questions_of(config.data, config)
        encoders = load_encoders(config.models)
        record_data(run, sets={config.data, *words_of(config.sets)})
        show_spreads([spread(encoder, chosen) for encoder in encoders], run)
        if config.mistakes:
            show_mistakes(config, chosen, run)
        if config.sets:
            show_overlap(config, encoders, run)
        run.next("python -m stage1_foundations.embeddings leaderboard")


def questions_of(name: str, config: ExplainConfig) -> "data.RetrievalSet":
    """A sample inside the one that `evaluate --preset cpu` uses, so that its vectors are found in the cache."""
    from stage1_foundations.embeddings.tasks import retrieval_sample

    small = config.queries <= CPU.queries and config.passages <= CPU.passages
    whole = retrieval_sample(name, *(retrieval_size(CPU, name) if small else (None, None)))
    return whole.sample(min(config.queries, len(whole.queries)), min(config.passages, len(whole.corpus)), seed=1)


def load_encoders(names: str) -> "list[Encoder]":
    """The encoders by name; without a mini-GPT its place stays empty."""
    from stage1_foundations.embeddings.encoders import load_encoder

    found = []
    for name in words_of(names):
        try:
            found.append(load_encoder(name))
        except LabError as error:
            if name != "gpt":
                raise
            error_console.print(f"gpt: {error.message}; left out", style="yellow")
    if not found:
        raise LabError("no encoder to explain", f"--models {ExplainConfig.models}")
    return found


def table_of(title: str, headings: list[str]) -> Table:
    """A table without lines, numbers to the right."""
    table = Table(box=None, header_style="dim", title=title, title_justify="left", title_style="bold", pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def show_spreads(spreads: "list[Spread]", run: Run) -> None:
    """The table and the figure of anisotropy."""
    headings = ["encoder", "mean cosine of two\nrandom passages", "effective\ndimensions", "nDCG@10",
                "the same with the\nmean taken out"]  # fmt: skip
    table = table_of("Anisotropy", headings)
    figure, axes = plots.new_figure(1, len(spreads), width=2.3 * len(spreads), height=3.0, sharex=True, squeeze=False)
    bins = np.linspace(-0.4, 1, 57)
    for axis, row in zip(axes[0], spreads, strict=True):
        numbers = (f"{row.mean_cosine:.2f}", f"{row.dimensions:.0f}", f"{row.raw:.1f}", f"{row.centred:.1f}")
        table.add_row(row.name, *numbers)
        axis.hist(row.random, bins=bins, density=True, color="#bbbbbb", label="two random passages")
        axis.hist(row.gold, bins=bins, density=True, color=plots.COLOURS[0], alpha=0.7, label="question and its answer")
        axis.set(title=row.name, yticks=[], xlabel="cosine")
        run.metric(f"mean_cosine_{row.name}", row.mean_cosine, meaning="mean cosine of two random passages")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    console.print(table, "")
    plots.save_figure(figure, run.dir / "anisotropy.png")
    run.figure("anisotropy.png", "cosines of random passages, and of questions with their answers")
    tightest = max(spreads, key=lambda row: row.mean_cosine)
    run.learnt(
        f"Two unrelated passages have a cosine of {tightest.mean_cosine:.2f} under {tightest.name}: "
        "a cosine is only large or small beside others of the same model."
    )


def show_mistakes(config: ExplainConfig, chosen: "data.RetrievalSet", run: Run) -> None:
    """The prices of the usual mistakes."""
    from stage1_foundations.embeddings.mistakes import length_scores, pooling_scores, prompt_scores

    pooling = f"pooling ({config.model})"
    groups = {pooling: pooling_scores(config.model, chosen), "prompts (e5)": prompt_scores(chosen),
              "lengths (glove)": length_scores(chosen)}  # fmt: skip
    table = table_of("The price of a mistake", ["part, variant", "nDCG@10", "to the first", "95 % interval"])
    figure, axes = plots.new_figure(1, len(groups), width=10.5, height=2.9)
    changes = {}
    for axis, (title, scores) in zip(axes, groups.items(), strict=True):
        first = next(iter(scores.values()))
        for number, (variant, values) in enumerate(scores.items()):
            score, change = 100 * values.mean(), paired_bootstrap(100 * first, 100 * values)
            changes[title, variant] = change
            told = (f"{change.difference:+.1f}", f"{change.low:+.1f} to {change.high:+.1f}") if number else ("", "")
            table.add_row(f"{title}: {variant}", f"{score:.1f}", *told)
            axis.barh(number, score, color=plots.COLOURS[0 if number == 0 else 1], height=0.6)
            axis.text(score, number, f" {score:.1f}", va="center", fontsize=8)
        axis.set_yticks(range(len(scores)), list(scores))
        axis.invert_yaxis()
        axis.set(title=title, xlabel="nDCG@10 × 100", xlim=(0, 115 * max(values.mean() for values in scores.values())))
    console.print(table, "")
    plots.save_figure(figure, run.dir / "mistakes.png")
    run.figure("mistakes.png", "nDCG@10 under another pooling, other prompts, other lengths")
    cls, none = changes[pooling, "cls"], changes["prompts (e5)", "none"]
    run.metric("prompt_none_change", none.difference, meaning="change of e5's nDCG@10 × 100 without its prompts")
    run.metric("pooling_cls_change", cls.difference,
               meaning=f"change of {config.model}'s nDCG@10 × 100 with the first token for the mean")  # fmt: skip
    run.learnt(
        f"The wrong pooling changes {config.model} by {cls.difference:+.1f} points of nDCG@10 ({cls.low:+.1f} to "
        f"{cls.high:+.1f}), missing prompts change e5 by {none.difference:+.1f} ({none.low:+.1f} to {none.high:+.1f})."
    )


def show_overlap(config: ExplainConfig, encoders: "list[Encoder]", run: Run) -> None:
    """Where a search by words wins, and where it cannot."""
    from stage1_foundations.embeddings.leaderboard_views import colour_of
    from stage1_foundations.embeddings.word_overlap import EDGES, by_overlap, measure_overlap

    judged = [encoder for encoder in encoders if encoder.name != "random"]
    rows = [measure_overlap(questions_of(name, config), judged) for name in words_of(config.sets)]
    models = list(rows[0].ndcg)
    table = table_of("Shared words, and nDCG@10", ["set", "share of the question's\nwords in its passage", *models])
    for row in rows:
        table.add_row(row.name, f"{100 * row.overlap.mean():.0f} %",
                      *(f"{100 * row.ndcg[model].mean():.1f}" for model in models))  # fmt: skip
    console.print(table, "")
    figure, axis = plots.new_figure(width=7.0, height=3.8)
    middles = [50 * (low + high) for low, high in zip(EDGES, EDGES[1:], strict=False)]
    for model in models:
        means = [mean for mean, _ in by_overlap(rows, model)]
        axis.plot(middles, means, "o-", label=model, color=colour_of(model))
    for middle, (_, count) in zip(middles, by_overlap(rows, models[0]), strict=True):
        axis.text(middle, 103, f"{count} questions", ha="center", fontsize=7, color="#666666")
    axis.set(xlabel="share of the question's words that stand in its passage, %", ylabel="mean nDCG@10 × 100",
             ylim=(0, 110), xlim=(0, 100))  # fmt: skip
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 0.95))
    plots.save_figure(figure, run.dir / "overlap.png")
    run.figure("overlap.png", "nDCG@10 by the share of words that question and passage have in common")
    run.metric("overlap", float(np.mean([row.overlap.mean() for row in rows])),
               meaning="mean share of a question's words that stand in its passage")  # fmt: skip
