"""Month 1: the learner's mini-GPT runs and generates coherent text.

genuine             the checkpoint is the one that the run recorded
runs                it loads with the learner's code, answers in time, and sees only the past
bits_per_character  on passages that it never saw, drawn with a fresh seed
the others          of samples that the grader draws from the model's logits: text_judge.py
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import LabError
from labkit.files import sha256_file
from milestones.drawn_samples import Samples, draw_samples
from milestones.grade import FAILED, CheckResult, Context, not_measured
from milestones.held_out_bits import held_out_bits
from milestones.learner_model import LearnerFault, LearnerModel
from milestones.reference_corpus import ReferenceCorpus, load_reference
from milestones.submission import shown
from milestones.text_judge import TEXT_CHECKS, TextFigures, TextJudge

DEFAULT_DATA = "tiny-shakespeare"  # of the lab's train command
LONGEST_BEFORE = 4000  # characters


def grade(context: Context) -> list[CheckResult]:
    """See the module's docstring. Raises NotStarted when there is no run."""
    try:
        folder, report = context.newest_run()
        checkpoint = recorded_checkpoint(folder, report)
    except LabError as error:
        return stopped(context, "genuine", error.message, advice=error.try_next or context.month.start)
    context.details |= {"run": shown(folder, context.submission), "seed": context.seed}
    results = [context.result("genuine", 1.0)]
    try:
        results += model_results(context, checkpoint, str(report["config"].get("data", "")))
    except LearnerFault as fault:
        reason = str(fault).replace(f"{context.submission}{os.sep}", "")  # no name of a machine's folders
        return results + stopped(context, "runs", reason, advice=context.month.start)
    return results


def stopped(context: Context, id: str, reason: str, advice: str = "") -> list[CheckResult]:
    """A condition for all that follows does not hold: it fails, and the checks after it are not measured."""
    ids = [check.id for check in context.month.checks]
    after = ids[ids.index(id) + 1 :]
    later = [not_measured(context.month.check(other), "see above") for other in after]
    return [context.result(id, 0.0, reason, advice=advice), *later]


def recorded_checkpoint(folder: Path, report: Mapping[str, Any]) -> Path:
    """The checkpoint of a run.

    Raises:
        LabError: none is recorded, it is not there, or it is not the one that was recorded.
    """
    entries = [entry for entry in report["artefacts"] if entry["kind"] == "checkpoint"]
    if not entries:
        raise LabError("the run's report records no checkpoint", "")
    path = folder / entries[0]["path"]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise LabError("the report's checkpoint lies outside the run's folder", "")
    if not path.is_file():
        raise LabError(f"the report records {entries[0]['path']}, which is not there", "")
    if sha256_file(path) != entries[0]["sha256"]:
        raise LabError(f"{entries[0]['path']} is not the file that the run recorded (SHA-256 differs)", "")
    return path


def model_results(context: Context, checkpoint: Path, source: str) -> list[CheckResult]:
    """Everything that needs the model. Raises LearnerFault when it cannot be used."""
    settings = context.month.settings
    context.say("loading the model")
    with open_model(context.submission, checkpoint, settings) as model:
        corpus = load_reference(model.data, settings, source, context.submission)
        context.say("bits per character")
        passages = draw_passages(context, corpus, model.context)
        prefixes, tolerance = settings["causal_prefixes"], settings["probability_tolerance"]
        bits, unknown = held_out_bits(model, passages, context.random("prefixes"), prefixes, tolerance)
        context.say("drawing samples")
        samples = draw(context, model)
        parameters = model.parameters
    context.details |= {
        "corpus": corpus.name,
        "parameters": parameters,
        "bits_per_character": round(bits, 4),
        "unknown_characters": unknown,
        "window": samples.window,
        "kv_cache": samples.cached,
        "samples": samples.texts,
    }
    context.say("reading the samples")
    results = [
        context.result("runs", 1.0, f"{parameters:,} parameters, trained on {corpus.name}"),
        bits_result(context, corpus, bits, passages),
        *text_results(context, corpus, samples.texts),
    ]
    again = context.month.improve + (f" --data {shlex.quote(source)}" if source != DEFAULT_DATA else "")
    return [replace(result, advice=again) if result.status == FAILED else result for result in results]


def open_model(folder: Path, checkpoint: Path, settings: Mapping[str, Any]) -> LearnerModel:
    """The learner's model with the limits of criteria.toml."""
    limits = {name: settings[name] for name in ("threads", "answer_limit", "time_limit")}
    return LearnerModel(folder, checkpoint, **limits)


def draw_passages(context: Context, corpus: ReferenceCorpus, tokens: int) -> list[tuple[str, str]]:
    """Unseen passages, each with enough text before it to fill a context of `tokens`."""
    settings = context.month.settings
    before = min(4 * tokens, LONGEST_BEFORE)  # 4: characters of a long token
    count, size = settings["held_out_passages"], settings["passage_characters"]
    return corpus.unseen_passages(context.random("passages"), count, size, before)


def draw(context: Context, model: LearnerModel) -> Samples:
    """The samples."""
    settings = context.month.settings
    rng = np.random.default_rng(context.random("samples").getrandbits(64))
    size = settings["samples"], settings["characters"], settings["temperature"]
    return draw_samples(model, *size, rng, settings["probability_tolerance"])


def bits_result(
    context: Context, corpus: ReferenceCorpus, bits: float, passages: list[tuple[str, str]]
) -> CheckResult:
    """Bits per character, or where the threshold says so as a share of what an n-gram model needs."""
    check = context.month.check("bits_per_character")
    if check.threshold(corpus.variant).unit is None:
        return context.result(check.id, bits, variant=corpus.variant)
    baseline = corpus.baseline.bits_per_character(passages)
    message = f"{bits:.3f} bits/char; {corpus.baseline.n}-gram model {baseline:.3f}"
    return context.result(check.id, bits / baseline, message, variant=corpus.variant)


def text_results(context: Context, corpus: ReferenceCorpus, texts: list[str]) -> list[CheckResult]:
    """The checks of the samples."""
    from milestones.independent_model import IndependentModel  # transformers takes seconds to import

    settings = context.month.settings
    size = settings["samples"], settings["characters"]
    judge = TextJudge(corpus, context.random("real"), *size, IndependentModel())
    figures = judge.measure(texts)
    context.details["independent_bits"] = dict(
        zip(("samples", "real", "shuffled"), (round(b, 3) for b in figures.bits), strict=True)
    )
    return [text_result(context, corpus, id, figures) for id in TEXT_CHECKS]


def text_result(context: Context, corpus: ReferenceCorpus, id: str, figures: TextFigures) -> CheckResult:
    """One check of the samples, with a word on what was found."""
    message = ""
    if id == "likelihood":
        message = "SmolLM2 {:.2f} bits/char, real text {:.2f}, shuffled {:.2f}".format(*figures.bits)
    elif id == "longest_copy":
        message = repr(figures.copy.text[:60])
    return context.result(id, figures.value(id), message, variant=corpus.variant)
