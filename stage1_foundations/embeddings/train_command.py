"""`train`: fine-tune an encoder on pairs, and ask whether it got better: before and after, paired, held out."""

import os
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from labkit import plots
from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console, error_console
from labkit.runs import Run, shown, start_run
from stage1_foundations.embeddings.bootstrap import Comparison, Items, interval, paired_bootstrap, replicate_scores

if TYPE_CHECKING:
    from stage1_foundations.embeddings.fine_tuning import Split
    from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder


@dataclass(frozen=True)
class TrainConfig:
    """What to train, on what, and how long."""

    model: str = option("e5", "minilm, e5, the folder of a model, or a hub id")
    data: str = option("idioms", "a retrieval set without a canary: idioms, construction-faq, construction-faq-sv")
    pairs: int = option(720, "training pairs")
    test: int = option(300, "held-out queries")
    passages: int = option(1000, "size of the held-out corpus; 0 is the whole")
    batch: int = option(48, "pairs in a batch: each has batch - 1 negatives")
    epochs: int = option(1, "passes over the pairs")
    lr: float = option(1e-4, "highest learning rate")
    temperature: float = option(0.02, "of the softmax over the batch")
    layers: int = option(4, "layers trained, from the top; 0 trains all")
    max_tokens: int = option(48, "tokens of a text that training reads")
    leak: bool = option(False, "also train a second model on the held-out pairs, to see what contamination does")
    save: bool = option(True, "write the model (half the size of its float32 weights)")
    seed: int = option(1, "of the split, of the order of the pairs and of dropout")


