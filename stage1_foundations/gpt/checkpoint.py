"""Checkpoints: everything that training needs to go on as if it had never stopped.

    model, optimizers     weights, momenta
    rng                   the state of torch's generator
    step                  also the position in the data (batches.py) and in the dropout masks (training.py)
    tokenizer, data       what the ids mean, and which text they came from

A checkpoint appears whole or not at all (labkit.files.atomic_path): a process killed while saving leaves the one
before. It is read with `weights_only=True`, so a checkpoint from a stranger cannot run code.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch

from labkit.errors import LabError
from labkit.files import atomic_path
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.model_config import ModelConfig
from stage1_foundations.gpt.tokenizer import Tokenizer, tokenizer_from_dict

FORMAT = 1
TRAIN_AGAIN = "python -m stage1_foundations.gpt train"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        LabError: the disk is full, or the file cannot be written; the old file is then untouched.
    """
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch's writer hides the OSError of a full disk behind its own error
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise LabError(
            f"cannot write {path}: {cause.strerror}", "free some space, or move the runs with COURSE_LAB_RUNS"
        ) from error


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        LabError: absent, truncated, not a checkpoint of this lab, or of another format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoint.pt"
    if not path.is_file():
        raise LabError(f"no checkpoint at {path}", TRAIN_AGAIN)
    try:
        with warnings.catch_warnings(action="ignore"):  # about the pickles of others; the error below says enough
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # random bytes make torch's unpickler raise nearly anything, IndexError included
        raise LabError(
            f"{path} is truncated or is not a checkpoint ({path.stat().st_size:,} bytes)", TRAIN_AGAIN
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise LabError(f"{path} is not a checkpoint of format {FORMAT}", TRAIN_AGAIN)
    return state


def model_state(model: GPT, tokenizer: Tokenizer, data_name: str, data_sha256: str) -> dict[str, Any]:
    """The part of a checkpoint that `load_model` needs."""
    return {
        "model_config": dataclasses.asdict(model.config),
        "tokenizer": tokenizer.to_dict(),
        "data": {"name": data_name, "sha256": data_sha256},
        "model": model.state_dict(),
    }


def load_weights(model: GPT, weights: dict[str, torch.Tensor], path: Path | str) -> None:
    """Copy weights into a model of the same shape.

    Raises:
        LabError: the weights belong to another shape; the message names the first difference.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        own = model.state_dict()
        names = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
        here, there = (tuple(w[names[0]].shape) if names[0] in w else "absent" for w in (own, weights))
        raise LabError(
            f"{path} has another shape: {names[0]} is {there} there and {here} here",
            "the --shape, --layers, --width, --heads and --context it was trained with",
        ) from error


def load_model(path: Path | str, device: torch.device | str = "cpu") -> tuple[GPT, Tokenizer]:
    """The model, ready to use, and its tokenizer.

    Args:
        path: a checkpoint, or the folder of a run.

    Raises:
        LabError: see `read_checkpoint`.
    """
    state = read_checkpoint(path)
    try:
        config = ModelConfig(**state["model_config"])
        tokenizer, weights = tokenizer_from_dict(state["tokenizer"]), state["model"]
    except (KeyError, TypeError) as error:
        raise LabError(f"{path} lacks a part or has an unknown one: {error}", TRAIN_AGAIN) from error
    model = GPT(config)
    load_weights(model, weights, path)
    return model.to(device).eval(), tokenizer
