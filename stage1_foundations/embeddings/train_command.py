"""`train`: fine-tune an encoder on pairs, and ask whether it got better: before and after, paired, held out."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from labkit import plots
from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console, error_console
from labkit.runs import Run, shown, start_run
from stage1_foundations.embeddings.bootstrap import (
    Comparison,
    mean_interval,
    over_repetitions,
    paired_bootstrap,
)

if TYPE_CHECKING:
    import data
    from stage1_foundations.embeddings.fine_tuning import Split
    from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder


@dataclass(frozen=True)
class TrainConfig:
    """What to train, on what, and how long."""

    model: str = option("e5", "minilm, e5, the folder of a model, or a hub id")
    data: str = option("idioms", "a retrieval set without a canary: idioms, construction-faq, construction-faq-sv")
    pairs: int = option(720, "training pairs")
    test: int = option(300, "held-out queries")
    passages: int = option(800, "size of the held-out corpus; 0 is the whole")
    batch: int = option(48, "pairs in a batch: each has batch - 1 negatives")
    epochs: int = option(1, "passes over the pairs")
    lr: float = option(1e-4, "highest learning rate; 0 trains nothing, as a control")
    temperature: float = option(0.02, "of the softmax over the batch")
    layers: int = option(4, "layers trained, from the top; 0 trains all")
    max_tokens: int = option(48, "tokens of a text that training reads")
    leak: bool = option(False, "also train a second model on the held-out pairs, to see what contamination does")
    save: bool = option(True, "write the first model (half the size of its float32 weights)")
    seeds: int = option(1, "repetitions, each with a split, an order of the pairs and a dropout of its own")
    seed: int = option(1, "of the first repetition")


PRESETS = {
    "smoke": TrainConfig(model="minilm", data="construction-faq", pairs=16, test=20, passages=40, batch=8, layers=1,
                         max_tokens=16, save=False),
    "cpu": TrainConfig(),
    "study": TrainConfig(pairs=2400, test=800, passages=4000, leak=True, seeds=3),
    "gpu": TrainConfig(pairs=24000, test=1000, passages=5000, batch=256, layers=0, epochs=2),
}  # fmt: skip


@dataclass
class Outcome:
    """Per-query nDCG@10 before and after, the losses, and the accuracy of a task that was not trained for."""

    before: np.ndarray
    after: np.ndarray
    losses: list[float]
    other_before: float
    other_after: float
    leaked: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def gain(self) -> Comparison:
        """After against before, query by query."""
        return paired_bootstrap(self.before, self.after)


def run_train(config: TrainConfig, preset: str) -> None:
    """Split, measure, train, measure again, test the difference."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    check(config)
    import data
    from stage1_foundations.embeddings.fine_tuning import split_pairs
    from stage1_foundations.embeddings.tasks import record_data

    with start_run("stage1", "embeddings", "train", config, preset=preset, seed=config.seed) as run:
        loaded = data.load_retrieval(config.data)
        record_data(run, sets=[config.data])
        outcomes = []
        for seed in range(config.seed, config.seed + config.seeds):
            split = split_pairs(loaded, config.pairs, config.test, config.passages or None, seed)
            outcomes.append(repetition(config, loaded, split, seed, run))
        draw(config, outcomes[0], run)
        report(config, outcomes, split, run)


def check(config: TrainConfig) -> None:
    """Refuse what cannot be trained, before anything is loaded."""
    for name in ("pairs", "test", "batch", "epochs", "max_tokens", "seeds"):
        if getattr(config, name) < 1:
            raise LabError(f"--{name.replace('_', '-')} {getattr(config, name)} is no positive number", "--help")
    if config.batch < 2 or config.pairs < config.batch:
        raise LabError("in-batch negatives need a batch of 2 pairs or more, and a full batch of pairs", "--batch 32")
    if not config.lr >= 0 or not config.temperature > 0:
        raise LabError("the learning rate is not negative, and the temperature above 0", "--lr 1e-4 --temperature 0.02")


def trainable(name: str) -> "TransformerEncoder":
    """A fresh transformer by name.

    Raises:
        LabError: it has no weights that a gradient could change.
    """
    from stage1_foundations.embeddings.encoders import load_encoder
    from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder

    encoder = load_encoder(name)
    if not isinstance(encoder, TransformerEncoder):
        raise LabError(f"{name} cannot be fine-tuned here", "--model minilm or --model e5")
    return encoder


