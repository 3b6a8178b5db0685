"""The calibration text: the inputs on which a method decides what matters.

Pieces of the same length from all over a text, drawn from a seed. WikiText-2's training part by default; its validation
part is what layers are checked on, its test part what perplexity is measured on.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.texts import load_text, text_names
from labkit.errors import LabError

WIKITEXT = "wikitext-2"
CHARACTERS = 12  # of text for a token that is wanted: far more than needed, and far less than all


def calibration_ids(
    tokenizer: Any, name: str = WIKITEXT, samples: int = 32, length: int = 256, seed: int = 1, split: str = "train"
) -> Tensor:
    """Pieces of a text as ids. (samples, length), int64.

    Args:
        name: a text of the catalog, or a UTF-8 file.
        split: of a text that comes in parts.

    Raises:
        LabError: no such text, or it is too short for so many pieces that do not overlap.
    """
    text = read_text(name, split)
    wanted = samples * length
    if len(text) > 3 * CHARACTERS * wanted:  # a third of it, spread: tokenising all takes longer than calibrating
        step = len(text) // samples
        text = "".join(text[start : start + CHARACTERS * length] for start in range(0, step * samples, step))
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False)["input_ids"][0]
    pieces = len(ids) // length
    if pieces < samples:
        smaller = f"--samples {pieces}" if pieces else f"--samples 1 --length {max(1, len(ids))}"
        raise LabError(f"the calibration text {name} has {len(ids):,} tokens, {samples} x {length} are wanted",
                       f"{smaller}, or a longer text")  # fmt: skip
    chosen = torch.randperm(pieces, generator=torch.Generator().manual_seed(seed))[:samples].sort().values
    return ids[: pieces * length].view(pieces, length)[chosen]


def read_text(name: str, split: str) -> str:
    """A text of the catalog or a file.

    Raises:
        LabError: neither.
    """
    if name in text_names():
        return load_text(name, split if name == WIKITEXT else None)
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "no text of the catalog and no file"
        raise LabError(f"{name} is {reason}", f"--calibration {WIKITEXT}, or a UTF-8 file") from None
