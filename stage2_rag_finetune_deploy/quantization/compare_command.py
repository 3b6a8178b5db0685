"""`compare`: every way to keep the model, measured; then the three orderings that courses teach, judged."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

import data
from labkit.cli import option, require_at_least
from labkit.files import write_json
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from labkit.timing import human_seconds
from stage1_foundations.embeddings.bootstrap import percent_with_interval
from stage2_rag_finetune_deploy.finetune.samples import evenly
from stage2_rag_finetune_deploy.quantization import methods
from stage2_rag_finetune_deploy.quantization.calibration import WIKITEXT, calibration_ids
from stage2_rag_finetune_deploy.quantization.libraries.interface import quantiser
from stage2_rag_finetune_deploy.quantization.methods import Settings
from stage2_rag_finetune_deploy.quantization.orderings import (
    Step,
    overall,
    perplexity_step,
    score_step,
    size_step,
    speed_step,
)
from stage2_rag_finetune_deploy.quantization.perplexity import perplexity, ratio_interval
from stage2_rag_finetune_deploy.quantization.plots import draw_trade_off
from stage2_rag_finetune_deploy.quantization.quantize_command import test_blocks
from stage2_rag_finetune_deploy.quantization.rows import FULL, Exam, Measured, make_rows, measure, time_rows
from stage2_rag_finetune_deploy.quantization.source_model import baseline_label, load_source, source_folder, task_of

Results = dict[str, Measured]
CHAIN = (FULL, "GPTQ 4", "AWQ 4", "NF4")  # the course's order of accuracy and of memory; of speed it is the reverse


@dataclass(frozen=True)
class CompareConfig:
    """Options of `compare`."""

    model: Path | None = option(None, "folder; none is the newest fine-tuned model, or SmolLM2-135M-Instruct")
    group: int = option(64, "inputs that share a scale")
    bits: str = option("4,3", "of RTN, GPTQ and AWQ, with commas")
    gptqmodel: bool = option(False, "GPTQModel's rows beside our GPTQ's; needs make setup-serve")
    calibration: str = option(WIKITEXT, "text of the catalog, or a UTF-8 file")
    samples: int = option(32, "pieces of the calibration text")
    length: int = option(256, "tokens of a piece")
    ratios: int = option(20, "AWQ: how many ratios are tried")
    test_tokens: int = option(12_288, "tokens of WikiText-2's test part")
    questions: int = option(100, "test utterances of the customer-service task; 0 leaves it out")
    new_tokens: int = option(60, "longest reply to one")
    rounds: int = option(6, "timed rounds, in which all rows take turns")
    prompt: int = option(256, "tokens of the prompt whose prefill is timed")
    decode: int = option(24, "tokens whose decoding is timed")
    processes: bool = option(True, "resident memory in processes of their own; without, the weights' bytes are counted")
    seed: int = option(1, "of the calibration text and the bootstrap")


PRESETS = {
    "smoke": CompareConfig(samples=4, length=32, ratios=2, test_tokens=512, questions=2, new_tokens=4, rounds=2,
                           prompt=32, decode=2, processes=False),
    "cpu": CompareConfig(bits="4", samples=8, ratios=4, test_tokens=1536, questions=12, new_tokens=40, rounds=3,
                         prompt=64, decode=2, processes=False),
    "study": CompareConfig(gptqmodel=True, samples=16),
}  # fmt: skip


def run_compare(config: CompareConfig, preset: str) -> None:
    """The table, the verdicts, the figure, with a report."""
    require_at_least(config, 1, "samples", "length", "ratios", "test_tokens", "rounds", "decode", "new_tokens")
    require_at_least(config, 17, "prompt")
    require_at_least(config, 0, "questions")
    rows, source = make_rows(config.group, config.bits, config.gptqmodel), source_folder(config.model)
    model, tokenizer = load_source(source)
    for row in rows[1:]:
        methods.check(model, row.method, Settings(row.scheme))
        quantiser(row.library, row.method)
    del model
    exam = make_exam(config, source, tokenizer)
    with start_run("stage2", "quantization", "compare", config, preset, config.seed) as run:
        label = baseline_label(source)
        console.print(f"{label}: {source}", markup=False, soft_wrap=True)
        if config.questions and not exam.utterances:
            console.print("this model was not fine-tuned: the customer-service task is left out\n"
                          "  try: python -m stage2_rag_finetune_deploy.finetune sft", markup=False)  # fmt: skip
        results: Results = {}
        with progress(total=len(rows), description="rows") as bar:
            for row in rows:
                bar.note(row.name)
                results[row.name] = measure(row, source, run.dir / row.name.lower().replace(" ", "-"), exam)
                bar.advance()
        time_rows(list(results.values()), exam.test.flatten()[None, : config.prompt], config.rounds, config.decode,
                  config.processes)  # fmt: skip
        write_json(run.dir / "table.json", [measured.as_dict() for measured in results.values()])
        show_table(results, label, config.seed)
        record(run, results, preset)
        show_orderings(run, results, config.seed)
        run.figure(draw_trade_off(results, label, run.dir / "trade_off.png"), "size, perplexity and speed of every row")
        if "3" not in config.bits:
            console.print("where three bits break: --bits 4,3, a few minutes more", style="dim")
        run.next("python -m stage2_rag_finetune_deploy.serving serve")


def make_exam(config: CompareConfig, source: Path, tokenizer: object) -> Exam:
    """The texts that every row gets."""
    name = task_of(source)
    utterances = []
    if name is not None and config.questions:
        utterances = evenly(data.load_understanding(name, "test"), config.questions)
    calibration = calibration_ids(tokenizer, config.calibration, config.samples, config.length, config.seed)
    return Exam(calibration, test_blocks(tokenizer, config.test_tokens), utterances, config.new_tokens, config.ratios)


def show_table(results: Results, label: str, seed: int) -> None:
    """Two tables: quality, and what it costs."""
    full = results[FULL]
    quality = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=f"quality; {label}", title_justify="left")
    for heading in ("", "perplexity", f"to {FULL} (95 %)", "exact match (95 %)", "took"):
        quality.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    cost = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title="cost", title_justify="left")
    for heading in ("", "MB on disk", "resident", "prefill tok/s", "decode tok/s", "kernel"):
        cost.add_column(heading, justify="right" if heading not in ("", "kernel") else "left")
    for name, each in results.items():
        ratio, low, high = ratio_interval(each.losses, full.losses, seed)
        exact = percent_with_interval(each.exact, seed) if each.exact else "-"
        seconds = human_seconds(each.seconds) if each.row.method else "-"
        relative = f"{ratio:.2f} ({low:.2f} to {high:.2f})" if name != FULL else "1"
        quality.add_row(name, f"{perplexity(each.losses):.2f}", relative, exact, seconds)
        cost.add_row(name, f"{each.disk / 1e6:.0f}", f"{each.resident / 1e6:.0f}", f"{np.median(each.prefill):.0f}",
                     f"{np.median(each.decode):.1f}", each.kernel)  # fmt: skip
    console.print(quality)
    console.print()
    console.print(cost)


def record(run: Run, results: Results, preset: str) -> None:
    """The figures in the report; the bars at the presets whose text is long enough."""
    for name, each in results.items():
        run.metric(f"perplexity {name}", perplexity(each.losses), meaning=f"{each.losses.size} blocks of WikiText-2")
        run.metric(f"decode {name}", float(np.median(each.decode)), "tokens/s", meaning=each.kernel)
        run.metric(f"megabytes {name}", each.disk / 1e6, "MB", meaning="on disk")
        if each.exact:
            run.metric(f"exact {name}", float(np.mean(each.exact)), meaning=f"{len(each.exact)} test utterances")
    barred = preset != "smoke"
    for number in (4, 3):
        ours, rounded, theirs = (results.get(f"{word} {number}") for word in ("GPTQ", "RTN", "GPTQModel"))
        if ours is None:
            continue
        ratio = ratio_interval(ours.losses, rounded.losses)
        run.metric(f"gptq_to_rtn {number}", ratio[0], band=(None, 0.9 if number == 3 else 1.0) if barred else None,
                   meaning=f"perplexities; 95 % interval {ratio[1]:.3f} to {ratio[2]:.3f}")  # fmt: skip
        if theirs is not None:
            ratio = ratio_interval(ours.losses, theirs.losses)
            run.metric(f"gptq_to_gptqmodel {number}", ratio[0], band=(None, 1.02) if barred else None,
                       meaning=f"perplexities, same text; 95 % interval {ratio[1]:.3f} to {ratio[2]:.3f}")  # fmt: skip


def orderings(results: Results, seed: int) -> dict[str, list[Step]]:
    """The steps of each ordering, from its first row to its last."""
    rows = [results[name] for name in CHAIN]
    pairs = [(a, b, (a.row.name, b.row.name)) for a, b in zip(rows, rows[1:], strict=False)]
    faster = [(b, a, (b.row.name, a.row.name)) for a, b, _ in reversed(pairs)]
    found = {
        "accuracy (perplexity)": [perplexity_step(names, a.losses, b.losses, seed) for a, b, names in pairs],
        "accuracy (exact match)": [score_step(names, a.exact, b.exact, seed) for a, b, names in pairs if a.exact],
        "speed (decode)": [speed_step(names, a.decode, b.decode) for a, b, names in faster],
        "memory (resident)": [
            size_step(names, a.resident, b.resident, about_equal=names == CHAIN[1:3]) for a, b, names in pairs
        ],
    }
    return {name: steps for name, steps in found.items() if steps}


def show_orderings(run: Run, results: Results, seed: int) -> None:
    """What courses say, step by step, and whether it was so here."""
    table = Table(box=None, pad_edge=False, title="the orderings that courses teach", title_justify="left")
    for heading in ("ordering", "step", "first to second", "95 % interval", "here"):
        table.add_column(heading, justify="right" if heading in ("first to second", "95 % interval") else "left")
    for name, steps in orderings(results, seed).items():
        unit = " points" if "exact" in name else ""
        for number, step in enumerate(steps):
            table.add_row("" if number else name, step.says, f"{step.figure:.3g}{unit}",
                          f"{step.low:.3g} to {step.high:.3g}", step.verdict)  # fmt: skip
        verdict = overall(steps)
        table.add_row("", "as a whole", "", "", verdict.upper())
        run.learnt(f"{name}: {' '.join(chain_text(steps))}: {verdict} here")
    console.print()
    console.print(table)


def chain_text(steps: list[Step]) -> list[str]:
    """["BF16", ">", "GPTQ 4", ...] of the steps."""
    words: list[str] = []
    for step in steps:
        sign = "~" if step.about_equal else ">"
        first, second = step.says.split(f" {sign} ")
        words += [first] if not words else []
        words += [sign, second]
    return words
