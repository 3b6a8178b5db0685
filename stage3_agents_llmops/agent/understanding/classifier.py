"""Intents without a language model: sentence embeddings, character n-grams, and logistic regression on each.

    classifier = load_classifier()
    classifier.understand("cancel KM204817, I ordered it twice")

E5 knows what a sentence is about and has never seen this shop; character n-grams know this shop's words and nothing
else. They err in different places, so the mean of their probabilities is better than either. It is too timid, because a
mean of two opinions is: one exponent, fitted on the validation split, makes its confidence honest (temperature scaling,
Guo et al. 2017). Below a threshold the classifier abstains; the threshold gives up one in twenty of the validation
split's requests that the shop can serve.

The reason is read the same way by a second pair of heads. The utterances of data/customer_service open a conversation
and nearly always give a reason; short_requests.toml adds what people say in the middle of one, and returns without a
reason, so that none is invented.
"""

import hashlib
import json
import threading
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import data
from data.customer_service.schema import SLOTS_OF
from labkit.assets import cache_root
from labkit.errors import LabError
from labkit.progress import error_console
from stage3_agents_llmops.agent.understanding.language import language_of
from stage3_agents_llmops.agent.understanding.linear_heads import LENGTHS, TextHead, VectorHead, softmax
from stage3_agents_llmops.agent.understanding.slots import find_reason, find_slots
from stage3_agents_llmops.agent.understanding.understander import Understanding

VERSION = 4  # changes when training does, so that an older artefact is not used
LANGUAGES = ("en", "zh")
SHORT = Path(__file__).with_name("short_requests.toml")
GIVEN_UP = 0.05  # share of the validation split's requests in scope on which the classifier may abstain
REASON_FROM = 0.3  # probability from which a reason is believed; below, the agent asks
EMBEDDING_SHARE = 0.7  # of the reason's probability; n-grams have the rest
WORDS_BONUS = 0.3  # added to the reason whose words (slots.py) stand in the text
LONGEST = 1000  # characters: E5 reads 512 tokens
NO_REASON = "none"


def utterances(split: str, fillings: int = 4) -> list[data.Utterance]:
    """Both languages' split; of every frame the first `fillings`."""
    items = [item for language in LANGUAGES for item in data.load_understanding(f"customer-service-{language}", split)]
    return [item for item in items if int(item.id.rsplit("#", 1)[1]) <= fillings]


def short_requests(split: str) -> list[data.Utterance]:
    """Requests from the middle of a conversation: `train` or `test`."""
    lists = tomllib.loads(SHORT.read_text(encoding="utf-8"))[split]
    items = []
    for language in LANGUAGES:
        for label, texts in lists[language].items():
            intent, _, reason = label.partition(":")
            slots = {"reason": reason} if reason else {}
            items += [data.Utterance(f"short/{language}/{label}#1", text, intent, slots, language) for text in texts]
    return items


def tempered(probabilities: np.ndarray, exponent: float) -> np.ndarray:
    """Rows to a power, made to sum to 1 again: above 1 surer, below 1 less sure. The order stays."""
    return softmax(exponent * np.log(probabilities + 1e-9))


@dataclass
class IntentClassifier:
    """Trained heads and two calibrated numbers; `load_classifier` makes one. Safe in one thread at a time.

    Attributes:
        exponent: of the temperature.
        threshold: of the confidence, below which it abstains.
        encoder: texts to vectors (not kept in the artefact).
    """

    intents: list[str]
    heads: tuple[VectorHead, TextHead]  # of the intent
    reason_heads: tuple[VectorHead, TextHead]
    exponent: float = 1.0
    threshold: float = 0.0
    encoder: Any = None

    def embed(self, texts: list[str]) -> np.ndarray:
        """(N, 384), not kept on disk: what customers write is nobody's to keep."""
        return self.encoder.encode_now([text[:LONGEST] for text in texts], "symmetric")

    def probabilities(self, texts: list[str], vectors: np.ndarray | None = None) -> np.ndarray:
        """(N, intents), calibrated; each row sums to 1."""
        vectors = self.embed(texts) if vectors is None else vectors
        both = self.heads[0].predict_proba(vectors) + self.heads[1].predict_proba(lowered(texts))
        return tempered(both / 2, self.exponent)

    def reasons(self, texts: list[str], vectors: np.ndarray | None = None) -> list[str | None]:
        """The code of each text's reason; None where none is given, or it is not clear."""
        vectors = self.embed(texts) if vectors is None else vectors
        on_vectors, on_texts = (head.predict_proba(given) for head, given in
                                zip(self.reason_heads, (vectors, lowered(texts)), strict=True))  # fmt: skip
        scores = EMBEDDING_SHARE * on_vectors + (1 - EMBEDDING_SHARE) * on_texts
        codes = self.reason_heads[0].classes
        for row, text in zip(scores, texts, strict=True):
            if (code := find_reason(text)) in codes:
                row[codes.index(code)] += WORDS_BONUS
                row /= row.sum()
        best = [(codes[place], row[place]) for row, place in zip(scores, scores.argmax(axis=1), strict=True)]
        return [code if code != NO_REASON and score >= REASON_FROM else None for code, score in best]

    def understand(self, text: str, language: str | None = None) -> Understanding:
        """One text; any text at all."""
        language = language or language_of(text)
        vectors = self.embed([text])
        row = self.probabilities([text], vectors)[0]
        order = np.argsort(-row)
        intent, confidence = self.intents[order[0]], float(row[order[0]])
        found = find_slots(text, language) | {"reason": self.reasons([text], vectors)[0]}
        slots = {name: found[name] for name in SLOTS_OF[intent] if found.get(name)}
        others = tuple((self.intents[place], round(float(row[place]), 3)) for place in order[1:4])
        abstain = confidence < self.threshold or not any(letter.isalnum() for letter in text)
        return Understanding(intent, confidence, slots, language, "classifier", abstain, others)


