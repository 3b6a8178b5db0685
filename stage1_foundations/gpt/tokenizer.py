"""What the model needs of a tokenizer, and how to get one.

    character     CharacterTokenizer     a token per character; only those that the training text has
    bpe           BytePairEncoding       any text; trained on a text, so that its frequent parts are one token
    huggingface   HuggingFaceTokenizer   the file that comes with published weights (SmolLM2, GPT-2)

Losses per token cannot be compared between tokenizers, because a token is not the same amount of text. Divide
by `characters_per_token` to get nats per character, which can.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from labkit.errors import LabError
from stage1_foundations.gpt.byte_pair_encoding import BytePairEncoding
from stage1_foundations.gpt.character_tokenizer import CharacterTokenizer, lone_surrogate

KINDS = ("character", "bpe")
FETCH = "python -m data fetch smollm2-135m-instruct"


class Tokenizer(Protocol):
    """Text to token ids and back."""

    kind: str

    @property
    def vocab_size(self) -> int:
        """Number of tokens: ids are 0 to vocab_size - 1."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""

    def to_dict(self) -> dict:
        """Plain data (str, int, list, dict) with the key "kind", for `tokenizer_from_dict`."""


class HuggingFaceTokenizer:
    """A published tokenizer behind the same interface: a thin cover over `tokenizers.Tokenizer`.

    Args:
        description: the text of a `tokenizer.json`.

    Raises:
        LabError: the text is not a tokenizer's description.
    """

    kind = "huggingface"

    def __init__(self, description: str) -> None:
        import tokenizers  # here: most runs do not need it

        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(description)
        except Exception as error:  # the library raises Exception itself
            reason = " ".join(str(error).split())
            raise LabError(f"this is not a tokenizer.json: {reason}", FETCH) from None

    @classmethod
    def from_file(cls, path: str | Path) -> "HuggingFaceTokenizer":
        """Read a `tokenizer.json`, or the one in a model's folder.

        Raises:
            LabError: there is no such file, or it is not a tokenizer's description.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            return cls(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise LabError(f"there is no {file}", FETCH) from None
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(f"cannot read {file}: {error}", FETCH) from None

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Token ids; none is added at the ends, and the name of a special token in the text becomes its id.

        Raises:
            LabError: a lone surrogate in the text.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:  # how the library refuses a `str` that is not Unicode
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise lone_surrogate(error) from None
            raise

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, special tokens by name."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        """The id of one token, such as "<|im_end|>"; None where there is none."""
        return self._tokenizer.token_to_id(token)

    def to_dict(self) -> dict:
        """Plain data for a checkpoint: the whole `tokenizer.json` (1 to 4 MB)."""
        return {"kind": self.kind, "json": self._tokenizer.to_str()}

    @classmethod
    def from_dict(cls, description: dict) -> "HuggingFaceTokenizer":
        """The tokenizer that `to_dict` described."""
        return cls(str(description.get("json", "")))


def build_tokenizer(
    kind: str, text: str, vocab_size: int = 1024, progress: Callable[[int], object] | None = None
) -> Tokenizer:
    """Make a tokenizer from a training text.

    Args:
        kind: one of KINDS.
        text: for "bpe" the training text without the part held out; for "character" the whole text, so that
            no character of the held-out part is unknown.
        vocab_size: for "bpe"; "character" takes what the text has.
        progress: for "bpe", called with the number of merges learnt.

    Raises:
        LabError: an unknown kind, an empty text, or a vocabulary below 256.
    """
    if kind == "character":
        return CharacterTokenizer.train(text)
    if kind == "bpe":
        return BytePairEncoding.train(text, vocab_size, progress=progress)
    raise LabError(f"there is no tokenizer named {kind!r}", f"one of: {', '.join(KINDS)}")


def tokenizer_from_dict(description: dict) -> Tokenizer:
    """The tokenizer that a checkpoint describes.

    Raises:
        LabError: the description is of no known kind, or is damaged.
    """
    kind = description.get("kind") if isinstance(description, dict) else None
    for tokenizer in (CharacterTokenizer, BytePairEncoding, HuggingFaceTokenizer):
        if kind == tokenizer.kind:
            return tokenizer.from_dict(description)
    raise LabError(f"the checkpoint's tokenizer is of unknown kind {kind!r}", "train the model again")


def characters_per_token(tokenizer: Tokenizer, text: str) -> float:
    """Mean length of a token on a text, in characters: nats per token / this = nats per character.

    Raises:
        LabError: the text is empty.
    """
    if not text:
        raise LabError("an empty text has no tokens to measure", "a UTF-8 file that is not empty")
    return len(text) / len(tokenizer.encode(text))
