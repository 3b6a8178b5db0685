"""Semantic: cut an article where the meaning jumps from one sentence to the next.

The distance between two neighbouring sentences is one minus the cosine of their vectors. The largest distances of a
document, those above a percentile, are its cuts: LlamaIndex's SemanticSplitterNodeParser, which has no cap; groups
over the cap are packed like sentences. Every sentence is embedded just to find the cuts: that is the price.
"""

import numpy as np
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode

from stage1_foundations.embeddings.encoders import Encoder, load_encoder
from stage2_rag_finetune_deploy.chunking.packing import fit
from stage2_rag_finetune_deploy.chunking.sentences import sentence_offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser


class EmbeddingParser(SpanParser):
    """A chunker that looks at vectors.

    Args:
        encoder: of the embeddings lab; its cache keeps the vectors.
    """

    encoder: Encoder = Field(default_factory=lambda: load_encoder("minilm"), exclude=True)


class SemanticParser(EmbeddingParser):
    """Groups of sentences between the largest jumps.

    Args:
        percentile: distances above this percentile of the document's distances are cuts.
        neighbours: sentences on each side whose vectors are averaged into a sentence's own, against noise.
    """

    percentile: float = Field(default=80.0, gt=0, lt=100)
    neighbours: int = Field(default=1, ge=0)

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        pieces = [piece for piece, _ in fit(text, sentence_offsets(text), self.cap, self.counter)]
        if not pieces:
            return []
        vectors = self.encoder.encode([text[start:end].strip() for start, end in pieces], "symmetric")
        cuts = [0, *breakpoints(distances(vectors, self.neighbours), self.percentile), len(pieces)]
        groups = [pieces[first:last] for first, last in zip(cuts, cuts[1:], strict=False)]
        return [Span(*span) for group in groups for span in self.packed(text, group)]


def distances(vectors: np.ndarray, neighbours: int) -> np.ndarray:
    """One minus the cosine of every two neighbouring sentences, each first averaged with its neighbours.

    Args:
        vectors: (N, D) of the sentences, in order.
        neighbours: how many on each side are averaged in (fewer at the ends); 0: none.

    Returns:
        (N - 1,): entry i is between sentence i and i + 1.
    """
    count = len(vectors)
    smooth = np.stack([vectors[max(0, i - neighbours) : i + neighbours + 1].mean(axis=0) for i in range(count)])
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-12)
    return 1 - (smooth[:-1] * smooth[1:]).sum(axis=1)


def breakpoints(jumps: np.ndarray, percentile: float) -> list[int]:
    """The sentences that begin a group: those behind a jump above the percentile."""
    if not len(jumps):
        return []
    return [int(i) + 1 for i in np.flatnonzero(jumps > np.percentile(jumps, percentile))]