def lowered(texts: list[str]) -> list[str]:
    """What the n-grams are counted in."""
    return [text[:LONGEST].casefold() for text in texts]


def ngram_counter() -> Any:
    """Texts to weighted counts of character n-grams."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(LENGTHS[0], LENGTHS[-1]), min_df=2)


def fit_pair(
    vectors: np.ndarray, labels: list[str], many: list[data.Utterance], many_labels: list[str]
) -> tuple[VectorHead, TextHead]:
    """A head on vectors, and one on the n-grams of (more) utterances."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from threadpoolctl import threadpool_limits

    on_texts = make_pipeline(ngram_counter(), LogisticRegression(C=10, max_iter=2000))
    with threadpool_limits(1):  # small products: on busy cores threads wait for one another more than they work
        on_texts.fit(lowered([item.text for item in many]), many_labels)
        on_vectors = LogisticRegression(C=10, max_iter=2000).fit(vectors, labels)
    return VectorHead.of(on_vectors), TextHead.of(on_texts)


def calibrate(classifier: IntentClassifier, validation: list[data.Utterance], vectors: np.ndarray) -> None:
    """Exponent and threshold from the validation split."""
    from scipy.optimize import minimize_scalar

    texts = [item.text for item in validation]
    right = [classifier.intents.index(item.intent) for item in validation]
    raw = classifier.probabilities(texts, vectors)

    def surprise(exponent: float) -> float:
        return -float(np.log(tempered(raw, exponent)[np.arange(len(right)), right] + 1e-12).mean())

    classifier.exponent = float(minimize_scalar(surprise, bounds=(0.2, 5), method="bounded").x)
    confidence = classifier.probabilities(texts, vectors).max(axis=1)
    served = [score for score, item in zip(confidence, validation, strict=True) if item.intent != "out_of_scope"]
    classifier.threshold = float(np.quantile(served, GIVEN_UP))


def everything(item: data.Utterance) -> bool:
    """Leaves no utterance out."""
    return True


def train(
    encoder: Any, more: Sequence[data.Utterance] = (), kept: Callable[[data.Utterance], bool] = everything
) -> IntentClassifier:
    """Fit the heads on the train split, calibrate on validation. E5 reads one filling of a frame, n-grams all four.

    Args:
        more: labelled utterances beside the course's.
        kept: whether an utterance is learnt from.
    """
    short, validation = [*short_requests("train"), *more], utterances("validation")
    once, every = utterances("train", fillings=1) + short, utterances("train") + short * 3
    vectors = encoder.encode([item.text for item in once], "symmetric")
    vectors = vectors[np.array([kept(item) for item in once])]
    once, every = ([item for item in items if kept(item)] for items in (once, every))
    heads = fit_pair(vectors, [item.intent for item in once], every, [item.intent for item in every])
    asked = np.array(["reason" in SLOTS_OF[item.intent] for item in once])
    few, many = ([item for item in items if "reason" in SLOTS_OF[item.intent]] for items in (once, every))
    labels, many_labels = ([item.slots.get("reason", NO_REASON) for item in items] for items in (few, many))
    reason_heads = fit_pair(vectors[asked], labels, many, many_labels)
    classifier = IntentClassifier(heads[0].classes, heads, reason_heads)
    calibrate(classifier, validation, encoder.encode([item.text for item in validation], "symmetric"))
    return classifier


def artefact(encoder: Any) -> Path:
    """Folder of the trained heads; its name changes with the data, the encoder, the library and VERSION."""
    items = utterances("train") + short_requests("train") + utterances("validation")
    read = "".join(f"{item.text}\t{item.label}\n" for item in items)
    sums = hashlib.sha256(read.encode()).hexdigest()
    key = json.dumps([VERSION, version("scikit-learn"), np.__version__, encoder.revision, sums])
    return cache_root() / "intent_classifier" / hashlib.sha256(key.encode()).hexdigest()[:12]


def stored_or_trained(path: Path, encoder: Any) -> IntentClassifier:
    """The heads in a folder; trained into it where they are not there, by one process while the others wait."""
    from filelock import FileLock

    from stage3_agents_llmops.agent.understanding.stored_classifier import load_stored, save_classifier

    with suppress(LabError):
        return load_stored(path, encoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        with suppress(LabError):
            return load_stored(path, encoder)
        reason = "again: its file is damaged" if path.exists() else "for the first time"
        error_console.print(f"training the intent classifier {reason} (about a minute)", markup=False)
        classifier = train(encoder)
        classifier.encoder = encoder
        save_classifier(classifier, path)
        return classifier


_loading = threading.Lock()
_loaded: dict[Path, IntentClassifier] = {}


def load_classifier() -> IntentClassifier:
    """The classifier from the course's cache; trained first, in about a minute, where it is not there.

    One for the whole process. A damaged artefact is trained again.

    Raises:
        LabError: E5 cannot be fetched.
    """
    from stage3_agents_llmops.agent.text_encoder import load_e5

    with _loading:
        encoder = load_e5()
        path = artefact(encoder)
        if path not in _loaded:
            classifier = stored_or_trained(path, encoder)
            classifier.understand("hello")  # loads the encoder's weights: the first customer does not wait for them
            _loaded[path] = classifier
        return _loaded[path]
