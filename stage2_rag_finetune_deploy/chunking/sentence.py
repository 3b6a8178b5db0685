"""Sentences: whole ones packed up to the cap, or one by one with the neighbours kept beside them."""

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode

from stage2_rag_finetune_deploy.chunking.packing import fit
from stage2_rag_finetune_deploy.chunking.sentences import Offsets, sentence_offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser, trim

WINDOW, ORIGINAL = "window", "original_text"  # the keys that MetadataReplacementPostProcessor reads
WINDOW_SPAN = "window_span"


class SentencePacking(SpanParser):
    """As many whole sentences as fit, the last ones repeated: what LlamaIndex's SentenceSplitter does."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        return [Span(*span) for span in self.packed(text, sentence_offsets(text))]


class SentenceWindow(SpanParser):
    """One sentence is embedded and searched; what the reader gets is the window around it.

    The window stands in the metadata under the keys of LlamaIndex's SentenceWindowNodeParser, so that its
    `MetadataReplacementPostProcessor("window")` puts it in the place of the sentence. It obeys the cap, too.

    Args:
        neighbours: sentences on each side, fewer where the window would be over the cap.
    """

    neighbours: int = Field(default=3, ge=0)

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        pieces = [span for span, _ in fit(text, sentence_offsets(text), self.cap, self.counter)]
        pieces = [(start, end) for start, end in pieces if text[start:end].strip()]
        spans = []
        for position, (start, end) in enumerate(pieces):
            window = trim(text, *self.window(text, pieces, position))
            kept = {WINDOW: text[slice(*window)], ORIGINAL: text[start:end].strip(), WINDOW_SPAN: list(window)}
            spans.append(Span(start, end, kept))
        return spans

    def window(self, text: str, pieces: list[Offsets], position: int) -> Offsets:
        """The sentence at `position` with up to `neighbours` sentences on each side, as many as the cap allows.

        Returns:
            Offsets of the largest window that is not over the cap; the sentence alone when nothing else fits.
        """
        for reach in range(self.neighbours, 0, -1):
            first, last = max(0, position - reach), min(len(pieces) - 1, position + reach)
            if self.counter.size(text[pieces[first][0] : pieces[last][1]]) <= self.cap:
                return pieces[first][0], pieces[last][1]
        return pieces[position]