def repetition(config: TrainConfig, loaded: "data.RetrievalSet", split: "Split", seed: int, run: Run) -> Outcome:
    """One seed from start to end; the first one also leaks and saves, where that is asked for."""
    from stage1_foundations.embeddings.fine_tuning import save_model

    encoder = trainable(config.model)
    outcome = before_and_after(config, encoder, split, seed)
    if seed == config.seed and config.save:
        save_model(encoder, run.dir / "model", config.data)
        run.artefact("model", kind="model")
    if seed == config.seed and config.leak:
        outcome.leaked = leak(config, split, loaded)
    return outcome


def before_and_after(config: TrainConfig, encoder: "TransformerEncoder", split: "Split", seed: int) -> Outcome:
    """Measure with mteb, train, measure again."""
    from stage1_foundations.embeddings.evaluation import score_task
    from stage1_foundations.embeddings.fine_tuning import train_pairs
    from stage1_foundations.embeddings.tasks import HeldOut, Size, Tatoeba

    other = Size(texts=min(100, config.test))
    error_console.print(f"seed {seed}, before: the held-out queries, and a task that is not trained for", style="dim")
    before, other_before = score_task(encoder, HeldOut(split.held_out)), score_task(encoder, Tatoeba(other))
    losses = train_pairs(encoder, split.train, config, seed)
    error_console.print(f"seed {seed}, after: the same again", style="dim")
    after, other_after = score_task(encoder, HeldOut(split.held_out)), score_task(encoder, Tatoeba(other))
    return Outcome(before.items.values, after.items.values, losses, other_before.score, other_after.score)


def leak(config: TrainConfig, split: "Split", loaded: "data.RetrievalSet") -> dict[str, np.ndarray]:
    """A second model that has seen the held-out pairs: its score on them, and on queries that nobody saw."""
    from stage1_foundations.embeddings.evaluation import score_task
    from stage1_foundations.embeddings.fine_tuning import held_out_pairs, split_pairs, train_pairs
    from stage1_foundations.embeddings.tasks import HeldOut

    error_console.print("a second model, trained on the test as well", style="dim")
    leaked = held_out_pairs(split.held_out)
    rest = split.train[: max(0, len(split.train) - len(leaked))]  # as many steps as the honest model had
    encoder = trainable(config.model)
    fresh = split_pairs(loaded, 0, config.test, config.passages or None, config.seed + 1000).held_out
    seen = {query for query, _ in rest + leaked}
    keep = [fresh.queries[name] not in seen for name in sorted(fresh.queries)]
    before = score_task(encoder, HeldOut(fresh)).items.values
    train_pairs(encoder, [*leaked, *rest], config, config.seed)
    return {
        "on the leaked queries": score_task(encoder, HeldOut(split.held_out)).items.values,
        "on fresh queries, before": before[keep],
        "on fresh queries, after": score_task(encoder, HeldOut(fresh)).items.values[keep],
    }


def report(config: TrainConfig, outcomes: list[Outcome], split: "Split", run: Run) -> None:
    """The verdict, on the terminal and in the report."""
    console.print(f"{config.model} on {config.data}: {len(split.train):,} pairs, {len(outcomes[0].before):,} held-out "
                  "queries; nDCG@10 × 100", highlight=False)  # fmt: skip
    for seed, outcome in enumerate(outcomes, start=config.seed):
        show_outcome(f"seed {seed}", outcome)
    gains = [outcome.gain for outcome in outcomes]
    differences = [100 * gain.difference for gain in gains]
    if len(outcomes) > 1:
        mean = over_repetitions(differences)
        console.print(f"  mean gain of {len(outcomes)} seeds {mean.difference:+.1f}, 95 % interval {mean.low:+.1f} to "
                      f"{mean.high:+.1f}", highlight=False)  # fmt: skip
        run.metric("gain_seeds_low", mean.low, meaning="lower end of the mean gain's 95 % interval over the seeds (t)")
        run.metric("gain_seeds_high", mean.high, meaning="its upper end")
    for name, values in outcomes[0].leaked.items():
        console.print(f"  trained on the test, {name}: {100 * values.mean():.1f} ({len(values):,})", highlight=False)
        run.metric("leak_" + name.replace(",", "").replace(" ", "_"), 100 * values.mean(),
                   meaning="nDCG@10 × 100 of the model that was trained on the test")  # fmt: skip
    record(config, outcomes, run)


