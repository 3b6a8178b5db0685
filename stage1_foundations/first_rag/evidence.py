"""Is there evidence? A gate before the answer, a check after it, and how the gate's threshold is found.

A retriever always returns its top k, also for a question that the corpus knows nothing about. The gate measures how
well the best node fits the question, and below a threshold lets nothing through; the synthesizer then has no nodes and
says so instead of inventing.
"""

from collections.abc import Sequence

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from stage1_foundations.first_rag.words import WordWeights

NO_EVIDENCE = "No evidence: the documents do not seem to answer this."
# by encoder, since E5's cosines all lie between 0.75 and 0.95; found on questions about Python's manual and about a
# Chinese one (NOTES.md), never on SQuAD, which is for evaluation only
THRESHOLDS = {"minilm": 0.45, "e5": 0.6}
OTHER_ENCODERS = 0.45


def default_threshold(encoder: str) -> float:
    """Least evidence that counts with this encoder, for documents that nobody has calibrated on."""
    return THRESHOLDS.get(encoder, OTHER_ENCODERS)


def evidence(question: str, nodes: Sequence[NodeWithScore], weights: WordWeights) -> float:
    """How well the best node fits: the mean of its cosine and its coverage of the question, the largest of all nodes.

    The cosine knows meaning, the coverage knows names and numbers; each alone is fooled more often (NOTES.md).

    Returns:
        0 to 1; 0 without nodes, and where all that there is points the other way.
    """
    fits = [((item.score or 0.0) + weights.coverage(question, item.node.get_content())) / 2 for item in nodes]
    return max(0.0, *fits) if fits else 0.0


class EvidenceGate(BaseNodePostprocessor):
    """A node postprocessor that drops all nodes when the best of them does not fit the question.

    Args:
        weights: word weights of the corpus.
        threshold: least evidence that counts; from `calibrate`.
    """

    threshold: float
    _weights: WordWeights = PrivateAttr()
    _latest: float = PrivateAttr(default=0.0)

    def __init__(self, weights: WordWeights, threshold: float) -> None:
        super().__init__(threshold=threshold)
        self._weights = weights

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            return nodes
        self._latest = evidence(query_bundle.query_str, nodes, self._weights)
        return nodes if self._latest >= self.threshold else []

    @property
    def latest(self) -> float:
        """The evidence for the latest question, also when nothing came through."""
        return self._latest

    @classmethod
    def class_name(cls) -> str:
        """Name in traces."""
        return "EvidenceGate"


# exercise: first_rag.calibrate
def calibrate(answerable: Sequence[float], unanswerable: Sequence[float]) -> float:
    """The threshold with the best balanced accuracy: (share of answerable kept + share of unanswerable refused) / 2.

    A question is kept when its evidence is at least the threshold. Candidates lie halfway between neighbouring
    values, so that the same questions are decided the same way after rounding.

    Args:
        answerable: evidence of questions whose answer is in the corpus.
        unanswerable: evidence of questions whose answer is not.
    """
    positive, negative = np.sort(np.asarray(answerable)), np.sort(np.asarray(unanswerable))
    values = np.unique(np.concatenate([positive, negative]))
    candidates = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-6]])
    kept = 1 - np.searchsorted(positive, candidates) / len(positive)
    refused = np.searchsorted(negative, candidates) / len(negative)
    return float(candidates[np.argmax(kept + refused)])


# end exercise


def grounded(answer: str, texts: Sequence[str], weights: WordWeights, least: float = 0.6) -> int | None:
    """The text that holds most of an answer's words, if it holds enough of them; else None: the answer is made up.

    A check on words, not on meaning: it catches invented names and numbers, not a "not" too many.

    Returns:
        The position of the text, or None.
    """
    shares = [weights.coverage(answer, text) for text in texts]
    best = int(np.argmax(shares)) if shares else -1
    return best if shares and shares[best] >= least else None
