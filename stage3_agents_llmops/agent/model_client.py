"""A client for any OpenAI-compatible chat server that never lets a customer wait longer than its deadline.

    client = ModelClient("http://127.0.0.1:8000", deadline=4.0)
    reply = await client.chat([{"role": "user", "content": "hi"}], max_tokens=32)
    reply.text, reply.usage, reply.seconds

Three ways in which a model server fails, and what is done about each:

- it is down, or answers with an error: ModelUnavailable at once;
- it is slow, or drips one byte a second: one deadline for the whole answer, headers and body together (httpx's own
  timeouts count from byte to byte, so a dripping server would never be too slow for them);
- it talks nonsense: `ask` takes a function that reads the reply, and its refusal counts as a failure.

After two failures in a row the circuit opens: for 15 seconds nobody waits for a server that is known to be broken. Then
one request goes through (half-open); its success closes the circuit, its failure opens it again (Nygard, Release It!,
"Circuit Breaker").
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from stage2_rag_finetune_deploy.serving.openai_client import settings as http_settings

LONGEST_BODY = 1_000_000  # bytes of an answer: more is not a chat answer
T = TypeVar("T")


class ModelUnavailable(Exception):
    """There is no answer to be had now.

    Attributes:
        code: "down", "slow", "refused", "nonsense", "resting" (the circuit is open) or "too_long".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Reply:
    """An answer. `usage` has input_tokens and output_tokens as the server counted them, 0 where it does not say."""

    text: str
    usage: dict[str, int]
    seconds: float
    model: str = ""


@dataclass
class Circuit:
    """Closed (asks), open (does not ask), half-open (one may try).

    Args:
        limit: failures in a row that open it.
        rest: seconds until one may try.
        clock: monotonic seconds.
    """

    limit: int = 2
    rest: float = 15.0
    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    opened: float | None = None
    trying: bool = field(default=False, repr=False)

    @property
    def state(self) -> str:
        """ "closed", "open" or "half-open"."""
        if self.opened is None:
            return "closed"
        return "half-open" if self.clock() - self.opened >= self.rest else "open"

    def allows(self) -> bool:
        """Whether a request may go out now. In the half-open state only the first one that asks."""
        if self.state == "closed":
            return True
        if self.state == "open" or self.trying:
            return False
        self.trying = True
        return True

    def succeeded(self) -> None:
        """The server answered well."""
        self.failures, self.opened, self.trying = 0, None, False

    def failed(self) -> None:
        """It did not."""
        self.failures, self.trying = self.failures + 1, False
        if self.failures >= self.limit or self.opened is not None:
            self.opened = self.clock()

    def gave_up(self) -> None:
        """The request was cancelled by its caller: that says nothing about the server."""
        self.trying = False


class ModelClient:
    """Chat requests to one server.

    Args:
        base_url: with or without `/v1`.
        model: None asks the server for the first one it lists.
        api_key: sent as a bearer token where there is one.
        deadline: seconds for one answer, from the call to the last byte.

    Raises:
        LabError: base_url is no http address.
    """

    def __init__(
        self, base_url: str, model: str | None = None, api_key: str | None = None, deadline: float = 4.0,
        circuit: Circuit | None = None,
    ) -> None:  # fmt: skip
        self.model, self.deadline = model, deadline
        self.circuit = circuit or Circuit()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(**http_settings(base_url, timeout=deadline), headers=headers)
        self.base_url = str(self._http.base_url).rstrip("/")

    @property
    def resting(self) -> bool:
        """Whether the circuit is open."""
        return self.circuit.state == "open"

    async def chat(
        self, messages: Sequence[Mapping[str, str]], max_tokens: int = 128, stop: Sequence[str] | None = None,
        temperature: float = 0.0, **parameters: Any,
    ) -> Reply:  # fmt: skip
        """The model's answer to messages, whole.

        Raises:
            ModelUnavailable: no answer within the deadline, an error, or something that is no chat answer.
        """
        body = {"messages": list(messages), "max_tokens": max_tokens, "temperature": temperature} | parameters
        if stop:
            body["stop"] = list(stop)
        return await self._guarded(body, lambda reply: reply)

    async def ask(
        self, messages: Sequence[Mapping[str, str]], read: Callable[[str], T], max_tokens: int = 128, **parameters: Any
    ) -> T:
        """What `read` makes of the model's answer.

        Args:
            read: raises ModelUnavailable for an answer that makes no sense; that counts as a failure of the server.

        Raises:
            ModelUnavailable: as `chat`, or from `read`.
        """
        body = {"messages": list(messages), "max_tokens": max_tokens, "temperature": 0.0} | parameters
        return await self._guarded(body, lambda reply: read(reply.text))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _guarded(self, body: dict[str, Any], read: Callable[[Reply], T]) -> T:
        if not self.circuit.allows():
            raise ModelUnavailable("resting", f"{self.base_url} failed a moment ago and is left alone for a while")
        try:
            async with asyncio.timeout(self.deadline):
                result = read(await self._answer(body))
        except TimeoutError:
            self.circuit.failed()
            raise ModelUnavailable("slow", f"{self.base_url} did not answer in {self.deadline:g} s") from None
        except httpx.TimeoutException:
            self.circuit.failed()
            raise ModelUnavailable("slow", f"{self.base_url} did not answer in {self.deadline:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.circuit.failed()
            raise ModelUnavailable("down", f"{self.base_url} cannot be reached ({type(error).__name__})") from None
        except ModelUnavailable:
            self.circuit.failed()
            raise
        except asyncio.CancelledError:
            self.circuit.gave_up()
            raise
        self.circuit.succeeded()
        return result

    async def _answer(self, body: dict[str, Any]) -> Reply:
        if self.model is None:
            self.model = first_model(await self._request("GET", "/v1/models"))
        began = time.monotonic()
        answer = await self._request("POST", "/v1/chat/completions", {"model": self.model} | body)
        return read_reply(answer, time.monotonic() - began, self.model)

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request, its body read up to a limit."""
        async with self._http.stream(method, path, json=body) as response:
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > LONGEST_BODY:
                    raise ModelUnavailable("nonsense", f"{self.base_url} sends more than {LONGEST_BODY} bytes")
            if not response.is_success:
                raise ModelUnavailable("refused", f"{self.base_url} answered with status {response.status_code}")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise ModelUnavailable("nonsense", f"{self.base_url} answered something else than JSON") from None
        if not isinstance(answer, dict):
            raise ModelUnavailable("nonsense", f"{self.base_url} answered JSON that is no object")
        return answer


def first_model(listed: dict[str, Any]) -> str:
    """The first model of /v1/models.

    Raises:
        ModelUnavailable: there is none.
    """
    try:
        return str(listed["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise ModelUnavailable("nonsense", "/v1/models lists no model") from None


def read_reply(answer: dict[str, Any], seconds: float, model: str) -> Reply:
    """The text and the usage of a chat answer.

    Raises:
        ModelUnavailable: it has no text.
    """
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise ModelUnavailable("nonsense", "the model's answer has no text")
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    names = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
    counted = {ours: value if isinstance(value := usage.get(theirs), int) else 0 for ours, theirs in names}
    return Reply(text, counted, seconds, model)
