"""The help centre's articles of one language: which of them answers a question, and how likely is it that it does?

A section answers a question; what it is about often stands only in the article's title. So an article's place is a
sum of three standardised scores: its best section's (stage 2's search), its words' as a whole (BM25), and its title's
(cosine). Whether to say it aloud is another question, and needs a number that compares between questions. Three signs
are looked at, and logistic regression makes one probability of them, fitted on half of the labelled questions
(knowledge_command.py):

    near     cosine of the question and the nearest 16 tokens of the section
    words    share of the question's key words that stand in the article, rare ones more
    lead     how far the article's score is ahead of the best other one
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np

from data.help_articles import HelpArticle
from stage1_foundations.first_rag.words import WordWeights
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.dense import DenseRetriever
from stage2_rag_finetune_deploy.rag.hybrid import fuse_scores
from stage2_rag_finetune_deploy.rag.retriever import Corpus
from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder
from stage2_rag_finetune_deploy.rag.variants import Parts, make_variant

SHARES = (0.6, 0.2, 0.2)  # of section, words and title in an article's score
DEPTH = 30  # sections that are compared: what a reranker of stage 2 looks at
HEADING = re.compile(r"^## +(.+?)\s*$", re.MULTILINE)
SIGNS = ("near", "words", "lead")


@dataclass(frozen=True)
class Found:
    """An article, the section of it that fits best, and the signs that it answers."""

    article: HelpArticle
    heading: str
    text: str
    score: float
    signs: tuple[float, float, float]


class HelpIndex:
    """Search over the articles of one language.

    Args:
        articles: at least one; all of one language.
        encoder: of token vectors; it keeps the sections' on disk.
        variant: of stage 2's ways to search sections.
    """

    def __init__(self, articles: Sequence[HelpArticle], encoder: TokenEncoder, variant: str) -> None:
        self.articles = {article.id: article for article in articles}
        self.sections = sections_by_name(articles)
        parts = Parts(Corpus.from_texts(as_indexed(self.sections)), encoder)
        self.retriever, self.windows = make_variant(variant, parts), parts.windows
        whole = Corpus.from_texts({article.id: f"{article.title}\n{article.text}" for article in articles})
        self.words, self.weights = Bm25Retriever(whole), WordWeights(whole.texts)
        self.titles = DenseRetriever(Corpus.from_texts({each.id: each.title for each in articles}), encoder, window=0)

    def search(self, question: str, k: int) -> Iterator[Found]:
        """The `k` best articles, best first."""
        nearness = dict(zip(self.sections, self.windows.scores(question), strict=True))
        best = self.best_sections(question, nearness)
        scores = self.article_scores(question, best)
        order = sorted(scores, key=lambda name: -scores[name])
        for name in order[:k]:
            article, heading, text = self.sections[best[name][0]]
            others = max((scores[other] for other in order[:2] if other != name), default=scores[name])
            signs = (float(nearness[best[name][0]]), self.coverage(question, article), scores[name] - others)
            yield Found(article, heading, text, scores[name], signs)

    def best_sections(self, question: str, nearness: dict[str, float]) -> dict[str, tuple[str, float | None]]:
        """Article -> its best section and the score of that; None where the search found none of the article's."""
        best: dict[str, tuple[str, float | None]] = {}
        for hit in self.retriever.retrieve(question, DEPTH):
            best.setdefault(self.sections[hit.id][0].id, (hit.id, hit.score))
        for name in sorted(nearness, key=lambda name: -nearness[name]):
            best.setdefault(self.sections[name][0].id, (name, None))
        return best

    def article_scores(self, question: str, best: dict[str, tuple[str, float | None]]) -> dict[str, float]:
        """Article -> the sum that orders them."""
        sections = {name: score for name, (_, score) in best.items() if score is not None}
        words = {hit.id: hit.score for hit in self.words.retrieve(question, len(self.articles))}
        titles = {hit.id: hit.score for hit in self.titles.retrieve(question, len(self.articles))}
        return fuse_scores([sections, words, titles], SHARES)

    def coverage(self, question: str, article: HelpArticle) -> float:
        """The sign `words`."""
        return self.weights.coverage(question, f"{article.title}\n{article.text}")


def evidence(signs: Sequence[float], weights: Sequence[float]) -> float:
    """How likely it is that an article with these signs answers the question, 0 to 1: logistic regression.

    1 / (1 + e^-z) with z the sum of each sign times its weight, and the last weight, which stands alone.

    Args:
        signs: near, words, lead.
        weights: one for each sign, and the constant.
    """
    z = sum(sign * weight for sign, weight in zip(signs, weights[:-1], strict=True)) + weights[-1]
    return 1 / (1 + exp(-z)) if z >= 0 else exp(z) / (1 + exp(z))


def fit_weights(signs: np.ndarray, right: Sequence[bool]) -> list[float]:
    """Weights of `evidence` from questions.

    Args:
        signs: (N, 3) of the first article of each question.
        right: whether it is the one that answers; False, too, where none does.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = signs.mean(axis=0), signs.std(axis=0) + 1e-9  # one strength of regularisation for all three
    head = LogisticRegression(C=1.0).fit((signs - mean) / spread, list(right))
    slopes = head.coef_[0] / spread
    return [round(float(weight), 3) for weight in [*slopes, head.intercept_[0] - slopes @ mean]]


def sections_by_name(articles: Sequence[HelpArticle]) -> dict[str, tuple[HelpArticle, str, str]]:
    """Every section under a name of its own: article, heading, text."""
    return {
        f"{article.id}#{place}": (article, heading, text)
        for article in articles
        for place, (heading, text) in enumerate(sections_of(article.text))
    }


def as_indexed(sections: Mapping[str, tuple[HelpArticle, str, str]]) -> dict[str, str]:
    """Name -> what the encoder reads of a section."""
    return {name: as_read(*section) for name, section in sections.items()}


def as_read(article: HelpArticle, heading: str, text: str) -> str:
    """A section as it is indexed: under its headings, without which "It is free." says nothing."""
    return f"{article.title}. {heading}\n{text}"


def sections_of(text: str) -> list[tuple[str, str]]:
    """(heading, text) of an article. What stands before the first heading introduces, and says little by itself: it
    goes with the first section."""
    lead, *rest = HEADING.split(text)
    parts = [[heading, body.strip()] for heading, body in zip(rest[::2], rest[1::2], strict=True)] or [["", ""]]
    parts[0][1] = f"{lead.strip()}\n\n{parts[0][1]}".strip()
    return [(heading, body) for heading, body in parts if body]
