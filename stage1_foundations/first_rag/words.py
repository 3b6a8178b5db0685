"""Words, sentences, and how much of a question a text covers.

The evidence gate and the extractive synthesizer rest on one measure: the share of a question's words, each weighted
by its rarity, that a text contains. Rare words carry a question ("Who led the Huguenot colony?" is about *Huguenot*).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

# a Chinese character is a word of its own; elsewhere a word is a run of letters and digits
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
PLURAL = re.compile(r"[a-z]{2,}[a-rt-z]s")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z\"'(\[0-9])|(?<=[。！？；])(?=.)|\n\s*\n")
FULL_STOP = re.compile(r"[.!?。！？][\"')\]”’]*$")
# words of asking, not of what is asked about: a manual has no "how" and no "do I"
ASKING = (
    "what which who whom whose when where why how much many do does did is are was were be been being has have had can "
    "could will would shall should may might must i you we he she it they me my your the a an of in to for on at "
    "by with from as and or not that this these those its 什 么 吗 呢 的 了 是 怎 样 哪 谁 几"
)


def split_words(text: str) -> list[str]:
    """Words in lower case, without punctuation and without the s of a plural."""
    return [word[:-1] if PLURAL.fullmatch(word) else word for word in WORD.findall(text.lower())]


STOP_WORDS = frozenset(split_words(ASKING))


def cut_sentences(text: str) -> list[str]:
    """The text in pieces, each a sentence with the space after it: put together they are the text again.

    A blank line ends a sentence, too. LlamaIndex's own cutter is NLTK's, whose import alone takes seconds.
    """
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [piece for piece in pieces if piece]


def split_sentences(text: str) -> list[str]:
    """Sentences with single spaces inside."""
    return [" ".join(piece.split()) for piece in cut_sentences(text) if WORD.search(piece)]


def key_words(question: str) -> set[str]:
    """The distinct words of a question that say what it is about; all of them when nothing else is left."""
    words = set(split_words(question))
    return words - STOP_WORDS or words


class WordWeights:
    """Inverse document frequency over a corpus: ln(1 + (N - n + 0.5) / (n + 0.5)).

    BM25's weight (Robertson and Zaragoza 2009, section 3.1), with 1 added so that it stays positive.

    Args:
        texts: the corpus. With an empty one all words weigh the same.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        documents = [set(split_words(text)) for text in texts]
        self.size = len(documents)
        self.frequency = Counter(word for words in documents for word in words)

    def weight(self, word: str) -> float:
        """Weight of a word, above 0; a word that no text has weighs most."""
        found = self.frequency[word]
        return math.log(1 + (self.size - found + 0.5) / (found + 0.5))

    # exercise: first_rag.coverage
    def coverage(self, question: str, text: str) -> float:
        """Share of the weight of the question's key words that the text contains: 0 (no word) to 1 (every word).

        Each distinct word counts once. A question without words has coverage 0.
        """
        wanted = key_words(question)
        total = sum(map(self.weight, wanted))
        return sum(map(self.weight, wanted & set(split_words(text)))) / total if total else 0.0

    # end exercise


# exercise: first_rag.best_sentence
def best_sentence(question: str, texts: Sequence[str], weights: WordWeights) -> tuple[int, str]:
    """The sentence of the texts that covers most of the question.

    Of equal sentences the one in the earlier text wins, then the earlier one: the retriever's order is a verdict, too.
    Headings and other pieces without an end mark count only where there is nothing else.

    Returns:
        The text's position and the sentence; (0, "") when no text has a sentence.
    """
    pieces = [(position, piece) for position, text in enumerate(texts) for piece in split_sentences(text)]
    sentences = [(position, piece) for position, piece in pieces if FULL_STOP.search(piece)] or pieces
    if not sentences:
        return 0, ""
    return max(sentences, key=lambda item: weights.coverage(question, item[1]))  # the first of the largest


# end exercise
