"""What a customer wants, in one value: the intent, its slots, and how sure the reader is.

    understander = build_understander(settings)
    meaning = await understander.understand("cancel KM204817, I ordered it twice")
    meaning.intent, meaning.slots        # "cancel_order", {"order_id": "KM204817", "reason": "changed_mind"}

Two readers give the same value. The tuned model of stage 2 behind its OpenAI-compatible endpoint (endpoint.py) is the
better one; the classifier over sentence embeddings (classifier.py) is always there, answers in milliseconds, and takes
over when the endpoint is down, slow, or talks nonsense.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from labkit.errors import LabError
from stage3_agents_llmops.agent.model_client import ModelClient, ModelUnavailable
from stage3_agents_llmops.agent.understanding.language import language_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Understanding:
    """What one request means.

    Attributes:
        intent: one of data.customer_service.schema.INTENTS.
        confidence: the probability that the intent is right, from 0 to 1.
        slots: slot -> value as the customer wrote it; `reason` is a code. Order numbers are as written, too:
            data.customer_service.normalise.order_number gives the shop's form, or None.
        language: "en" or "zh".
        source: "endpoint", "classifier" or "rules".
        abstain: the reader is not sure enough to act on the intent; ask the customer, or answer that it cannot help.
        alternatives: other intents with their probabilities, the likelier first.
    """

    intent: str
    confidence: float
    slots: dict[str, str]
    language: str
    source: str
    abstain: bool
    alternatives: tuple[tuple[str, float], ...] = ()


class Understander(Protocol):
    """Reads a message of one request. `name` says which model reads, for the page and for /health."""

    name: str

    async def understand(self, text: str, language: str | None = None) -> Understanding:
        """What the text wants; never raises for any text."""

    async def close(self) -> None:
        """Let go of connections."""


class ClassifierUnderstander:
    """The classifier, in a thread: its dozens of milliseconds of arithmetic do not hold up the streams of others.

    Args:
        classifier: an IntentClassifier; loaded, or trained, at the first message without it.
        abstain_below: confidence; None for the threshold that was calibrated with the classifier.
        folder: of a release's classifier, loaded at the first message; None for the course's.
    """

    name = "classifier"

    def __init__(
        self, classifier: Any = None, abstain_below: float | None = None, folder: Path | None = None
    ) -> None:
        self._classifier, self.abstain_below, self.folder = classifier, abstain_below, folder
        self._lock = asyncio.Lock()

    async def understand(self, text: str, language: str | None = None) -> Understanding:
        """See `Understander`."""
        async with self._lock:  # the encoder is one; waiting here keeps the pool's threads free
            if self._classifier is None:
                self._classifier = await asyncio.to_thread(self._load)
            found = await asyncio.to_thread(self._classifier.understand, text, language or language_of(text))
        return found if self.abstain_below is None else replace(found, abstain=found.confidence < self.abstain_below)

    def _load(self) -> Any:
        from stage3_agents_llmops.agent.understanding.classifier import load_classifier

        if self.folder is None:
            return load_classifier()
        from stage3_agents_llmops.agent.text_encoder import load_e5
        from stage3_agents_llmops.agent.understanding.stored_classifier import load_stored

        return load_stored(self.folder, load_e5())

    async def close(self) -> None:
        """Nothing to let go of: the classifier is one for the process."""


class FallbackUnderstander:
    """The endpoint first; when it cannot be had within its deadline, the classifier.

    Args:
        first: an understander that raises ModelUnavailable.
        second: one that never does.
    """

    def __init__(self, first: Understander, second: Understander) -> None:
        self.first, self.second = first, second
        self.failures = 0  # how often the second one had to answer
        self.last_failure = ""

    @property
    def name(self) -> str:
        """Which one would answer now."""
        return self.second.name if getattr(self.first, "resting", False) else self.first.name

    async def understand(self, text: str, language: str | None = None) -> Understanding:
        """See `Understander`."""
        try:
            return await self.first.understand(text, language)
        except ModelUnavailable as error:
            self.failures, self.last_failure = self.failures + 1, str(error)
            log.warning("understanding by %s: %s", self.second.name, error)
            return await self.second.understand(text, language)

    async def close(self) -> None:
        """Close both."""
        await self.first.close()
        await self.second.close()


def build_understander(settings: Any, release: Any = None) -> Understander:
    """The understander that the settings ask for.

    Args:
        settings: has `endpoint` (address of an OpenAI-compatible server, or None for the classifier alone), `model`
            (None: the first one that the server lists), `api_key`, `deadline` (seconds for the endpoint's answer) and
            `abstain_below` (None: calibrated).
        release: a ReleaseFolder whose model is to be used; None: the course's classifier.

    Raises:
        LabError: the endpoint is no http address, or the release's model needs one and there is none.
    """
    kind = release.model["kind"] if release else "classifier"
    folder = release.folder / "model" if release and kind == "classifier" else None
    classifier = ClassifierUnderstander(abstain_below=getattr(settings, "abstain_below", None), folder=folder)
    endpoint = getattr(settings, "endpoint", None)
    if kind == "adapter" and not endpoint:
        serve = "python -m stage2_rag_finetune_deploy.serving --help; then --endpoint http://HOST:PORT/v1"
        raise LabError(f"the model of release {release.id} is an adapter, and nothing serves it", serve)
    if not endpoint:
        return classifier
    from stage3_agents_llmops.agent.understanding.endpoint import EndpointUnderstander

    client = ModelClient(
        endpoint, getattr(settings, "model", None), getattr(settings, "api_key", None),
        deadline=getattr(settings, "deadline", 4.0),
    )  # fmt: skip
    return FallbackUnderstander(EndpointUnderstander(client), classifier)
