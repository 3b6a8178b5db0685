"""The lexical half of hybrid search: one way to cut words for all stores, and BM25 for those that have none.

Every store's own analyser cuts words in its own way, and most of them take a Chinese sentence for one word. Here the
words are cut before they reach the store (Chinese in pairs of characters, as Lucene's CJK analyser does it), so the
stores' BM25 rank alike.
"""

import re
from collections.abc import Collection, Sequence

import bm25s
import numpy as np

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{CJK}]+|[^\W{CJK}]+")
PLURAL = re.compile(r"[a-z]{2,}[a-rt-z]s")


def cut_terms(text: str) -> list[str]:
    """Terms in lower case: words without the s of a plural, and overlapping pairs of Chinese characters."""
    terms = []
    for run in WORD.findall(text.lower()):
        if re.match(f"[{CJK}]", run):
            terms += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
        else:
            terms.append(run[:-1] if PLURAL.fullmatch(run) else run)
    return terms


class LexicalIndex:
    """BM25 (bm25s, Lucene's variant) over texts held in memory. Built once: it cannot grow.

    Args:
        ids: names of the texts, in the texts' order.
    """

    def __init__(self, ids: Sequence, texts: Sequence[str]) -> None:
        self.ids = list(ids)
        terms = [cut_terms(text) for text in texts]
        self._bm25 = bm25s.BM25() if any(terms) else None
        if self._bm25:
            self._bm25.index(terms, show_progress=False)

    def search(self, query: str, k: int, allowed: Collection | None = None) -> list[tuple[object, float]]:
        """The k best texts that share a term with the query, as (id, score); only `allowed` ids if given."""
        known = self._bm25.vocab_dict if self._bm25 else {}
        terms = [term for term in cut_terms(query) if term in known]
        if not terms:
            return []
        scores = self._bm25.get_scores(terms)  # (N,)
        order = np.argsort(-scores, kind="stable")[: int((scores > 0).sum())]
        found = ((self.ids[i], float(scores[i])) for i in order)
        keep = ((name, score) for name, score in found if allowed is None or name in allowed)
        return [pair for _, pair in zip(range(k), keep, strict=False)]
