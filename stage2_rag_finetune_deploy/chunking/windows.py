"""Fixed windows: the chunkers that do not look at the text.

`FixedWindow` cuts after so many tokens, between two words. `CharacterWindow` cuts after so many characters, as
countless tutorials do, through the middle of a word: it is the table's lower end.
"""

from llama_index.core.schema import BaseNode

from stage2_rag_finetune_deploy.chunking.packing import fit, word_offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser

CHARACTERS = (4, 3, 2, 1)  # a token: English prose has four and a half, code and names fewer, Chinese one or two


class FixedWindow(SpanParser):
    """As many words as fit, then the next window, `overlap` tokens back."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        return [Span(*span) for span in self.packed(text, word_offsets(text, 0, len(text)))]


class CharacterWindow(SpanParser):
    """`text[i : i + n]`, nothing shared; n is 4, 3, 2 or 1 times the cap, the largest that keeps them under it."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`. What is over the cap at any n (an emoji can be six tokens) is cut again."""
        text = document.get_content()
        for width in (self.cap * characters for characters in CHARACTERS):
            windows = [(start, min(start + width, len(text))) for start in range(0, len(text), width)]
            if max(self.counter.sizes([text[start:end] for start, end in windows]), default=0) <= self.cap:
                break
        return [Span(*span) for span, _ in fit(text, windows, self.cap, self.counter)]
