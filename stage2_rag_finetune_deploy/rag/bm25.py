"""BM25 with stemming: the words of the query, rare ones more (Robertson and Zaragoza 2009, equation 3.15).

What stage 1's BM25 did not have: words are reduced to their stem by Snowball (Porter 2001), so that "opened" finds
"opening". On questions about passages it is worth more than any choice of k1 and b (NOTES.md).
"""

from functools import cache

import bm25s
import numpy as np
import Stemmer

from stage1_foundations.embeddings.bm25 import bm25_words
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Hit
from stage2_rag_finetune_deploy.vector_db.filters import Filter

K1, B = 1.5, 0.75


@cache
def stemmer(language: str) -> Stemmer.Stemmer:
    """Snowball's stemmer; it keeps a cache of words itself, so there is one a language."""
    return Stemmer.Stemmer(language)


def stems(text: str, language: str = "english") -> list[str]:
    """The stems of a text without stop words, lower case; Chinese as characters and pairs of them."""
    return stemmer(language).stemWords(bm25_words(text))


class Bm25Retriever:
    """Search by words, in memory.

    Args:
        corpus: the passages.
        k1: how soon a repeated word stops counting. b: how much long passages are held back, 0 to 1.
        language: of Snowball: english, german, swedish, ...; words of other scripts are left as they are.
    """

    name = "bm25"

    def __init__(self, corpus: Corpus, k1: float = K1, b: float = B, language: str = "english") -> None:
        self.corpus, self.language = corpus, language
        words = [stems(text, language) for text in corpus.texts]
        self._index = bm25s.BM25(k1=k1, b=b)
        self._index.index(words if any(words) else [["-"], *words[1:]], show_progress=False)  # it refuses no words

    @property
    def vocabulary(self) -> dict[str, int]:
        """Stem -> number, of all stems of the corpus."""
        return self._index.vocab_dict

    def scores(self, words: list[str], weights: np.ndarray | None = None) -> np.ndarray:
        """BM25 of every passage for stemmed words, (N,); words that the corpus does not have count nothing.

        Args:
            words: a word may occur twice, and then counts twice.
            weights: of each word; by default 1.
        """
        known = [place for place, word in enumerate(words) if word in self.vocabulary]
        if not known:
            return np.zeros(len(self.corpus), np.float32)
        chosen = [words[place] for place in known]
        if weights is None:
            return self._index.get_scores(chosen)
        return sum(float(weights[place]) * self._index.get_scores([words[place]]) for place in known)

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`. Passages without a word of the query are left out."""
        return self.corpus.best(self.name, self.scores(stems(query, self.language)), k, filter, floor=0.0)
