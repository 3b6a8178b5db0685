"""The parts put together: retrieve, rerank, is there evidence?, answer with citations."""

from collections.abc import Iterator
from typing import Any, Protocol

from labkit.errors import LabError
from stage1_foundations.first_rag.words import WordWeights, split_words
from stage2_rag_finetune_deploy.rag.answering import (
    Answer,
    ExtractiveAnswerer,
    Passage,
    WritingAnswerer,
    answer_events,
)

LONGEST_QUESTION = 2_000  # characters
SHOWN = 5  # passages that the answerer reads


class Search(Protocol):
    """Finds passages: the best first, each document once."""

    def search(self, question: str, k: int, where: dict[str, str] | None = None) -> list[Passage]: ...


class Rag:
    """A question in, passages or an answer out.

    Args:
        search: retrieval and reranking.
        weights: word weights of the corpus, for the evidence.
        answerer: writes the answer.
        threshold: evidence below it is a refusal.
        facts: what /health shows.
    """

    def __init__(
        self, search: Search, weights: WordWeights, answerer: ExtractiveAnswerer | WritingAnswerer, threshold: float,
        facts: dict[str, Any],
    ) -> None:  # fmt: skip
        self.searcher, self.weights, self.answerer = search, weights, answerer
        self.threshold, self.facts = threshold, facts

    def retrieve(self, question: str, k: int = 10, where: dict[str, str] | None = None) -> list[Passage]:
        """The k best passages.

        Raises:
            LabError: a question without words, or one that is too long.
        """
        return self.searcher.search(check_question(question), k, where)

    def evidence(self, question: str, passages: list[Passage]) -> float:
        """How well the passages fit: the largest share of the question's key words that one of them has."""
        return max((self.weights.coverage(question, passage.text) for passage in passages), default=0.0)

    def events(self, question: str, where: dict[str, str] | None = None) -> Iterator[list[Passage] | str | Answer]:
        """The passages, pieces of the answer, the answer."""
        passages = self.retrieve(question, SHOWN, where)
        yield passages
        strength = self.evidence(question, passages)
        yield from answer_events(question, passages, strength, self.threshold, self.answerer)

    def ask(self, question: str, where: dict[str, str] | None = None) -> Answer:
        """The answer. Raises LabError as `retrieve` does."""
        return [event for event in self.events(question, where) if isinstance(event, Answer)][-1]


def check_question(question: str) -> str:
    """The question without white space around it. Raises LabError when it cannot be answered as it is."""
    question = question.strip()
    if not split_words(question):
        raise LabError("the question has no words", 'ask "When do I get my money back?"')
    if len(question) > LONGEST_QUESTION:
        message = f"the question has {len(question):,} characters, {LONGEST_QUESTION:,} are the limit"
        raise LabError(message, "a shorter question")
    return question
