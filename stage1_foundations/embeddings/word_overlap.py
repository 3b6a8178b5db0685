"""Why the winner changes from task to task: how many of the question's words stand in the passage.

SQuAD's questions were written with the paragraph in view, and share its words: BM25 needs no more. An explanation of an
idiom, or a customer's own words, share few: there an encoder finds what a search by words cannot see.
"""

from dataclasses import dataclass

import numpy as np

import data
from stage1_foundations.embeddings.bm25 import Bm25, bm25_words
from stage1_foundations.embeddings.encoders import Encoder
from stage1_foundations.embeddings.mistakes import query_ndcg, ranking_ndcg, texts_of

EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Overlap:
    """One set: every question's overlap with its passage, and every model's nDCG@10 of it, all (queries,)."""

    name: str
    overlap: np.ndarray
    ndcg: dict[str, np.ndarray]


# exercise: embeddings.word_overlap
def word_overlap(query: str, passage: str) -> float:
    """The share of a query's different words that stand in the passage, 0 to 1; 0 for a query without words.

    Words are those of `bm25_words`: lower case, stop words left out, Chinese as characters and pairs of them.
    """
    words = set(bm25_words(query))
    return len(words & set(bm25_words(passage))) / len(words) if words else 0.0
# end exercise


def measure_overlap(chosen: data.RetrievalSet, encoders: list[Encoder]) -> Overlap:
    """Overlaps and scores of a set's questions, BM25 first."""
    questions, texts = texts_of(chosen)
    gold = [chosen.corpus[next(iter(chosen.qrels[query]))] for query in chosen.queries]
    words = Bm25()
    words.fit(list(chosen.corpus), texts)
    scores = {"bm25": ranking_ndcg(chosen, {query: words.rank(text, 10) for query, text in chosen.queries.items()})}
    for encoder in encoders:
        scores[encoder.name] = query_ndcg(chosen, encoder.encode(questions, "query"), encoder.encode(texts, "passage"))
    return Overlap(chosen.name, np.array([word_overlap(*pair) for pair in zip(questions, gold, strict=True)]), scores)


def by_overlap(rows: list[Overlap], model: str) -> list[tuple[float, int]]:
    """Mean nDCG@10 × 100 and number of questions in every band of EDGES, over all sets; NaN for an empty band."""
    overlap = np.concatenate([row.overlap for row in rows])
    values = np.concatenate([row.ndcg[model] for row in rows])
    band = np.clip(np.searchsorted(EDGES, overlap, side="right") - 1, 0, len(EDGES) - 2)
    found = [values[band == number] for number in range(len(EDGES) - 1)]
    return [(100 * float(part.mean()) if len(part) else float("nan"), len(part)) for part in found]
