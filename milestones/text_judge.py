"""Month 1's measures of texts, whoever wrote them: a learner's model, a negative control, Shakespeare."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from milestones.control_texts import shuffled_text
from milestones.independent_model import IndependentModel, on_scale
from milestones.learner_model import LearnerFault
from milestones.reference_corpus import ReferenceCorpus
from milestones.text_coherence import distinct_share, known_share
from milestones.verbatim_copy import Copy, VerbatimIndex

FLAT = 0.2  # bits per character between real and shuffled text; below, the scale would magnify noise
REPETITIVE = 0.3  # distinct n-grams of the corpus itself


@dataclass(frozen=True)
class TextFigures:
    """The figures by the ids of criteria.toml; `likelihood` is None when no independent model was asked."""

    distinct: float
    longest_copy: float
    copy: Copy
    copied_share: float
    real_words: float
    likelihood: float | None = None
    bits: tuple[float, float, float] | None = None  # of the independent model: texts, real, shuffled

    def value(self, id: str) -> float | None:
        """A figure by its id."""
        return getattr(self, id)


TEXT_CHECKS = ("distinct", "longest_copy", "copied_share", "real_words", "likelihood")


class TextJudge:
    """Measures texts against a corpus; real passages to compare with are drawn once."""

    def __init__(
        self,
        corpus: ReferenceCorpus,
        rng: random.Random,
        count: int,
        characters: int,
        model: IndependentModel | None = None,
    ) -> None:
        self.corpus, self.model = corpus, model
        settings = corpus.settings
        self.ngram, self.run = settings["ngram"], settings["copied_run"]
        self.real = [text for _, text in corpus.unseen_passages(rng, count, characters)]
        self.real_distinct = distinct_share(self.real, corpus.units, self.ngram)
        self.real_copy = max(1, corpus.trained_on.longest(self.real).length)
        self.real_copied_share = corpus.trained_on.copied_share(self.real, self.run)
        if self.real_distinct < REPETITIVE:
            raise LearnerFault(f"{corpus.name} repeats itself too much to judge a model by")
        self._read = settings["judge_texts"], settings["judge_characters"]
        if model:
            self.real_bits = self._bits(self.real)
            self.shuffled_bits = self._bits([shuffled_text(text, corpus.units, rng) for text in self.real])
            if self.shuffled_bits - self.real_bits < FLAT:
                raise LearnerFault(f"the independent model cannot tell {corpus.name} from its words shuffled")

    def _bits(self, texts: Sequence[str]) -> float:
        count, characters = self._read
        return fmean(
            self.model.bits_per_character([text[:characters] for text in texts[:count]]) or [float("inf")]
        )

    def measure(self, texts: Sequence[str], copied_from: VerbatimIndex | None = None) -> TextFigures:
        """All figures of some texts; copies are looked for in the whole corpus if not told where."""
        corpus = self.corpus
        copied_from = copied_from or corpus.everything
        copy = copied_from.longest(texts)
        likelihood = bits = None
        if self.model:
            own = self._bits(texts)
            bits = (own, self.real_bits, self.shuffled_bits)
            likelihood = on_scale(*bits)
        return TextFigures(
            distinct=distinct_share(texts, corpus.units, self.ngram) / self.real_distinct,
            longest_copy=copy.length if corpus.has_own_numbers else copy.length / self.real_copy,
            copy=copy,
            copied_share=max(0.0, copied_from.copied_share(texts, self.run) - self.real_copied_share),
            real_words=known_share(texts, corpus.vocabulary, corpus.units, corpus.settings["word_length"]),
            likelihood=likelihood,
            bits=bits,
        )
