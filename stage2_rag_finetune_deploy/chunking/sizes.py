"""How large is a text? As many tokens as the encoder will read, or an eighth of its characters, if that is more.

An encoder reads a window (MiniLM: 256 tokens, E5: 512) and drops the rest without a word, so a chunk is measured in
the tokens of the encoder that will read it. Tokens alone are not enough: WordPiece turns any word of more than 100
letters into one `[UNK]`, and a minified file of 10 MB would be a chunk of one token. Hence the second bound.
"""

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

from stage1_foundations.embeddings.encoders import Encoder, load_encoder

CHARACTERS_PER_TOKEN = 8
WIDE = re.compile("[\u2e80-\U0010ffff]")  # Chinese characters and all above them
BATCH = 4096


class TokenCounter:
    """Sizes of texts, by a tokenizer.

    Args:
        tokenizer: of the `tokenizers` library; its truncation and padding are switched off. None counts by a rule of
            thumb, four letters or one Chinese character a token, and needs no download.
    """

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self.tokenizer = tokenizer
        if tokenizer is not None:
            tokenizer.no_truncation()
            tokenizer.no_padding()

    def size(self, text: str) -> int:
        """Size of one text; white space around it does not count, and inside a run of it is one character."""
        return self.sizes([text])[0]

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """Sizes of many texts, in one pass of the tokenizer."""
        stripped = [text.strip() for text in texts]
        found: list[int] = []
        for start in range(0, len(stripped), BATCH):
            batch = stripped[start : start + BATCH]
            lengths = [len(" ".join(text.split())) for text in batch]
            found += [max(tokens, -(-length // CHARACTERS_PER_TOKEN))
                      for length, tokens in zip(lengths, self._tokens(batch, lengths), strict=True)]  # fmt: skip
        return found

    def _tokens(self, texts: list[str], lengths: list[int]) -> list[int]:
        if self.tokenizer is None:
            return [(length + 3 * len(WIDE.findall(text))) // 4 + bool(length)
                    for text, length in zip(texts, lengths, strict=True)]  # fmt: skip
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]


def load_counter(encoder: str | Encoder = "minilm") -> TokenCounter:
    """The counter of an encoder, or of its name; "words" needs no model.

    Encoders without a tokenizer of their own (word vectors, random) count by the rule of thumb.

    Raises:
        LabError: there is no such encoder.
    """
    if encoder == "words":
        return TokenCounter()
    if isinstance(encoder, str):
        encoder = load_encoder(encoder)
    file = getattr(encoder, "folder", None) and encoder.folder / "tokenizer.json"
    return TokenCounter(Tokenizer.from_file(str(file)) if file and file.is_file() else None)