def show_outcome(title: str, outcome: Outcome) -> None:
    """Two lines: the held-out queries, and the task that was not trained for."""
    gain = outcome.gain
    verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "no difference that these queries can show"
    console.print(
        f"  {title}: {100 * outcome.before.mean():.1f} -> {100 * outcome.after.mean():.1f}, "
        f"{100 * gain.difference:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), p = {gain.p:.4f}: {verdict}\n"
        f"    not trained for (English to Spanish, accuracy × 100): {100 * outcome.other_before:.1f} -> "
        f"{100 * outcome.other_after:.1f}",
        highlight=False,
    )


def record(config: TrainConfig, outcomes: list[Outcome], run: Run) -> None:
    """Metrics, the sentence for the stage's table, and what to type next."""
    gains = [outcome.gain for outcome in outcomes]
    meaning = "nDCG@10 × 100 of held-out queries, mean of the seeds"
    run.metric("ndcg_before", 100 * np.mean([outcome.before.mean() for outcome in outcomes]), meaning=meaning)
    run.metric("ndcg_after", 100 * np.mean([outcome.after.mean() for outcome in outcomes]), meaning=meaning)
    judged = run.report["preset"] in ("cpu", "study", "gpu") and config.lr > 0
    run.metric("gain_low", 100 * min(gain.low for gain in gains), band=(0.0, None) if judged else None,
               meaning="lower end of the gain's 95 % interval, paired bootstrap; of the worst seed")  # fmt: skip
    run.metric("gain_p", max(gain.p for gain in gains), band=(None, 0.05) if judged else None,
               meaning="two-sided p-value of the gain; of the worst seed")  # fmt: skip
    run.metric("other_task_change", 100 * np.mean([outcome.other_after - outcome.other_before for outcome in outcomes]),
               meaning="accuracy × 100 on a task that was not trained for")  # fmt: skip
    first = gains[0]
    run.learnt(
        f"{config.pairs} pairs moved {config.model} by {100 * first.difference:+.1f} nDCG@10 points on {config.data} "
        f"(95 % interval {100 * first.low:+.1f} to {100 * first.high:+.1f})."
    )
    if config.save:
        run.next(f"python -m stage1_foundations.embeddings evaluate --model {shown(run.dir)}/model")
    else:
        run.next("python -m stage1_foundations.embeddings explain")


def draw(config: TrainConfig, outcome: Outcome, run: Run) -> None:
    """The loss against chance, the score before and after, and what happened to single queries."""
    from stage1_foundations.embeddings.contrastive import chance_loss

    figure, (left, middle, right) = plots.new_figure(1, 3, width=11.0, height=3.6)
    steps = range(1, len(outcome.losses) + 1)
    smooth = [np.mean(outcome.losses[max(0, step - 8) : step]) for step in steps]
    left.plot(steps, outcome.losses, color=plots.COLOURS[0], linewidth=1, alpha=0.5)
    left.plot(steps, smooth, color=plots.COLOURS[0])
    left.axhline(chance_loss(config.batch), color="#888888", linestyle="--", linewidth=1)
    left.text(len(steps), chance_loss(config.batch), f"chance: log {config.batch}", ha="right", va="bottom",
              fontsize=8, color="#666666")  # fmt: skip
    left.set(xlabel="step", ylabel="in-batch loss", title="Find your passage in the batch", ylim=(0, None))
    left.margins(y=0.15)
    for place, values in enumerate((outcome.before, outcome.after)):
        low, high = mean_interval(values)
        mean = values.mean()
        middle.bar(place, 100 * mean, width=0.6, color=plots.COLOURS[place])
        middle.errorbar(place, 100 * mean, yerr=[[100 * (mean - low)], [100 * (high - mean)]], color="#333333",
                        capsize=4)  # fmt: skip
    middle.set_xticks([0, 1], ["before", "after"])
    gain = outcome.gain
    middle.set(ylabel="nDCG@10 × 100, held out", title=f"{100 * gain.difference:+.1f}, p = {gain.p:.4f} (paired)")
    changes = 100 * np.sort(outcome.after - outcome.before)
    right.bar(range(len(changes)), changes, width=1.0, color=np.where(changes > 0, plots.COLOURS[2], plots.COLOURS[1]))
    right.set(xlabel="held-out queries, sorted", ylabel="change of nDCG@10 × 100", ylim=(-105, 105),
              title=f"{(changes > 0).sum()} better, {(changes < 0).sum()} worse")  # fmt: skip
    plots.save_figure(figure, run.dir / "fine-tuning.png")
    run.figure("fine-tuning.png", "the loss, the held-out score before and after, and single queries")
