"""By topic: cut a meeting where what is said before and what is said after have little in common.

TextTiling (Hearst 1997) with vectors in place of word counts. At every gap between two turns the block before it is
compared with the block behind it. A change of topic is a valley in that curve; its depth is measured from the peaks
on both sides, so that a meeting that is dull throughout is not cut everywhere.
"""

import numpy as np
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode

from stage2_rag_finetune_deploy.chunking.packing import fit, pack
from stage2_rag_finetune_deploy.chunking.semantic import EmbeddingParser
from stage2_rag_finetune_deploy.chunking.sentences import sentence_offsets
from stage2_rag_finetune_deploy.chunking.spans import Span
from stage2_rag_finetune_deploy.chunking.speaker import TurnParser
from stage2_rag_finetune_deploy.chunking.transcript import Script, is_transcript

TOPIC = "topic"


class TopicParser(EmbeddingParser, TurnParser):
    """Chunks that do not reach over a change of topic; a topic over the cap is cut between turns.

    In a text without speakers, sentences take the place of turns. The number of the topic goes into the metadata.

    Args:
        block: turns on each side of a gap that are compared.
        depth: a valley is a change of topic when it is deeper than the mean depth plus so many standard deviations.
    """

    block: int = Field(default=12, ge=1)
    depth: float = Field(default=1.0)

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        if is_transcript(text):
            script = Script(text)
            pieces, sizes, room = self.turn_pieces(script, script.turns)
            text = script.text
        else:
            fitted = fit(text, sentence_offsets(text), self.cap, self.counter)
            script, pieces, sizes, room = None, [p for p, _ in fitted], [size for _, size in fitted], self.cap
        spans = []
        for number, (first, last) in enumerate(self.topics(text, pieces, sizes)):
            for start, end in pack(text, pieces[first:last], room, min(self.overlap, room // 2), self.counter):
                span = self.span(script, start, end) if script else Span(start, end)
                spans.append(Span(span.start, span.end, {**span.metadata, TOPIC: number}, span.text))
        return spans

    def topics(self, text: str, pieces: list[tuple[int, int]], sizes: list[int]) -> list[tuple[int, int]]:
        """(first, last + 1) of the pieces of each topic."""
        if not pieces:
            return []
        vectors = self.encoder.encode([text[start:end].strip() for start, end in pieces], "symmetric")
        cuts = topic_shifts(vectors, np.array(sizes, np.float32), self.block, self.depth)
        borders = [0, *cuts, len(pieces)]
        return list(zip(borders, borders[1:], strict=False))


def cohesion(vectors: np.ndarray, weights: np.ndarray, block: int) -> np.ndarray:
    """How much the blocks on both sides of every gap have in common: cosines, (N - 1,).

    Args:
        vectors: (N, D) of the turns.
        weights: (N,) their sizes: "Yes." should not count as much as a speech.
    """
    weighted = vectors * np.maximum(weights, 1)[:, None]
    curve = []
    for gap in range(1, len(vectors)):
        before, after = weighted[max(0, gap - block) : gap].sum(0), weighted[gap : gap + block].sum(0)
        curve.append(before @ after / max(np.linalg.norm(before) * np.linalg.norm(after), 1e-12))
    return np.array(curve, np.float32)


# exercise: chunking.valley_depths
def valley_depths(curve: np.ndarray) -> np.ndarray:
    """How deep each point lies below the peaks on both sides: (peak left - point) + (peak right - point).

    A peak is found by walking away from the point as long as the curve does not fall (Hearst 1997, section 4.3). A
    point that is not lower than one of its neighbours has depth 0 on that side.
    """
    depths = np.zeros_like(curve)
    for point, low in enumerate(curve):
        for side in (-1, 1):
            peak, position = low, point + side
            while 0 <= position < len(curve) and curve[position] >= peak:
                peak, position = curve[position], position + side
            depths[point] += peak - low
    return depths
# end exercise


def topic_shifts(vectors: np.ndarray, weights: np.ndarray, block: int, depth: float) -> list[int]:
    """The turns that begin a new topic: behind gaps that are the bottom of a valley, and a deep one."""
    curve = cohesion(vectors, weights, block)
    depths = valley_depths(curve)
    if not len(depths) or depths.max() <= 0:
        return []
    needed = depths.mean() + depth * depths.std()
    lowest = [
        gap for gap in range(len(curve))
        if curve[gap] <= curve[max(0, gap - 1) : gap + 2].min() and depths[gap] > needed
    ]  # fmt: skip
    return [gap + 1 for gap in lowest]
