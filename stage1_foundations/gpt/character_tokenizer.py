"""Characters as tokens: the smallest tokenizer that works.

Idea: the vocabulary is the set of characters that the training text has, sorted by code point. It is tiny (65
or so for Shakespeare, 3,960 for a Chinese novel), so a small model spends its weights on language rather than
on a table of embeddings. The price: sequences are as long as the text, and a character never seen cannot be
written.

Read next: byte_pair_encoding.py, which can write any text.
"""

from collections.abc import Iterable

import numpy as np

from labkit.errors import LabError


def lone_surrogate(error: UnicodeEncodeError) -> LabError:
    """The error for half of a surrogate pair: a `str` can hold it, text cannot."""
    code_point = f"U+{ord(error.object[error.start]):04X}"
    return LabError(f"the text has {code_point}, half of a surrogate pair, not a character", "text in UTF-8")


def code_points(text: str) -> np.ndarray:
    """The code point of each character, (len(text),) uint32.

    Raises:
        LabError: half of a surrogate pair, which no UTF-8 file can hold.
    """
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        raise lone_surrogate(error) from None


class CharacterTokenizer:
    """One token per character.

    Args:
        characters: the vocabulary; the n-th character has id n.

    Raises:
        LabError: the vocabulary is empty, or a character comes twice.
    """

    kind = "character"

    def __init__(self, characters: str) -> None:
        if not characters:
            raise LabError("there is no text to take characters from", "a UTF-8 file that is not empty")
        self.characters = characters
        self._code_points = code_points(characters)
        if len(np.unique(self._code_points)) < len(characters):
            raise LabError("a character comes twice in the vocabulary", "train the model again")
        # one row past the largest code point stays -1, for everything larger
        self._id_of = np.full(int(self._code_points.max()) + 2, -1, dtype=np.int32)
        self._id_of[self._code_points] = np.arange(len(characters), dtype=np.int32)

    @classmethod
    def train(cls, text: str) -> "CharacterTokenizer":
        """The vocabulary of a text: its distinct characters in the order of their code points."""
        return cls("".join(sorted(set(text))))

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Token ids, one per character.

        Raises:
            LabError: a character that the training text did not have.
        """
        points = code_points(text)
        ids = self._id_of[np.minimum(points, len(self._id_of) - 1)]
        unknown = np.flatnonzero(ids < 0)
        if unknown.size:
            character = text[unknown[0]]
            raise LabError(
                f"character {character!r} (U+{ord(character):04X}) is not among the {self.vocab_size} "
                "that the model was trained on",
                "the text without it, or a model trained with a BPE tokenizer, which can write any text",
            )
        return ids.tolist()

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids.

        Raises:
            LabError: an id outside the vocabulary.
        """
        ids = np.fromiter(ids, dtype=np.int64)
        wrong = ids[(ids < 0) | (ids >= self.vocab_size)]
        if wrong.size:
            raise LabError(
                f"token id {wrong[0]} is outside the vocabulary of {self.vocab_size}",
                "the tokenizer of the checkpoint that made the ids",
            )
        return self._code_points[ids].tobytes().decode("utf-32-le")

    def to_dict(self) -> dict:
        """Plain data for a checkpoint or a JSON file."""
        return {"kind": self.kind, "characters": self.characters}

    @classmethod
    def from_dict(cls, description: dict) -> "CharacterTokenizer":
        """The tokenizer that `to_dict` described.

        Raises:
            LabError: there are no characters in it.
        """
        characters = description.get("characters")
        if not isinstance(characters, str):
            raise LabError("the tokenizer's description has no characters", "train the model again")
        return cls(characters)
