"""Where month 1's thresholds lie: the reference, real text and every negative control, side by side.

    python -m milestones.calibrate                      with the newest trained model of this checkout
    python -m milestones.calibrate --submission DIR     ... of another folder
    python -m milestones.calibrate --corpus sanguo --seeds 3 --markdown

A figure outside its threshold is marked with `!`. Every control must have one, the reference and real text
none. Copies are looked for in everything; real text, which would be found there, in the training text alone.
"""

import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

import data
from labkit.cli import Parser
from labkit.errors import LabError, guarded
from labkit.progress import console, error_console
from milestones.control_texts import (
    MarkovWriter,
    Writer,
    copying_writer,
    repeating_writer,
    shuffled_text,
    write_texts,
)
from milestones.criteria import Month, load_criteria
from milestones.grade import Context, number
from milestones.held_out_bits import held_out_bits
from milestones.learner_model import LearnerFault
from milestones.month1 import bits_result, draw, draw_passages, open_model, recorded_checkpoint
from milestones.ngram_model import NgramModel
from milestones.reference_corpus import ReferenceCorpus, load_reference
from milestones.submission import NotStarted, check_submission, runs_of
from milestones.text_judge import TEXT_CHECKS, TextJudge

COLUMNS = ("bits_per_character", *TEXT_CHECKS)
Row = tuple[str, dict[str, float | None]]


def control_writers(corpus: ReferenceCorpus) -> dict[str, Writer]:
    """Every negative control that writes text, by its name in the table."""
    text, run = corpus.train, corpus.settings["copied_run"]
    names = {
        0: "single characters by frequency",
        2: "3-gram sampler",
        3: "4-gram sampler",
        4: "5-gram sampler",
    }
    writers: dict[str, Writer] = {name: MarkovWriter(text, order) for order, name in names.items()}
    writers["copies passages"] = copying_writer(text)
    writers[f"stitches copies of {2 * run} characters"] = copying_writer(text, 2 * run)
    writers[f"stitches copies of {run} characters"] = copying_writer(text, run)
    start = text.index("\n", len(text) // 2) + 1
    writers["one good sentence repeated"] = repeating_writer(text[start : start + 4 * run])
    return writers


def control_rows(judge: TextJudge, rng: random.Random, count: int, characters: int) -> Iterator[Row]:
    """Figures of real text and of every control's texts."""
    corpus = judge.corpus
    real = [text for _, text in corpus.unseen_passages(rng, count, characters)]
    texts = {"real unseen text": real}
    texts["real text, shuffled"] = [shuffled_text(text, corpus.units, rng) for text in real]
    for name, writer in control_writers(corpus).items():
        texts[name] = write_texts(writer, rng, count, characters)
    for name, written in texts.items():
        figures = judge.measure(written, corpus.trained_on if written is real else None)
        yield name, {id: figures.value(id) for id in TEXT_CHECKS}


def ngram_rows(context: Context, corpus: ReferenceCorpus) -> Iterator[Row]:
    """Bits per character of n-gram models, with smoothing, on unseen passages."""
    passages = draw_passages(context, corpus, tokens=25)
    for n in (1, 3, 4, 5):
        bits = NgramModel(corpus.train, n).bits_per_character(passages)
        yield f"{n}-gram model", {"bits_per_character": bits_result(context, corpus, bits, passages).value}


def reference_row(context: Context, judge: TextJudge) -> Row | None:
    """Figures of the newest trained model in the submission, if it was trained on this corpus."""
    try:
        folder, report = context.newest_run()
    except NotStarted:
        return None
    settings = context.month.settings
    checkpoint = recorded_checkpoint(folder, report)
    with open_model(context.submission, checkpoint, settings) as model:
        if model.data.get("name") != judge.corpus.name:
            return None
        passages = draw_passages(context, judge.corpus, model.context)
        prefixes, tolerance = settings["causal_prefixes"], settings["probability_tolerance"]
        bits, _ = held_out_bits(model, passages, context.random("prefixes"), prefixes, tolerance)
        samples = draw(context, model)
    figures = judge.measure(samples.texts)
    name = f"the model in {folder.name}"
    bits = bits_result(context, judge.corpus, bits, passages).value
    return name, {"bits_per_character": bits} | {id: figures.value(id) for id in TEXT_CHECKS}


def measure(month: Month, corpus: ReferenceCorpus, folder: Path | None, seed: int) -> Iterator[Row]:
    """All rows for one seed."""
    from milestones.independent_model import IndependentModel

    settings = month.settings
    size = settings["samples"], settings["characters"]
    context = Context(month, folder or Path.cwd(), runs_of(folder), seed)
    judge = TextJudge(corpus, context.random("real"), *size, IndependentModel())
    try:
        reference = reference_row(context, judge)
    except (LabError, LearnerFault) as error:
        error_console.print(f"no reference: {error}", markup=False)
        reference = None
    if reference:
        yield reference
    yield from ngram_rows(context, corpus)
    yield from control_rows(judge, context.random("controls"), *size)


def cells(month: Month, variant: str, row: list[dict[str, float | None]]) -> list[str]:
    """A row's figures over all seeds: one, or the lowest and the highest; `!` outside the threshold."""
    texts = []
    for id in COLUMNS:
        values = [figures[id] for figures in row if figures.get(id) is not None]
        if not values:
            texts.append("")
            continue
        low, high = number(min(values)), number(max(values))
        threshold = month.check(id).threshold(variant)
        mark = "" if all(map(threshold.holds, values)) else " !"
        texts.append((low if low == high else f"{low} to {high}") + mark)
    return texts


def print_rows(header: list[str], rows: list[list[str]], as_markdown: bool) -> None:
    """The table, for a terminal or for a README."""
    if as_markdown:
        for line in (header, ["---"] * len(header), *rows):
            console.print("| " + " | ".join(line) + " |", markup=False, soft_wrap=True)
        return
    table = Table(*map(escape, header), box=None, header_style="dim", pad_edge=False)
    for row in rows:
        style = {True: "red", False: ""}
        table.add_row(*(f"[{style['!' in c]}]{escape(c)}[/]" if "!" in c else escape(c) for c in row))
    console.print(table)


def main(argv: list[str]) -> None:
    """Measure everything and print the table."""
    description = "Month 1's thresholds against real text, controls and a model."
    parser = Parser(prog="python -m milestones.calibrate", description=description, allow_abbrev=False)
    parser.add_argument("--corpus", default="tiny-shakespeare", help="catalog name of a text")
    parser.add_argument("--submission", metavar="DIR", help="where the trained model is (this checkout)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 1 on")
    parser.add_argument("--markdown", action="store_true", help="as the README shows it")
    options = parser.parse_words(argv)
    month = load_criteria().month(1)
    text = data.load_text(options.corpus)
    trained_on = {"name": options.corpus, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    corpus = load_reference(trained_on, month.settings)
    folder = check_submission(options.submission)
    rows: dict[str, list[dict[str, float | None]]] = {}
    for seed in range(1, options.seeds + 1):
        for name, figures in measure(month, corpus, folder, seed):
            rows.setdefault(name, []).append(figures)
            error_console.print(f"seed {seed}: {name}", style="dim", markup=False)
    thresholds = [month.check(id).threshold(corpus.variant).text for id in COLUMNS]
    body = [[name, *cells(month, corpus.variant, row)] for name, row in rows.items()]
    print_rows([corpus.name, *COLUMNS], [["threshold", *thresholds], *body], options.markdown)


if __name__ == "__main__":
    sys.exit(guarded(main)())
