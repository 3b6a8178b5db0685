"""The tuned model of stage 2 as a reader: its prompt, its JSON, and what counts as nonsense.

A language model can answer anything. What it says is believed only when it is a label of the schema whose values were
really copied from the message: an order number that the customer never wrote is an invention, however well it looks.
"""

import json

from data.customer_service.normalise import order_number
from data.customer_service.prompt import prompt_messages
from data.customer_service.schema import label_errors, same_value
from stage3_agents_llmops.agent.model_client import ModelClient, ModelUnavailable
from stage3_agents_llmops.agent.understanding.language import language_of
from stage3_agents_llmops.agent.understanding.understander import Understanding

TOKENS = 96  # the longest label of the training split has 60
LONGEST = 600  # characters of a message that the model reads: it was tuned on single sentences
TRUST = 0.95  # a valid label's confidence: the tuned model's share of right intents on the test split, rounded up


def nonsense(label: object, text: str) -> str | None:
    """Why a label cannot be about the text, or None."""
    errors = label_errors(label)
    if errors:
        return errors[0]
    written = same_value(text)
    for slot, value in label["slots"].items():  # type: ignore[index]
        if slot != "reason" and same_value(value) not in written:
            return f"{slot} {value[:40]!r} is not in the message"
    given = label["slots"].get("order_id")  # type: ignore[index]
    if given and order_number(given) is None and sum(letter.isalnum() for letter in given) > 40:
        return f"{given[:40]!r} is no order number"
    return None


def read_label(reply: str, text: str) -> dict:
    """The label in a model's reply.

    Raises:
        ModelUnavailable: it is no label, or not one of this text.
    """
    start = reply.find("{")
    try:
        label, _ = json.JSONDecoder().raw_decode(reply, start) if start >= 0 else (None, 0)
    except (ValueError, RecursionError):
        raise ModelUnavailable("nonsense", "the model's answer is no JSON") from None
    if why := nonsense(label, text):
        raise ModelUnavailable("nonsense", f"the model's answer is no label: {why}")
    return label


class EndpointUnderstander:
    """Asks the model; raises ModelUnavailable where the answer cannot be had or believed.

    Args:
        client: with the deadline that holds for one message.
    """

    def __init__(self, client: ModelClient) -> None:
        self.client = client

    @property
    def name(self) -> str:
        """The model's."""
        return self.client.model or "endpoint"

    @property
    def resting(self) -> bool:
        """Whether the circuit is open: the endpoint failed a moment ago and is not asked now."""
        return self.client.resting

    async def understand(self, text: str, language: str | None = None) -> Understanding:
        """See `Understander`.

        Raises:
            ModelUnavailable: no answer in time, or nonsense; nonsense counts against the endpoint like silence.
        """
        language = language or language_of(text)
        if len(text) > LONGEST:
            raise ModelUnavailable("too_long", f"{len(text)} characters are more than the model was tuned on")
        label = await self.client.ask(
            prompt_messages(text, language), read=lambda reply: read_label(reply, text), max_tokens=TOKENS
        )
        return Understanding(label["intent"], TRUST, dict(label["slots"]), language, "endpoint", False)

    async def close(self) -> None:
        """Close the client's connections."""
        await self.client.close()
