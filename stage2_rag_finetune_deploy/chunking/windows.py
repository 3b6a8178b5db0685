"""Fixed windows: the chunkers that do not look at the text.

`FixedWindow` cuts after so many tokens, between two words. `CharacterWindow` cuts after so many characters, as
countless tutorials do, through the middle of a word: it is the table's lower end.
"""

from llama_index.core.schema import BaseNode

from stage2_rag_finetune_deploy.chunking.packing import fit, word_offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser

CHARACTERS = 3  # characters a token, on the safe side of what English has


class FixedWindow(SpanParser):
    """As many words as fit, then the next window, `overlap` tokens back."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        return [Span(*span) for span in self.packed(text, word_offsets(text, 0, len(text)))]


class CharacterWindow(SpanParser):
    """`text[i : i + n]` with n = 3 characters for each token of the cap, and nothing shared."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`. Where the window is still over the cap (Chinese), it is cut again."""
        text, width = document.get_content(), CHARACTERS * self.cap
        windows = [(start, min(start + width, len(text))) for start in range(0, len(text), width)]
        return [Span(*span) for span, _ in fit(text, windows, self.cap, self.counter)]
