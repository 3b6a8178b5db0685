"""`make-questions` and `train-reranker`: from Wikipedia passages to a cross-encoder and its weight."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import data
from labkit import plots
from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json, write_jsonl, write_text
from labkit.progress import console, progress
from labkit.runs import Run, shown, start_run
from stage1_foundations.embeddings.bootstrap import Comparison, paired_bootstrap
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.cross_encoder import SETTINGS, CrossEncoderReranker
from stage2_rag_finetune_deploy.rag.evaluation.retrieval import reciprocal_rank
from stage2_rag_finetune_deploy.rag.llm_reranker import QueryLikelihood
from stage2_rag_finetune_deploy.rag.reranker import blend
from stage2_rag_finetune_deploy.rag.reranker_training import distilled, hard_lists, train_cross_encoder
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Hit
from stage2_rag_finetune_deploy.rag.synthetic_questions import (
    SHIPPED,
    Pair,
    QuestionWriter,
    read_pairs,
    round_trip,
    wikipedia_passages,
    write_questions,
)
from stage2_rag_finetune_deploy.rag.variants import Parts, load_token_encoder, make_variant

SMOLLM2 = "smollm2-135m-instruct"
WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))


@dataclass(frozen=True)
class QuestionsConfig:
    """How many questions are written."""

    minutes: float = option(4.0, "stop after so many minutes; the next call goes on from there")
    out: Path = option(SHIPPED, "the file that is appended to")
    batch: int = option(32, "excerpts at once")
    seed: int = option(1, "of the order of the passages and of the sampling")


@dataclass(frozen=True)
class TrainConfig:
    """What the cross-encoder learns from, and how long."""

    questions: Path = option(SHIPPED, "the file of questions")
    train: int = option(600, "how many of them are learnt from; 0 is all but the held-out ones")
    test: int = option(150, "held-out questions: they choose the weight, and say whether it helped")
    distractors: int = option(450, "more passages to search among, for the held-out questions")
    negatives: int = option(3, "wrong passages a question")
    distil: bool = option(False, "mix in what SmolLM2 thinks of each passage")
    batch: int = option(8, "questions in a step")
    epochs: int = option(1, "passes over the questions")
    lr: float = option(1e-4, "highest learning rate")
    max_tokens: int = option(128, "of question and passage together, in training")
    seed: int = option(1, "of the split, of the order and of dropout")


PRESETS = {
    "smoke": TrainConfig(train=16, test=8, distractors=12, negatives=1, batch=4, max_tokens=48),
    "cpu": TrainConfig(),
    "study": TrainConfig(train=0, distractors=1500, test=300, negatives=4, epochs=2, distil=True, max_tokens=192),
    "gpu": TrainConfig(train=0, distractors=1500, test=300, negatives=7, epochs=3, distil=True, max_tokens=256,
                       batch=32),
}  # fmt: skip


def run_questions(config: QuestionsConfig, preset: str) -> None:
    """Let the language model write, keep what is good, append it to the file."""
    import time

    import torch

    if config.minutes <= 0 or config.batch < 1:
        raise LabError("no time, or no batch", "--minutes 4 --batch 32")
    passages = wikipedia_passages()
    known = read_pairs(config.out) if config.out.exists() else []
    torch.manual_seed(config.seed + len(known))
    writer = QuestionWriter(data.fetch(SMOLLM2))
    retriever = Bm25Retriever(Corpus.from_texts(passages))
    new: list[Pair] = []
    written, start, total = 0, time.monotonic(), 60 * config.minutes
    done = {pair.passage for pair in known}
    with progress(total=total, description="write questions (seconds)") as bar:
        for batch in write_questions(writer, passages, config.batch, config.seed + len(known), done):
            written += config.batch
            new += round_trip(batch, retriever)
            bar.update(min(total, time.monotonic() - start))
            bar.note(f"{len(new)} kept of {written}")
            if time.monotonic() - start > total:
                break
    pairs = [*known, *new]
    write_jsonl(config.out, map(asdict, pairs))
    console.print(f"{len(new):,} of {written:,} kept, {len(pairs):,} in {shown(config.out.absolute())}", markup=False)


def run_train_reranker(config: TrainConfig, preset: str) -> None:
    """Train, choose the weight on one half of the held-out questions, test on the other."""
    check(config)
    with start_run("stage2", "rag", "train-reranker", config, preset=preset, seed=config.seed) as run:
        passages = wikipedia_passages()
        train, test = split(read_pairs(config.questions), config, passages)
        searched = test_corpus(test, train, passages, config)
        lists = hard_lists(train, {name: text for name, text in passages.items() if name not in searched},
                           config.negatives, config.seed)  # fmt: skip
        if config.distil:
            lists = distilled(lists, QueryLikelihood(data.fetch(SMOLLM2)))
        losses = train_cross_encoder(
            lists, data.fetch("all-minilm-l6-v2"), run.dir / "model", config.batch, config.epochs, config.lr,
            config.max_tokens, config.seed,
        )  # fmt: skip
        curve, comparison = choose_weight(run.dir / "model", test, searched)
        best = max(curve, key=lambda weight: (curve[weight], -weight))
        write_json(run.dir / "model" / SETTINGS, {"weight": best})
        write_text(run.dir / "model" / "README.md", card(config, len(train), best, comparison))
        run.artefact("model", kind="model")
        record(run, losses, curve, best, comparison)


def check(config: TrainConfig) -> None:
    """Raises LabError for numbers that cannot work."""
    for name in ("test", "negatives", "batch", "epochs", "max_tokens"):
        if getattr(config, name) < 1:
            raise LabError(f"--{name.replace('_', '-')} {getattr(config, name)} is below 1", "--help")
    if config.train < 0 or config.distractors < 0 or not config.lr > 0:
        raise LabError("a count below 0, or no learning rate", "--train 600 --distractors 450 --lr 1e-4")


def split(pairs: Sequence[Pair], config: TrainConfig, passages: dict[str, str]) -> tuple[list[Pair], list[Pair]]:
    """Questions to learn from and held-out ones, of other articles as far as line numbers can tell: the held-out ones
    are the last lines of the text.

    Raises:
        LabError: there are too few questions.
    """
    known = sorted((pair for pair in pairs if pair.passage in passages), key=lambda pair: int(pair.passage))
    if len(known) < config.test + config.batch:
        raise LabError(f"{len(known)} questions, {config.test} of them held out, leave too few", "--test 50")
    train, test = known[: -config.test], known[-config.test :]
    if config.train:
        rows = np.random.default_rng(config.seed).permutation(len(train))[: config.train]
        train = [train[row] for row in sorted(rows)]
    return train, test


def test_corpus(
    test: Sequence[Pair], train: Sequence[Pair], passages: dict[str, str], config: TrainConfig
) -> dict[str, str]:
    """The passages of the held-out questions and their neighbours, which are the hardest to tell apart."""
    taken = {pair.passage for pair in train}
    names = sorted((name for name in passages if name not in taken), key=int)
    gold = {pair.passage for pair in test}
    others = [name for name in reversed(names) if name not in gold][: config.distractors]
    return {name: passages[name] for name in names if name in gold or name in set(others)}


def choose_weight(
    folder: Path, test: Sequence[Pair], searched: dict[str, str]
) -> tuple[dict[float, float], Comparison]:
    """MRR@10 by weight on the first half of the held-out questions; on the second, with against without."""
    reranker = CrossEncoderReranker(folder, weight=1.0)
    parts = Parts(Corpus.from_texts(searched), load_token_encoder("minilm"))
    retriever = make_variant("late", parts)
    found = [retriever.retrieve(pair.question, reranker.depth) for pair in test]
    scores = [
        reranker.score(pair.question, hits)
        for pair, hits in progress(list(zip(test, found, strict=True)), description="held-out questions")
    ]
    values = {
        weight: np.array([
            rank_of(pair, hits, blend(np.array([hit.score for hit in hits]), score, weight))
            for pair, hits, score in zip(test, found, scores, strict=True)
        ])
        for weight in WEIGHTS
    }  # fmt: skip
    half = len(test) // 2
    curve = {weight: float(row[:half].mean()) for weight, row in values.items()}
    best = max(curve, key=lambda weight: (curve[weight], -weight))
    return curve, paired_bootstrap(values[0.0][half:], values[best][half:])


def rank_of(pair: Pair, hits: Sequence[Hit], scores: np.ndarray) -> float:
    """The reciprocal rank of a question's own passage."""
    order = np.argsort(-scores, kind="stable")
    return reciprocal_rank([hits[row].id for row in order], {pair.passage: 1}, 10)