PRESETS = {
    "smoke": TrainConfig(model="minilm", data="construction-faq", pairs=16, test=20, passages=40, batch=8, layers=1,
                         max_tokens=16, save=False),
    "cpu": TrainConfig(),
    "study": TrainConfig(pairs=6000, test=1000, passages=5000, leak=True),
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
    for name in ("pairs", "test", "batch", "epochs", "max_tokens"):
        if getattr(config, name) < 1:
            raise LabError(f"--{name.replace('_', '-')} {getattr(config, name)} is no positive number", "--help")
    if config.batch < 2 or config.pairs < config.batch:
        raise LabError("in-batch negatives need a batch of 2 pairs or more, and a full batch of pairs", "--batch 32")
    if not config.lr > 0 or not config.temperature > 0:
        raise LabError("learning rate and temperature are above 0", "--lr 1e-4 --temperature 0.02")
    import data
    from stage1_foundations.embeddings.fine_tuning import save_model, split_pairs

    with start_run("stage1", "embeddings", "train", config, preset=preset, seed=config.seed) as run:
        loaded = data.load_retrieval(config.data)
        split = split_pairs(loaded, config.pairs, config.test, config.passages or None, config.seed)
        encoder = trainable(config.model)
        outcome = before_and_after(config, encoder, split, run)
        if config.leak:
            outcome.leaked = leak(config, split, loaded, run)
        if config.save:
            save_model(encoder, run.dir / "model")
            run.artefact("model", kind="model")
        draw(config, outcome, run)
        report(config, outcome, split, run)


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


def before_and_after(config: TrainConfig, encoder: "TransformerEncoder", split: "Split", run: Run) -> Outcome:
    """Measure with mteb, train, measure again."""
    from stage1_foundations.embeddings.evaluation import score_task
    from stage1_foundations.embeddings.fine_tuning import train_pairs
    from stage1_foundations.embeddings.tasks import HeldOut, Size, Tatoeba

    other = Size(texts=150)
    error_console.print("before: the held-out queries, and a task that is not trained for", style="dim")
    before, other_before = score_task(encoder, HeldOut(split.held_out)), score_task(encoder, Tatoeba(other))
    losses = train_pairs(encoder, split.train, config, run.dir / "trainer")
    error_console.print("after: the same again", style="dim")
    after, other_after = score_task(encoder, HeldOut(split.held_out)), score_task(encoder, Tatoeba(other))
    return Outcome(before.items.values, after.items.values, losses, other_before.score, other_after.score)


def leak(config: TrainConfig, split: "Split", loaded, run: Run) -> dict[str, np.ndarray]:
    """A second model that has seen the held-out pairs: its score on them, and on queries that nobody saw."""
    from stage1_foundations.embeddings.evaluation import score_task
    from stage1_foundations.embeddings.fine_tuning import held_out_pairs, split_pairs, train_pairs
    from stage1_foundations.embeddings.tasks import HeldOut

    leaked = held_out_pairs(split.held_out)
    rest = split.train[: max(0, len(split.train) - len(leaked))]  # as many steps as the honest model had
    encoder = trainable(config.model)
    fresh = split_pairs(loaded, 0, config.test, config.passages or None, config.seed + 1).held_out
    seen = {query for query, _ in rest + leaked}
    clean = [name for name in sorted(fresh.queries) if fresh.queries[name] not in seen]
    before = score_task(encoder, HeldOut(fresh)).items.values
    train_pairs(encoder, [*leaked, *rest], config, run.dir / "trainer")
    keep = np.isin(sorted(fresh.queries), clean)
    return {
        "on the leaked queries": score_task(encoder, HeldOut(split.held_out)).items.values,
        "fresh queries, before": before[keep],
        "fresh queries, after": score_task(encoder, HeldOut(fresh)).items.values[keep],
    }


def report(config: TrainConfig, outcome: Outcome, split: "Split", run: Run) -> None:
    """The verdict, on the terminal and in the report."""
    gain = outcome.gain
    verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "no difference that these queries can show"
    console.print(
        f"{config.model} on {config.data}: {len(split.train):,} pairs, {len(outcome.before):,} held-out queries\n"
        f"  nDCG@10  {100 * outcome.before.mean():.1f} -> {100 * outcome.after.mean():.1f}   "
        f"{100 * gain.difference:+.1f}, 95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}, "
        f"p = {gain.p:.4f}: {verdict}\n"
        f"  not trained for (English to Spanish, accuracy)  {100 * outcome.other_before:.1f} -> "
        f"{100 * outcome.other_after:.1f}",
        highlight=False,
    )
    for name, values in outcome.leaked.items():
        console.print(f"  trained on the test: {name}  {100 * values.mean():.1f}  ({len(values):,})", highlight=False)
    meaning = "nDCG@10 × 100 of held-out queries"
    run.metric("ndcg_before", 100 * outcome.before.mean(), meaning=meaning)
    run.metric("ndcg_after", 100 * outcome.after.mean(), meaning=meaning)
    band = (0.0, None) if run.report["preset"] in ("cpu", "study", "gpu") else None
    run.metric("gain_low", 100 * gain.low, band=band, meaning="lower end of the gain's 95 % interval, paired bootstrap")
    run.metric("gain_p", gain.p, band=(None, 0.05) if band else None, meaning="two-sided p-value of the gain")
    run.metric("other_task_change", 100 * (outcome.other_after - outcome.other_before),
               meaning="accuracy × 100 on a task that was not trained for")  # fmt: skip
    run.learnt(
        f"{len(split.train)} pairs moved {config.model} by {100 * gain.difference:+.1f} nDCG@10 points on "
        f"{config.data} (95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})."
    )
    if config.save:
        run.next(f"python -m stage1_foundations.embeddings evaluate --model {shown(run.dir)}/model")
    else:
        run.next("python -m stage1_foundations.embeddings explain")


def draw(config: TrainConfig, outcome: Outcome, run: Run) -> None:
    """The loss against chance, the score before and after, and what happened to single queries."""
    from stage1_foundations.embeddings.contrastive import chance_loss

    figure, (left, middle, right) = plots.new_figure(1, 3, width=11.0, height=3.6)
    left.plot(range(1, len(outcome.losses) + 1), outcome.losses, color=plots.COLOURS[0], linewidth=1, alpha=0.5)
    smooth = [statistics.mean(outcome.losses[max(0, step - 7) : step + 1]) for step in range(len(outcome.losses))]
    left.plot(range(1, len(smooth) + 1), smooth, color=plots.COLOURS[0])
    left.axhline(chance_loss(config.batch), color="#888888", linestyle="--", linewidth=1)
    left.text(1, chance_loss(config.batch), f"chance: log {config.batch}", va="bottom", fontsize=8, color="#666666")
    left.set(xlabel="step", ylabel="in-batch loss", title="Find your passage in the batch", ylim=(0, None))
    for place, values in enumerate((outcome.before, outcome.after)):
        low, high = interval(replicate_scores(Items("mean", values)))
        mean = values.mean()
        whisker = [[100 * (mean - low)], [100 * (high - mean)]]
        middle.bar(place, 100 * mean, width=0.6, color=plots.COLOURS[place])
        middle.errorbar(place, 100 * mean, yerr=whisker, color="#333333", capsize=4)
    middle.set_xticks([0, 1], ["before", "after"])
    gain = outcome.gain
    middle.set(ylabel="nDCG@10 × 100, held out", title=f"{100 * gain.difference:+.1f}, p = {gain.p:.4f} (paired)")
    changes = outcome.after - outcome.before
    right.hist(changes, bins=np.linspace(-1, 1, 21), color=plots.COLOURS[2])
    right.set(xlabel="change of a query's nDCG@10", ylabel="queries", yscale="log",
              title=f"{(changes > 0).sum()} better, {(changes < 0).sum()} worse")  # fmt: skip
    plots.save_figure(figure, run.dir / "fine-tuning.png")
    run.figure("fine-tuning.png", "the loss, the held-out score before and after, and single queries")
