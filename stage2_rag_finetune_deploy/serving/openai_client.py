"""A small client for any OpenAI-compatible server: models, answers, streams; an error is one clear line.

    with Client("http://127.0.0.1:8000") as client:
        client.chat(client.first_model(), [{"role": "user", "content": "hi"}], max_tokens=16)

Proxies from the environment are used for the world and ignored for this machine.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from labkit.errors import LabError

SERVE = "python -m stage2_rag_finetune_deploy.serving serve"
HERE = {"127.0.0.1", "localhost", "::1", "0.0.0.0"}


def base_url(url: str) -> str:
    """An address without the `/v1` or `/` at its end.

    Raises:
        LabError: it is no http address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LabError(f"{url} is no address of a server", "--url http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")


def settings(url: str, timeout: float) -> dict[str, Any]:
    """Arguments for an httpx client; no proxy stands between this machine and itself."""
    return {"base_url": base_url(url), "timeout": timeout, "trust_env": urlsplit(url).hostname not in HERE}


def what_failed(url: str, error: httpx.HTTPError) -> LabError:
    """A failed request as the line that a user reads."""
    if isinstance(error, httpx.TimeoutException):
        return LabError(f"{url} did not answer in time", "look at the server's log, or ask for fewer tokens")
    if isinstance(error, httpx.ConnectError):
        return LabError(f"no server answers at {url}", SERVE)
    return LabError(f"the server at {url} broke off: {type(error).__name__}", f"is it still there? {SERVE}")


def what_refused(response: httpx.Response) -> str:
    """The reason in an answer that is no success: OpenAI's, FastAPI's or plain text."""
    try:
        body = response.json()
        error = body.get("error", body)
        text = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return f"{response.status_code} {str(text or response.reason_phrase)[:300]}"


class Client:
    """Requests one after the other.

    Raises (every method):
        LabError: nobody answers, the server refuses, or it answers something else than JSON.
    """

    def __init__(self, url: str, timeout: float = 120) -> None:
        self.url = base_url(url)
        self._http = httpx.Client(**settings(url, timeout))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        """A page."""
        try:
            response = self._http.get(path)
        except httpx.HTTPError as error:
            raise what_failed(self.url, error) from None
        return self._good(response)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer to a JSON body."""
        try:
            response = self._http.post(path, json=dict(body))
        except httpx.HTTPError as error:
            raise what_failed(self.url, error) from None
        return self._json(self._good(response))

    def models(self) -> list[str]:
        """The names of what is served."""
        listed = self._json(self.get("/v1/models")).get("data")
        if not isinstance(listed, list) or not listed:
            raise LabError(f"{self.url}/v1/models lists no model", SERVE)
        return [str(model["id"]) for model in listed]

    def chat(self, model: str, messages: Sequence[Mapping[str, str]], **parameters: Any) -> dict[str, Any]:
        """The whole answer to messages."""
        return self.post("/v1/chat/completions", {"model": model, "messages": list(messages), **parameters})

    def _good(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        advice = {404: f"{self.url}/v1/models lists what it serves", 429: "again in a while, or fewer at once"}
        raise LabError(
            f"the server at {self.url} said {what_refused(response)}",
            advice.get(response.status_code, "another request, or the other engine (serve --engine mini, vllm)"),
        )

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise LabError(f"{self.url} answered something else than JSON: is it an OpenAI-compatible server?", SERVE)
        return body


def text_of(answer: Mapping[str, Any]) -> str:
    """The text of the first choice of a chat answer."""
    return answer["choices"][0]["message"]["content"] or ""


class BrokenStream(Exception):
    """A stream that ended without `[DONE]`, or with an error event; the text says which."""


async def stream_events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each server-sent event up to `[DONE]`.

    Raises:
        BrokenStream: the server said an error, or was gone before `[DONE]`.
    """
    try:
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            text = line[5:].strip()
            if text == "[DONE]":
                return
            event = json.loads(text)
            if "error" in event:
                raise BrokenStream(str(event["error"].get("message", event["error"]))[:200])
            yield event
    except (httpx.HTTPError, ValueError) as error:
        raise BrokenStream(f"the server was gone in the middle of an answer ({type(error).__name__})") from None
    raise BrokenStream("the stream ended without [DONE]")