def record(
    run: Run, losses: list[float], curve: dict[float, float], best: float, comparison: Comparison
) -> None:
    """Metrics, the figure and the last lines."""
    run.metric("last_loss", np.mean(losses[-20:]), unit="nats", meaning="cross entropy of the lists, last 20 steps")
    run.metric("weight", best, meaning="of the cross-encoder against late interaction, chosen on held-out questions")
    run.metric("mrr10_gain", comparison.difference, meaning="on the other half of the held-out questions")
    figure, (left, right) = plots.new_figure(1, 2, width=8.0, height=3.4)
    left.plot(np.convolve(losses, np.ones(10) / 10, mode="valid") if len(losses) > 20 else losses)
    left.set(xlabel="step", ylabel="loss", title="Loss, mean of 10 steps")
    right.plot(list(curve), list(curve.values()), marker="o")
    right.set(xlabel="weight of the cross-encoder", ylabel="MRR@10", title="Held-out questions")
    plots.save_figure(figure, run.dir / "training.png")
    run.figure("training.png", "loss, and which weight helps")
    p = comparison
    run.learnt(f"the cross-encoder at weight {best}: MRR@10 {p.difference:+.3f} ({p.low:+.3f} to {p.high:+.3f}) on "
               "held-out synthetic questions")  # fmt: skip
    run.next("python -m stage2_rag_finetune_deploy.rag compare")
    console.print(f"loss {np.mean(losses[:5]):.3f} -> {np.mean(losses[-20:]):.3f}; weight {best} of the cross-encoder")
    console.print(f"held-out questions, MRR@10: {p.difference:+.3f}, 95 % interval {p.low:+.3f} to {p.high:+.3f}, "
                  f"p {p.p:.4f}", highlight=False)  # fmt: skip


def card(config: TrainConfig, train: int, weight: float, gain: Comparison) -> str:
    """The model's card."""
    teacher = "distilled from SmolLM2-135M-Instruct's query likelihood, " if config.distil else ""
    return f"""---
license: apache-2.0
base_model: sentence-transformers/all-MiniLM-L6-v2
library_name: sentence-transformers
pipeline_tag: text-ranking
---
# A cross-encoder from MiniLM-L6, for this course

Trained on {train:,} questions that SmolLM2-135M-Instruct wrote about WikiText-2 (CC BY-SA 3.0), {teacher}with
{config.negatives} hard negatives each from BM25; {config.epochs} pass(es), batch {config.batch}, learning rate
{config.lr}, {config.max_tokens} tokens, seed {config.seed}. No labelled set of the course was used.

Made to be added to a first stage at weight {weight} (`{SETTINGS}`), not to stand alone. On held-out synthetic
questions that changes MRR@10 by {gain.difference:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f}).
English only; no use beyond the course is intended.
"""
