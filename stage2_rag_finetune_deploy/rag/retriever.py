"""The interface of the first stage: a query in, the best passages out.

    corpus = Corpus.from_texts({"p1": "Boots may be returned ...", "p2": "..."}, {"p1": {"kind": "faq"}, "p2": {}})
    hits = retriever.retrieve("can I send boots back?", k=10, filter=Eq("kind", "faq"))
    hits[0].id, hits[0].score, hits[0].text, hits[0].scores     # scores: what each part said

Everything after the first stage (fusion, reranking, rewriting) takes hits and gives hits, so parts can be exchanged
and put on top of one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db.filters import Filter, evaluate


@dataclass(frozen=True)
class Hit:
    """A passage that was found.

    Attributes:
        id: of the passage.
        score: what the list is ordered by, larger is better. Scores of different queries or parts do not compare.
        text: of the passage.
        metadata: of the passage.
        scores: what each part said about it, by the part's name.
    """

    id: str
    score: float
    text: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    def scored(self, name: str, score: float) -> "Hit":
        """The same passage with a new score, which is also noted under the part's name."""
        return replace(self, score=score, scores={**self.scores, name: score})


class Retriever(Protocol):
    """Finds passages."""

    name: str

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """The best `k` passages that pass the filter, best first, each once; fewer where there are fewer.

        Args:
            query: any text; one that says nothing (no words) may find nothing.
            k: at least 1.
            filter: on the metadata, applied before the best `k` are taken.
        """
        ...


@dataclass(frozen=True)
class Corpus:
    """Passages in memory: `ids[row]`, `texts[row]`, `metadata[row]`."""

    ids: Sequence[str]
    texts: Sequence[str]
    metadata: Sequence[Mapping[str, object]]

    @classmethod
    def from_texts(
        cls, texts: Mapping[str, str], metadata: Mapping[str, Mapping[str, object]] | None = None
    ) -> "Corpus":
        """A corpus from passage id -> text, and perhaps passage id -> metadata.

        Raises:
            LabError: there are no passages.
        """
        if not texts:
            raise LabError("the corpus is empty", "a corpus with at least one passage")
        return cls(list(texts), list(texts.values()), [(metadata or {}).get(name, {}) for name in texts])

    def __len__(self) -> int:
        return len(self.ids)

    def allowed(self, filter: Filter | None) -> np.ndarray | None:
        """Which rows pass, bool (N,); None when all do.

        Raises:
            LabError: the filter asks for a field that a passage does not have.
        """
        if filter is None:
            return None
        try:
            return np.array([evaluate(filter, fields) for fields in self.metadata], bool)
        except KeyError as error:
            raise LabError(f"the filter asks for {error}, which not every passage has", "a field of all") from None

    def best(
        self, name: str, scores: np.ndarray, k: int, filter: Filter | None, floor: float = -np.inf
    ) -> list[Hit]:
        """The `k` rows of largest score as hits; equal scores in the order of the corpus.

        Args:
            name: of the part that scored.
            scores: (N,).
            floor: rows that do not score above it are left out.

        Raises:
            LabError: k is below 1.
        """
        if k < 1:
            raise LabError(f"k is {k}", "k of 1 or more")
        keep = scores > floor
        allowed = self.allowed(filter)
        rows = np.flatnonzero(keep if allowed is None else keep & allowed)
        order = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return [
            Hit(self.ids[row], float(scores[row]), self.texts[row], self.metadata[row], {name: float(scores[row])})
            for row in order
        ]
