"""What the agents know besides the shop's database: the help centre, and what other customers wrote about products.

    knowledge = Knowledge.open(settings)
    passages = knowledge.search("How long do I have to send it back?", "en")
    knowledge.confident(passages, question)      False: better say that you do not know

Stage 2's search does the work, over the sections of the articles in the customer's language (help_index.py). Each
passage carries its evidence, the probability that it answers, made of words and of vectors; below a threshold that was
set on half of the labelled questions the agents say that they do not know. evidence.json holds the numbers, and
`knowledge` (knowledge_command.py) measures them. Reviews are English and searched by words; a product that a Chinese
question names is looked up under its English name. What comes out has passed the injection guard: passages are data.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data
from data.help_articles import LANGUAGES, HelpArticle, load_help_articles
from labkit.assets import asset_state
from labkit.errors import LabError
from stage1_foundations.first_rag.words import WordWeights
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.injection_guard import guard
from stage2_rag_finetune_deploy.rag.retriever import Corpus
from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder
from stage3_agents_llmops.agent.help_index import HelpIndex, as_indexed, evidence, sections_by_name
from stage3_agents_llmops.agent.release import ReleaseFolder
from stage3_agents_llmops.agent.text_encoder import load_e5_tokens

KINDS = ("help", "product")
K = 4  # passages that a question is answered from
LONGEST_QUESTION = 600  # characters that are searched for
REVIEWS = "amazon-reviews"
FITTED = Path(__file__).with_name("evidence.json")
_fitted = json.loads(FITTED.read_text(encoding="utf-8"))
VARIANT: str = _fitted["variant"]  # of stage 2's ways to search; README.md has the figures of the others
WEIGHTS: dict[str, list[float]] = _fitted["weights"]  # language -> of the signs in help_index.py
THRESHOLDS: dict[tuple[str, str], float] = {
    (kind, language): value for kind, values in _fitted["thresholds"].items() for language, value in values.items()
}


@dataclass(frozen=True)
class Passage:
    """Something that can be quoted.

    Attributes:
        id: of the article or review, as `en/return-window`; citations name it.
        title: of the article, with the heading of the section; of a review what it is about.
        text: the article or review, without the sentences that gave orders to a model.
        section: of an article, the one that fits the question.
        score: what the list is ordered by; scores of different questions do not compare.
        kind: help or product.
        evidence: 0 to 1, how likely it answers; this does compare.
        removed: the sentences that were taken out.
    """

    id: str
    title: str
    text: str
    score: float
    kind: str
    language: str
    evidence: float = 0.0
    removed: tuple[str, ...] = ()
    section: str = ""


class Knowledge:
    """Search over help centre and reviews. Several threads may use one object.

    Args:
        articles: of the help centre.
        reviews: id -> text; none: product questions find nothing.
        variant: of stage 2's ways to search.
        k: passages that a question is answered from.
        thresholds: (kind, language) -> the least evidence of an answer, where it is not that of THRESHOLDS.
        weights: language -> weights of the signs, where they are not those of WEIGHTS.
        encoder: None: E5, whose vectors of the articles are kept in the course's cache.
    """

    def __init__(
        self, articles: Sequence[HelpArticle], reviews: Mapping[str, str] | None = None, variant: str = VARIANT,
        k: int = K, thresholds: Mapping[tuple[str, str], float] | None = None,
        weights: Mapping[str, list[float]] | None = None, encoder: TokenEncoder | None = None,
    ) -> None:  # fmt: skip
        self.k, self.thresholds = k, THRESHOLDS | dict(thresholds or {})
        self.weights = WEIGHTS | dict(weights or {})
        self._lock = threading.Lock()
        encoder = encoder or load_e5_tokens()
        of_language = {code: [each for each in articles if each.language == code] for code in LANGUAGES}
        self.help = {code: HelpIndex(each, encoder, variant) for code, each in of_language.items() if each}
        self.reviews = ReviewIndex(reviews) if reviews else None

    @classmethod
    def open(cls, settings: Any = None, fetch_reviews: bool = False) -> "Knowledge":
        """The course's help centre and, where they are in the cache, the reviews.

        The first time E5 reads every section, which takes half a minute; after that it takes a second or two.

        Args:
            settings: of the agent; where they name a release, its articles and its way to search.
            fetch_reviews: download the reviews (an archive of 358 MB) where they are not in the cache.
        """
        there = fetch_reviews or asset_state(data.get("squad-shifts")) == "ready"
        reviews = data.load_retrieval(REVIEWS).corpus if there else None
        if not getattr(settings, "release", None):
            return cls(load_help_articles(), reviews)
        release = ReleaseFolder.open(settings.release)
        return cls(release.articles, reviews, **release.search_settings())

    def search(self, question: str, language: str, kind: str = "help", k: int | None = None) -> list[Passage]:
        """The best passages, each article or review once; none for a question without words.

        Raises:
            LabError: an unknown kind or language, or k below 1.
        """
        k = self.k if k is None else k
        if kind not in KINDS or language not in LANGUAGES or k < 1:
            wrong = f"kind {kind!r}, language {language!r}, k {k}"
            raise LabError(f"nothing is known by {wrong}", f"kinds {', '.join(KINDS)}; {', '.join(LANGUAGES)}")
        question = question.strip()[:LONGEST_QUESTION]
        if not re.search(r"\w", question):
            return []
        with self._lock:  # the encoder remembers questions in a dict
            found = self.articles(question, language, k) if kind == "help" else self.opinions(question, k)
            return list(screened(found))

    def articles(self, question: str, language: str, k: int) -> Iterator[Passage]:
        """The k best articles, each with its best section."""
        if language not in self.help:
            return
        for found in self.help[language].search(question, k):
            title = f"{found.article.title} – {found.heading}" if found.heading else found.article.title
            likely = evidence(found.signs, self.weights[language])
            yield Passage(f"{language}/{found.article.id}", title, readable(found.article.text), found.score, "help",
                          language, likely, section=found.text)  # fmt: skip

    def opinions(self, question: str, k: int) -> Iterator[Passage]:
        """The best reviews."""
        return self.reviews.search(question, k) if self.reviews else iter(())

    def confident(self, passages: Sequence[Passage], question: str) -> bool:
        """Whether the first of the passages is likely to answer the question."""
        return any(each.evidence >= self.thresholds[each.kind, each.language] for each in passages[:1])


class ReviewIndex:
    """Reviews by customers, in English, searched by words. Their evidence is the share of the question's key words."""

    def __init__(self, reviews: Mapping[str, str]) -> None:
        corpus = Corpus.from_texts(reviews)
        self.retriever, self.weights = Bm25Retriever(corpus), WordWeights(corpus.texts)

    def search(self, question: str, k: int) -> Iterator[Passage]:
        """Reviews with the question's words, those with most of them first."""
        found = [(self.weights.coverage(question, hit.text), hit) for hit in self.retriever.retrieve(question, k)]
        for covered, hit in sorted(found, key=lambda pair: -pair[0]):
            yield Passage(f"review/{hit.id}", "Customer review", hit.text, hit.score, "product", "en", covered)


def read_articles() -> None:
    """Have E5 read the help centre, where the course's cache does not hold it yet: once, before several processes open
    it."""
    encoder = load_e5_tokens()
    for code in LANGUAGES:
        encoder.passages(list(as_indexed(sections_by_name(load_help_articles(code))).values()))


def readable(text: str) -> str:
    """Markdown without its marks for headings."""
    return re.sub(r"^#+ +", "", text, flags=re.MULTILINE)


def screened(passages: Iterator[Passage]) -> Iterator[Passage]:
    """Passages without the sentences that speak to a model; one with nothing left is left out."""
    for passage in passages:
        checked = guard(passage.text)
        if checked.text.strip():
            yield replace(passage, text=checked.text.strip(), removed=checked.removed)
