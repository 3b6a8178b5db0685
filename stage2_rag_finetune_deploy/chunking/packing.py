"""Pieces into chunks: as many whole pieces as fit under the cap, the last ones repeated at the start of the next chunk.

Nearly every chunker is this function with other pieces: words (fixed window), sentences, paragraphs, turns,
statements. A piece that is too large by itself is cut where it hurts least: at lines, sentences, clauses, words, and
only then inside a word.
"""

import re
from collections.abc import Sequence

from stage2_rag_finetune_deploy.chunking.sentences import Offsets, sentence_offsets
from stage2_rag_finetune_deploy.chunking.sizes import CHARACTERS_PER_TOKEN, TokenCounter

LINE = re.compile(r"[^\n]*\n\s*|[^\n]+")
CLAUSE = re.compile(r"[^,;:，、：]*[,;:，、：]+\s*|[^,;:，、：]+")
WORD = re.compile(r"[\u3400-\u9fff]\s*|[^\s\u3400-\u9fff]+\s*|\s+")  # a Chinese character is a word


def matches(pattern: re.Pattern, text: str, start: int, end: int) -> list[Offsets]:
    """The matches of a pattern that covers everything, as offsets."""
    return [match.span() for match in pattern.finditer(text, start, end)]


def word_offsets(text: str, start: int, end: int) -> list[Offsets]:
    """Words with the white space behind them."""
    return matches(WORD, text, start, end)


def finer_pieces(text: str, start: int, end: int, cap: int) -> list[Offsets]:
    """A piece in smaller ones, by the gentlest cut that cuts it at all; a single word in parts of equal length."""
    for cut in (
        lambda: matches(LINE, text, start, end),
        lambda: sentence_offsets(text, start, end),
        lambda: matches(CLAUSE, text, start, end),
        lambda: word_offsets(text, start, end),
    ):
        pieces = cut()
        if len(pieces) > 1:
            return pieces
    step = min(4 * cap, (end - start + 1) // 2)
    return [(cut, min(cut + step, end)) for cut in range(start, end, step)]


def fit(text: str, pieces: Sequence[Offsets], cap: int, counter: TokenCounter) -> list[tuple[Offsets, int]]:
    """The pieces and their sizes, those over the cap cut into finer ones; order and coverage stay.

    A single character that is over the cap (an emoji can be six tokens) stays as it is: nothing can be done.
    """
    longest = CHARACTERS_PER_TOKEN * cap  # longer ones are over the cap, whatever their tokens
    sizes = iter(counter.sizes([text[start:end] for start, end in pieces if end - start <= longest]))
    fitted: list[tuple[Offsets, int]] = []
    for start, end in pieces:
        size = next(sizes) if end - start <= longest else cap + 1
        if size <= cap or end - start == 1:
            fitted.append(((start, end), size))
        else:
            fitted += fit(text, finer_pieces(text, start, end, cap), cap, counter)
    return fitted


# exercise: chunking.pack
def pack(text: str, pieces: Sequence[Offsets], cap: int, overlap: int, counter: TokenCounter) -> list[Offsets]:
    """Consecutive pieces as chunks: each as long as the cap allows, neighbours sharing up to `overlap`.

    Args:
        text: what the offsets refer to.
        pieces: one after the other, without gaps.
        cap: no chunk is larger, as `counter` counts it.
        overlap: a chunk starts with as many of the last chunk's pieces as are together no larger; with fewer where
            the first new piece would not fit behind them.

    Returns:
        The chunks' offsets, in order. Each holds at least one piece that the chunk before does not.
    """
    fitted = fit(text, pieces, cap, counter)
    spans, sizes = [span for span, _ in fitted], [size for _, size in fitted]

    def size(first: int, last: int) -> int:
        """Counted afresh: the tokens of a text are more or fewer than those of its parts together."""
        return counter.size(text[spans[first][0] : spans[last - 1][1]])

    chunks: list[Offsets] = []
    first = new = 0  # the chunk's first piece, and the first piece that no chunk has yet
    ratio = 1.0  # tokens of the last chunk by those of its pieces: a first guess at where the next one ends
    while new < len(spans):
        while first < new and size(first, new + 1) > cap:
            first += 1
        last, total = new + 1, sum(sizes[first : new + 1])
        while last < len(spans) and ratio * (total + sizes[last]) <= cap:
            last, total = last + 1, total + sizes[last]
        while last > new + 1 and size(first, last) > cap:
            last -= 1
        while last < len(spans) and size(first, last + 1) <= cap:
            last += 1
        ratio = size(first, last) / max(1, sum(sizes[first:last]))
        chunks.append((spans[first][0], spans[last - 1][1]))
        first, oldest, new, shared = last, first + 1, last, 0  # what is shared leaves something behind
        while first > oldest and ratio * (shared + sizes[first - 1]) <= overlap:
            first, shared = first - 1, shared + sizes[first - 1]
        while first < last and size(first, last) > overlap:
            first += 1
        while first > oldest and size(first - 1, last) <= overlap:
            first -= 1
    return chunks
# end exercise
