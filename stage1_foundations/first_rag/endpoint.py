"""Any server that speaks OpenAI's chat protocol (vLLM, Ollama, llama.cpp, ...) behind LlamaIndex's LLM interface.

`OpenAILike` does it all; what is added is that errors arrive. LlamaIndex's `Refine`, which `compact` is built on,
catches ValueError and TypeError around the model, logs them, and goes on with an empty answer: a server that sends
half a JSON object would look like a model with nothing to say. So errors become LabError where they happen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import openai
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.llms.openai_like import OpenAILike

from labkit.errors import LabError

NOT_AN_ANSWER = (openai.OpenAIError, AttributeError, IndexError, KeyError, TypeError, ValueError)


class Endpoint(OpenAILike):
    """A chat model at an address.

    Args:
        model: its name there.
        api_base: the address up to `/v1`.
        api_key: any text where the server wants none.
        context_window: tokens of prompt and answer together.
        max_tokens: longest answer.
    """

    def __init__(self, model: str, api_base: str, api_key: str, context_window: int, max_tokens: int) -> None:
        # the defaults are a temperature of 0.1 and three retries, by openai's client and by LlamaIndex: twelve calls
        super().__init__(
            model=model, api_base=api_base, api_key=api_key, context_window=context_window, max_tokens=max_tokens,
            is_chat_model=True, temperature=0.0, timeout=60.0, max_retries=0,
        )  # fmt: skip

    def _chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        with endpoint_errors(self.api_base):
            return super()._chat(messages, **kwargs)

    @classmethod
    def class_name(cls) -> str:
        """Name in traces."""
        return "Endpoint"


@contextmanager
def endpoint_errors(api_base: str) -> Iterator[None]:
    """Turn what a server may do wrong into one line.

    Raises:
        LabError: nobody listens, the key is refused, the model is unknown, or the answer is no answer.
    """
    try:
        yield
    except openai.APITimeoutError as error:
        raise LabError(f"the endpoint {api_base} did not answer in time", "a smaller model, --llm smollm2") from error
    except openai.APIConnectionError as error:
        raise LabError(
            f"the endpoint {api_base} cannot be reached", "start the server, another --api-base, or --llm smollm2"
        ) from error
    except openai.APIStatusError as error:
        reason = " ".join(str(error).split())[:160]
        key, name = "OPENAI_API_KEY=...", "another --model, or an --api-base that ends in /v1"
        advice = {401: key, 403: key, 404: name}.get(error.status_code, "--llm smollm2")
        raise LabError(f"the endpoint refuses: {reason}", advice) from error
    except NOT_AN_ANSWER as error:
        raise LabError(f"{api_base} does not speak OpenAI's protocol", "--api-base with /v1 at its end") from error
