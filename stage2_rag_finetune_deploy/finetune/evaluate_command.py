"""`evaluate`: the base without examples, the base with them, and the tuned model, on the same test utterances.

Each figure comes with a bootstrap interval; the tuned model is compared with the best base, utterance by utterance, by
McNemar's exact test: of the utterances that only one of the two gets right, is it a coin that decides which one?
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

import data
from data.customer_service.prompt import prompt_messages
from data.understanding import Utterance
from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import start_run
from stage1_foundations.embeddings.bootstrap import percent_with_interval
from stage2_rag_finetune_deploy.finetune.base_model import load_placed
from stage2_rag_finetune_deploy.finetune.export import newest_merged
from stage2_rag_finetune_deploy.finetune.generation import generate
from stage2_rag_finetune_deploy.finetune.samples import evenly
from stage2_rag_finetune_deploy.finetune.understanding import Scores, few_shot_messages, score


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `evaluate`."""

    data: str = option("", "understanding set; by default the one that the tuned model was trained on")
    model: Path | None = option(None, "folder of the tuned model; none is the newest run's")
    base: Path | None = option(None, "folder of the base model; none is SmolLM2-135M-Instruct")
    shots: str = option("5,14", "numbers of examples for the base, with commas")
    samples: int | None = option(None, "test utterances; none takes all")
    new_tokens: int = option(80, "longest reply")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(1, "of the draws of the bootstrap")


PRESETS = {
    "smoke": EvaluateConfig(shots="1", samples=2, new_tokens=4),
    "cpu": EvaluateConfig(shots="5", samples=40, new_tokens=64),
    "study": EvaluateConfig(),
}


def run_evaluate(config: EvaluateConfig, preset: str) -> None:
    """The table of all models, with a report."""
    tuned = config.model or newest_merged()
    name = config.data or trained_on(tuned)
    test = data.load_understanding(name, "test")
    if config.samples is not None:
        test = evenly(test, config.samples)
    shots = parse_shots(config.shots)
    train = data.load_understanding(name, "train")
    with start_run("stage2", "finetune", "evaluate", config, preset, config.seed) as run:
        results = {}
        prompts = {"base": [prompt_messages(each.text, each.language) for each in test]}
        for count in shots:
            examples = pick_examples(train, count)
            prompts[f"base, {count} examples"] = [
                few_shot_messages(each.text, each.language, examples) for each in test
            ]
        asked = ((config.base, prompts), (tuned, {"tuned": prompts["base"]}))
        for folder, wanted in asked:
            model, tokenizer = load_placed(folder, config.device)
            for label, messages in wanted.items():
                replies = generate(model, tokenizer, messages, config.new_tokens, batch=32, description=label)
                results[label] = score(test, replies)
        show(results, config.seed)
        for label, scores in results.items():
            for figure, value in scores.as_dict().items():
                run.metric(f"{figure} {label}", value, meaning=f"{len(test)} test utterances of {name}")
        best = max((label for label in results if label != "tuned"), key=lambda label: results[label].mean("intent"))
        for figure in ("exact", "intent"):
            p = mcnemar(getattr(results[best], figure), getattr(results["tuned"], figure))
            gain = results["tuned"].mean(figure) - results[best].mean(figure)
            console.print(f"{figure}: tuned {gain:+.1%} against {best}, McNemar p = {p:.2g}", markup=False)
            run.metric(f"{figure} gain", gain, meaning=f"over {best}")
            run.metric(f"{figure} p", p, band=(None, 0.001) if preset != "smoke" else None, meaning="McNemar, exact")
        run.next("make milestones")


def trained_on(tuned: Path) -> str:
    """The data set in the report beside a merged model.

    Raises:
        LabError: there is no report.
    """
    try:
        return json.loads((tuned.parent / "report.json").read_text(encoding="utf-8"))["config"]["data"]
    except (OSError, ValueError, KeyError):
        raise LabError(f"no report beside {tuned} says what it was trained on", "--data customer-service-en") from None


def parse_shots(text: str) -> list[int]:
    """"5,14" -> [5, 14]."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise LabError(f"--shots {text!r} is no list of numbers", "--shots 5,14")
    return [int(word) for word in words]


def pick_examples(train: Sequence[Utterance], count: int) -> list[Utterance]:
    """Examples from the training part, one intent after the other, the short ones first."""
    by_intent: dict[str, list[Utterance]] = {}
    for utterance in sorted(train, key=lambda each: (-len(each.slots), len(each.text))):
        by_intent.setdefault(utterance.intent, []).append(utterance)
    rounds = max(len(group) for group in by_intent.values())
    return [group[number] for number in range(rounds) for group in by_intent.values() if number < len(group)][:count]


# exercise: finetune.mcnemar
def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided p-value of McNemar's exact test for two models on the same items.

    Only items that one of them has right and the other has not say anything; if the models were equally good, each
    would win half of them. 1 where there is none.
    """
    from scipy.stats import binomtest  # a second to import

    wins = sum(b and not a for a, b in zip(first, second, strict=True))
    losses = sum(a and not b for a, b in zip(first, second, strict=True))
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
# end exercise


def show(results: dict[str, Scores], seed: int) -> None:
    """All figures with their 95 % intervals."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model")
    for heading in ("exact", "intent", "slot F1", "JSON"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, scores in results.items():
        cells = [percent_with_interval(getattr(scores, figure), seed) for figure in ("exact", "intent")]
        table.add_row(label, *cells, f"{scores.slot_f1:.3f}", f"{100 * scores.mean('valid'):.1f} %")
    console.print(table)
