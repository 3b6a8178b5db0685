"""Contrastive fine-tuning with sentence-transformers: pairs in, a better encoder out, in a minute on two cores.

What makes it fit: short texts, a frozen word table (four fifths of the model's weights) and frozen lower layers, so
that the gradient stops half-way down.
"""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import progress
from stage1_foundations.embeddings.transformer_encoder import HISTORY, TransformerEncoder

CANARY_ADVICE = "idioms or construction-faq: sets without a canary"


@dataclass(frozen=True)
class Split:
    """Pairs to train on, and a retrieval set held out: none of its queries and of their passages is in `train`.

    Attributes:
        train: (query, passage) pairs.
        held_out: queries that the training never saw, with a corpus that holds their passages and distractors.
    """

    train: list[tuple[str, str]]
    held_out: data.RetrievalSet


# exercise: embeddings.split_pairs
def split_pairs(loaded: data.RetrievalSet, train: int, test: int, passages: int | None, seed: int = 1) -> Split:
    """Cut a set into training pairs and a held-out set that share no query text and no gold passage.

    Args:
        train: pairs to train on, as many as are left at most.
        test: held-out queries.
        passages: size of the held-out corpus; None keeps the whole.
        seed: of the draw.

    Raises:
        LabError: the set carries a canary, or is too small.
    """
    if loaded.canary:
        raise LabError(f"{loaded.name} carries a canary: it is for evaluation, never for training", CANARY_ADVICE)
    if len(loaded.queries) < test + 8:
        raise LabError(f"{loaded.name} has {len(loaded.queries)} queries, too few to hold out {test}", "--test 50")
    held_out = loaded.sample(test, passages, seed=seed)
    forbidden_texts = set(held_out.queries.values())
    forbidden_passages = {passage for gold in held_out.qrels.values() for passage in gold}
    pairs = [
        (loaded.queries[query], loaded.corpus[next(iter(gold))])
        for query, gold in loaded.qrels.items()
        if loaded.queries[query] not in forbidden_texts and not forbidden_passages & gold.keys()
    ]
    random.Random(seed).shuffle(pairs)
    return Split(pairs[:train], held_out)
# end exercise


def held_out_pairs(held_out: data.RetrievalSet) -> list[tuple[str, str]]:
    """The pairs that a held-out set asks for: what `train --leak` trains on, to show what a leak does."""
    return [(held_out.queries[query], held_out.corpus[next(iter(gold))]) for query, gold in held_out.qrels.items()]


def freeze(model: Any, trainable_layers: int) -> int:
    """Leave only the last layers trainable; returns how many weights are.

    Args:
        model: a SentenceTransformer around a BERT.
        trainable_layers: from the top; 0 or less trains everything.
    """
    transformer = model[0].model
    layers = transformer.encoder.layer
    if trainable_layers > 0:
        for part in (transformer.embeddings, *layers[: max(0, len(layers) - trainable_layers)]):
            part.requires_grad_(False)
    return sum(weight.numel() for weight in transformer.parameters() if weight.requires_grad)


def train_pairs(encoder: TransformerEncoder, pairs: list[tuple[str, str]], settings: Any, seed: int) -> list[float]:
    """Fine-tune the encoder's model in place; returns the loss of every step.

    Args:
        pairs: (query, passage).
        settings: batch, epochs, lr, temperature, layers, max_tokens.
        seed: of the order of the pairs and of dropout.
    """
    from tempfile import TemporaryDirectory

    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers
    from transformers import TrainerCallback

    from stage1_foundations.embeddings.contrastive import InBatchLoss

    model = encoder.model
    whole = model.max_seq_length
    model.max_seq_length = min(whole or settings.max_tokens, settings.max_tokens)
    model.model_card_data.generate_widget_examples = False
    encoder.cached = False  # from here on its vectors are no longer those of its revision
    freeze(model, settings.layers)
    torch.manual_seed(seed)
    losses: list[float] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))
                bar.note(f"loss {losses[-1]:.3f}")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar.update(state.global_step)

    scratch = TemporaryDirectory()  # the trainer insists on a folder, and saves nothing
    arguments = SentenceTransformerTrainingArguments(
        output_dir=scratch.name, num_train_epochs=settings.epochs, per_device_train_batch_size=settings.batch,
        learning_rate=settings.lr, warmup_steps=0.1, lr_scheduler_type="linear", weight_decay=0.01,
        batch_sampler=BatchSamplers.NO_DUPLICATES,  # a passage twice in a batch would be its own negative
        prompts={"query": encoder.prompts["query"], "passage": encoder.prompts["passage"]},
        seed=seed, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_drop_last=True, use_cpu=encoder.device.type == "cpu",
    )  # fmt: skip
    columns = {"query": [query for query, _ in pairs], "passage": [passage for _, passage in pairs]}
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(columns),
        loss=InBatchLoss(model, settings.temperature), callbacks=[Watch()],
    )  # fmt: skip
    for callback in list(trainer.callback_handler.callbacks):  # the one that prints every log
        if type(callback).__name__ == "PrinterCallback":
            trainer.remove_callback(callback)
    steps = len(trainer.get_train_dataloader()) * settings.epochs
    with progress(total=steps, description="fine-tune") as bar:
        trainer.train()
    scratch.cleanup()
    model.max_seq_length = whole  # what is measured afterwards reads as much as before
    model.eval()
    return losses


def save_model(encoder: TransformerEncoder, folder: Path, trained_on: str) -> None:
    """Write a sentence-transformers folder that `load_encoder` reads: half precision on the disk, prompts included.

    Args:
        trained_on: the set that the pairs came from, so that its scores are marked.
    """
    names = {"query": "query", "document": "passage", "symmetric": "symmetric"}  # the library's words and ours
    encoder.model.prompts = {theirs: encoder.prompts[ours] for theirs, ours in names.items()}
    unfinished = folder.with_name(f".tmp-{folder.name}")
    encoder.model.half().save_pretrained(str(unfinished), create_model_card=False)
    encoder.model.float()
    write_json(unfinished / HISTORY, {
        "name": f"{encoder.name}+{trained_on}", "origin": encoder.origin,
        "fine_tuned_on": sorted({*encoder.fine_tuned_on, trained_on}),
    })  # fmt: skip
    os.replace(unfinished, folder)
