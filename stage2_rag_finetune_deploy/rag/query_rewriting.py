"""Rewriting the query before it is searched: three ways, each for another fault of queries.

| rewriter | fault | cost |
|---|---|---|
| `SpellingRewriter` | a word with a typo matches nothing | microseconds |
| `Rm3Retriever` | the query says it in other words than the passage | a second search |
| `HypotheticalAnswer` | a question does not look like its answer (HyDE) | a language model writes |

None of them is free of harm: each changes queries that were fine. README.md has what they do to clean questions and
to questions with typos.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from stage1_foundations.embeddings.bm25 import STOPPED
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever, stems
from stage2_rag_finetune_deploy.rag.retriever import Hit, Retriever
from stage2_rag_finetune_deploy.vector_db.filters import Filter

LETTERS = re.compile(r"[^\W\d_]+")
SHORTEST = 5  # letters of a word that is worth correcting


class Rewriter(Protocol):
    """A query in, the query to search with out."""

    name: str

    def rewrite(self, query: str) -> str:
        """The better query; the same text when there is nothing to change."""
        ...


def nearest_word(word: str, counts: Mapping[str, int]) -> str:
    """The known word one edit away that is most frequent; the word itself when it is known, or none is near.

    An edit deletes a letter, swaps two neighbours, replaces a letter, or inserts one (Damerau 1964; Norvig 2007).

    Args:
        word: lower case.
        counts: known word -> how often the corpus has it, above 0.
    """
    if word in counts:
        return word
    cuts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    edits = {left + right[1:] for left, right in cuts if right}
    edits |= {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    edits |= {left + letter + right[1:] for left, right in cuts if right for letter in string.ascii_lowercase}
    edits |= {left + letter + right for left, right in cuts for letter in string.ascii_lowercase}
    return max(sorted(edits & counts.keys()), key=lambda edit: counts[edit], default=word)


class SpellingRewriter:
    """Corrects words that the corpus does not know to words that it does.

    Args:
        texts: of the corpus; its words are the dictionary, so names of the domain are right by definition.
    """

    name = "spelling"

    def __init__(self, texts: Iterable[str]) -> None:
        self._counts = Counter(word for text in texts for word in LETTERS.findall(text.lower()))

    def rewrite(self, query: str) -> str:
        """See `Rewriter`. Short words, words with capitals inside, and other scripts stay."""

        def correct(match: re.Match) -> str:
            word = match[0]
            if len(word) < SHORTEST or not word.isascii() or word.lower() in STOPPED or not word[1:].islower():
                return word
            found = nearest_word(word.lower(), self._counts)
            return word if found == word.lower() else found

        return LETTERS.sub(correct, query)


class HypotheticalAnswer:
    """HyDE (Gao et al. 2023): search with the question and with an answer that a language model makes up.

    Args:
        write: question -> made-up answer. It may be wrong: only its words and its direction are used.
    """

    name = "hyde"

    def __init__(self, write: Callable[[str], str]) -> None:
        self._write = write

    def rewrite(self, query: str) -> str:
        """See `Rewriter`."""
        return f"{query} {self._write(query)}".strip()


class RewritingRetriever:
    """A retriever that gets the rewritten query: itself a retriever."""

    def __init__(self, retriever: Retriever, rewriter: Rewriter) -> None:
        self.retriever, self.rewriter = retriever, rewriter
        self.name = f"{rewriter.name} > {retriever.name}"

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`."""
        return self.retriever.retrieve(self.rewriter.rewrite(query), k, filter)


# exercise: rag.expansion_terms
def expansion_terms(passages: list[list[str]], scores: np.ndarray, count: int) -> dict[str, float]:
    """The relevance model RM1 (Lavrenko and Croft 2001): which words the found passages agree on.

    P(word) = sum over passages of P(word | passage) * P(passage), where P(word | passage) is its share of the
    passage's words and P(passage) the share of the passage's score in the sum of scores.

    Args:
        passages: the words of each found passage.
        scores: (N,) above 0.
        count: how many words are kept, the most probable ones.

    Returns:
        word -> weight; the weights sum to 1.
    """
    weights: Counter[str] = Counter()
    for words, share in zip(passages, scores / scores.sum(), strict=True):
        for word, times in Counter(words).items():
            weights[word] += share * times / len(words)
    best = sorted(weights, key=lambda word: (-weights[word], word))[:count]
    total = sum(weights[word] for word in best)
    return {word: weights[word] / total for word in best}


# end exercise


class Rm3Retriever:
    """BM25 twice: the second time with words of what the first time found (RM3, Abdul-Jaleel et al. 2004).

    Args:
        bm25: the search.
        passages: how many of the first search are believed.
        words: how many of their words are added.
        weight: of the original query against the added words.
    """

    name = "rm3"

    def __init__(self, bm25: Bm25Retriever, passages: int = 5, words: int = 10, weight: float = 0.8) -> None:
        self.bm25, self.passages, self.words, self.weight = bm25, passages, words, weight

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`."""
        asked = stems(query, self.bm25.language)
        found = self.bm25.retrieve(query, self.passages, filter)
        if not found:
            return []
        texts = [stems(hit.text, self.bm25.language) for hit in found]
        added = expansion_terms(texts, np.array([hit.score for hit in found]), self.words)
        mixed: Counter[str] = Counter()
        for word in asked:
            mixed[word] += self.weight / len(asked)
        for word, weight in added.items():
            mixed[word] += (1 - self.weight) * weight
        scores = self.bm25.scores(list(mixed), np.array(list(mixed.values())))
        return self.bm25.corpus.best(self.name, scores, k, filter, floor=0.0)
