"""What the samples are compared with: the text that the model was trained on, and text that it never saw."""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import data
from milestones.learner_model import LearnerFault
from milestones.ngram_model import NgramModel
from milestones.text_coherence import Units, units_of, vocabulary_of
from milestones.verbatim_copy import VerbatimIndex

TRAINING_SHARE = 0.9  # the labs train on the first nine tenths
FOREIGN_RUN = 60  # a passage that shares a run this long with the training text is from one of its plays


@dataclass(frozen=True)
class ReferenceCorpus:
    """A corpus as month 1 uses it.

    Args:
        name: what the learner trained on: a catalog name or a file's name.
        variant: which thresholds hold: the name if criteria.toml has it, else other or
            other-chinese.
        train: the part trained on.
        unseen: text to draw unseen passages from.
        apart: `unseen` is a collection that holds the training text too, which is then left out.
        settings: how it is measured, see criteria.toml.
    """

    name: str
    variant: str
    train: str
    unseen: str
    apart: bool
    settings: Mapping[str, Any]

    @property
    def has_own_numbers(self) -> bool:
        """Whether criteria.toml has numbers for this corpus; else copies are counted against its own."""
        return not self.variant.startswith("other")

    @cached_property
    def units(self) -> Units:
        """Words or characters."""
        return units_of(self.train)

    @cached_property
    def vocabulary(self) -> set[str]:
        """The words of everything."""
        return vocabulary_of((self.train, self.unseen), self.units, self.settings["word_length"])

    @cached_property
    def everything(self) -> VerbatimIndex:
        """To find copies, from the training text or from anywhere else in the corpus."""
        return VerbatimIndex(f"{self.train}\0{self.unseen}")

    @cached_property
    def baseline(self) -> NgramModel:
        """What counting characters of the training text achieves."""
        return NgramModel(self.train, self.settings["baseline"])

    @cached_property
    def trained_on(self) -> VerbatimIndex:
        """To find copies from the training text alone."""
        return VerbatimIndex(self.train)

    def unseen_passages(
        self, rng: random.Random, count: int, characters: int, before: int = 0
    ) -> list[tuple[str, str]]:
        """Unseen passages from the start of a line, each in two parts: `before` characters, and the rest."""
        size = before + characters
        found: list[tuple[str, str]] = []
        for _ in range(100 * count):
            if len(found) == count:
                break
            start = rng.randrange(len(self.unseen) - size)
            at = self.unseen.find("\n", start) + 1 or start  # a text may be one long line
            passage = self.unseen[at : at + size]
            if len(passage) == size and not (self.apart and self._seen(passage)):
                found.append((passage[:before], passage[before:]))
        if len(found) < count:
            raise LearnerFault(f"{self.name}: no unseen text could be drawn")
        return found

    def _seen(self, passage: str) -> bool:
        return bool(self.trained_on.shared([passage], FOREIGN_RUN)[0].any())


def load_reference(
    trained_on: Mapping[str, str], settings: Mapping[str, Any], source: str = "", folder: Path | None = None
) -> ReferenceCorpus:
    """The corpus that a checkpoint says it was trained on.

    Args:
        trained_on: `name` and `sha256` (of the text in UTF-8) as the checkpoint has them.
        settings: of month 1.
        source: what was given to `--data`, a path if it was a file of the learner's own; seen from `folder`.

    Raises:
        LearnerFault: the text is not there, is another one, or is too short to judge by.
    """
    name = trained_on.get("name", "")
    catalog = name in data.text_names()
    text = data.load_text(name) if catalog else own_text(name, source or name, folder or Path.cwd())
    if hashlib.sha256(text.encode()).hexdigest() != trained_on.get("sha256"):
        raise LearnerFault(f"the text {name} is not the one that the checkpoint was trained on")
    least = settings["smallest_corpus"]
    if len(text) < least:
        raise LearnerFault(
            f"{name} has {len(text):,} characters; to judge by a part of it, it needs {least:,}"
        )
    corpora = settings["corpora"]
    chinese = units_of(text).name == "characters"
    variant = name if catalog and name in corpora else "other-chinese" if chinese else "other"
    cut = int(len(text) * TRAINING_SHARE)
    own = corpora[variant]
    if own["held_out"] == "last tenth":
        return ReferenceCorpus(name, variant, text[:cut], text[cut:], False, own)
    return ReferenceCorpus(name, variant, text, data.load_text(own["held_out"]), True, own)


def own_text(name: str, source: str, folder: Path) -> str:
    """A text file of the learner's own: from where it was trained on, or from the hand-in's top."""
    for path in (folder / source, folder / name):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError:
                raise LearnerFault(f"the training text {name} is not UTF-8") from None
    advice = "put it there, or train on a text of the catalog"
    raise LearnerFault(f"the training text {name} is not in the hand-in; {advice}")
