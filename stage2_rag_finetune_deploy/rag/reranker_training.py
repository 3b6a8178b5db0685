"""Teaching MiniLM to compare: from question and passage to a list with one right answer and hard wrong ones.

A question goes with its passage and with passages that BM25 finds for it, which share its words and do not answer it;
against random passages a model learns nothing that BM25 does not know. The loss is listwise: cross entropy between
the softmax of the model's scores and the wanted distribution (ListNet, Cao et al. 2007), which is the right passage
alone, or what a language model thinks of all of them (distillation; llm_reranker.py).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labkit.device import choose_device, choose_dtype
from labkit.progress import progress
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.hybrid import standardise
from stage2_rag_finetune_deploy.rag.pair_reranker import PairReranker
from stage2_rag_finetune_deploy.rag.retriever import Corpus
from stage2_rag_finetune_deploy.rag.synthetic_questions import Pair

CERTAIN = 10.0  # the softmax of (10, 0, 0, 0, 0) is 0.9998 for the first


@dataclass(frozen=True)
class TrainingList:
    """A question, its candidates, and how good each of them is; `labels` go through a softmax."""

    query: str
    passages: list[str]
    labels: list[float]


def hard_lists(
    pairs: Sequence[Pair], texts: Mapping[str, str], negatives: int, seed: int, depth: int = 20
) -> list[TrainingList]:
    """Each question with its passage first, and passages that BM25 ranks high for it.

    The very first ones are as likely good answers as bad ones, so the negatives are drawn from the first `depth`, not
    taken from the top.

    Args:
        pairs: questions and passage ids.
        texts: passage id -> text of the whole corpus that negatives come from.
        negatives: how many a question gets.
        seed: of the draw.
        depth: how deep negatives are looked for.
    """
    retriever, rng = Bm25Retriever(Corpus.from_texts(texts)), random.Random(seed)
    lists = []
    for pair in progress(pairs, description="hard negatives"):
        found = [hit.text for hit in retriever.retrieve(pair.question, depth + 1) if hit.id != pair.passage]
        wrong = rng.sample(found[:depth], min(negatives, len(found)))
        lists.append(TrainingList(pair.question, [texts[pair.passage], *wrong], [CERTAIN, *[0.0] * len(wrong)]))
    return lists


def distilled(lists: Sequence[TrainingList], teacher: PairReranker, share: float = 0.5) -> list[TrainingList]:
    """The same lists with a teacher's opinion mixed into the labels.

    The teacher's scores are standardised in each list, so that its softmax has a temperature of its own; `share` is
    how much it counts against the label "the first is right".
    """
    soft = []
    for item in progress(lists, description=f"ask {teacher.name}"):
        opinion = 2.0 * standardise(teacher.score_pairs([(item.query, text) for text in item.passages]))
        wanted = share * softmax(opinion) + (1 - share) * softmax(np.array(item.labels))
        soft.append(TrainingList(item.query, item.passages, np.log(np.maximum(wanted, 1e-6)).tolist()))
    return soft


def softmax(values: np.ndarray) -> np.ndarray:
    """(N,) summing to 1."""
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def train_cross_encoder(
    lists: Sequence[TrainingList], base: Path, folder: Path, batch: int, epochs: int, lr: float, max_tokens: int,
    seed: int,
) -> list[float]:
    """Train a cross-encoder from an encoder's weights and save it; returns the loss of every step.

    Args:
        lists: what to learn from.
        base: folder of the encoder whose transformer is the start; the classifier on top begins at random.
        folder: where the model is written, in half precision.
        batch: questions in a step. epochs: passes. lr: highest learning rate.
        max_tokens: of query and passage together.
        seed: of the classifier, the order and dropout.
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import ListNetLoss
    from transformers import TrainerCallback
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # "newly initialised: classifier": that is the point
    torch.manual_seed(seed)
    device = choose_device("auto")
    model = CrossEncoder(str(base), num_labels=1, max_length=max_tokens, device=str(device), local_files_only=True,
                         model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})  # fmt: skip
    losses: list[float] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))
                bar.note(f"loss {np.mean(losses[-20:]):.3f}")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar.update(state.global_step)

    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder.parent / "trainer"), num_train_epochs=epochs, per_device_train_batch_size=batch,
        learning_rate=lr, warmup_steps=0.1, weight_decay=0.01, seed=seed, logging_steps=1, save_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=device.type == "cpu",
        bf16=choose_dtype("auto", device) == torch.bfloat16,
    )  # fmt: skip
    columns = {
        "query": [item.query for item in lists],
        "passages": [item.passages for item in lists],
        "labels": [item.labels for item in lists],
    }
    trainer = CrossEncoderTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns),
        loss=ListNetLoss(model, mini_batch_size=-1), callbacks=[Watch()],
    )  # fmt: skip
    for callback in list(trainer.callback_handler.callbacks):  # the one that prints every log
        if type(callback).__name__ == "PrinterCallback":
            trainer.remove_callback(callback)
    with progress(total=len(trainer.get_train_dataloader()) * epochs, description="train") as bar:
        trainer.train()
    model.half().save_pretrained(str(folder))
    return losses
