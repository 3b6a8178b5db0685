"""A corpus: a text, its name and hash, and its two parts: the first 90 % to train on, the last 10 % to judge by.

The parts are cut, not drawn: neighbouring lines are alike, so a random split would put near-copies of the
validation text into the training text.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import data
from labkit.errors import LabError
from stage1_foundations.gpt.tokenizer import Tokenizer

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Corpus:
    """`name` is the catalog's, or the file's."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def train(self) -> str:
        """The first 90 % of the characters."""
        return self.text[: self._cut]

    @property
    def validation(self) -> str:
        """The last 10 %."""
        return self.text[self._cut :]

    @property
    def _cut(self) -> int:
        return int(len(self.text) * (1 - VALIDATION_SHARE))


def load_corpus(source: str) -> Corpus:
    """A catalog name (`python -m data list`) or the path of a UTF-8 text file.

    Raises:
        LabError: no such name or file, binary content, nothing to learn from.
    """
    if source in data.text_names():
        return Corpus(source, data.load_text(source))
    path = Path(source)
    if not path.is_file():
        names = ", ".join(data.text_names())
        raise LabError(f"no corpus or file named {source!r}", f"--data FILE (UTF-8 text), or one of: {names}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(
            f"{source} is not UTF-8 text (byte {error.start})", f"iconv -f ENCODING -t UTF-8 {source} > utf8.txt"
        ) from None
    if "\0" in text:
        raise LabError(f"{source} looks like a binary file (it holds NUL characters)", "--data a plain text file")
    if len(set(text)) < 2:
        kind = "is empty" if not text else "has one distinct character"
        raise LabError(f"{source} {kind}: there is nothing to predict", "--data a text of at least 10,000 characters")
    return Corpus(path.name, text)


def encode_part(tokenizer: Tokenizer, text: str, context: int, part: str) -> Tensor:
    """Token ids of one part, (N,) int64.

    Raises:
        LabError: the part is shorter than one context and its next token.
    """
    ids = torch.tensor(tokenizer.encode(text), dtype=torch.long)
    if len(ids) < context + 1:
        raise LabError(
            f"the {part} part has {len(ids):,} tokens, less than one context of {context} and the next token",
            f"a longer --data, or --context {max(1, (len(ids) - 1) // 2)}" if len(ids) > 2 else "a longer --data",
        )
    return ids
