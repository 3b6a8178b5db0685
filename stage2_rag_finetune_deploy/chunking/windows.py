"""Fixed windows: the chunkers that do not look at the text.

`FixedWindow` cuts after so many tokens, between two words. `CharacterWindow` cuts after so many characters, as
countless tutorials do, through the middle of a word: it is the table's lower end.
"""

from llama_index.core.schema import BaseNode

from stage2_rag_finetune_deploy.chunking.packing import word_offsets
from stage2_rag_finetune_deploy.chunking.sentences import Offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser

CHARACTERS = 3  # a token, on the safe side of the four and a half of English prose


class FixedWindow(SpanParser):
    """As many words as fit, then the next window, `overlap` tokens back."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        return [Span(*span) for span in self.packed(text, word_offsets(text, 0, len(text)))]


class CharacterWindow(SpanParser):
    """`text[i : i + n]` with n = 3 characters for each token of the cap; halves where that is too much."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text, width = document.get_content(), CHARACTERS * self.cap
        windows = [(start, min(start + width, len(text))) for start in range(0, len(text), width)]
        return [Span(*part) for window in windows for part in self.halves(text, *window)]

    def halves(self, text: str, start: int, end: int) -> list[Offsets]:
        """A window in parts that are not over the cap: addresses and Chinese have fewer characters a token."""
        if end - start == 1 or self.counter.size(text[start:end]) <= self.cap:
            return [(start, end)]
        middle = (start + end) // 2
        return self.halves(text, start, middle) + self.halves(text, middle, end)
