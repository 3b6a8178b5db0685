"""OpenAI's requests and answers, as the mini engine's server reads and writes them.

A parameter is known, known but not supported, or unknown: nothing is silently ignored. One that is not supported may
come with the value that changes nothing, because some clients always send it.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.mini_engine.sampling_params import SamplingParams

LARGEST_BODY = 1_000_000  # bytes
SAMPLING = {
    "n": (int,), "temperature": (int, float), "top_p": (int, float), "top_k": (int,), "seed": (int,),
    "max_tokens": (int,), "ignore_eos": (bool,), "stop": (str, list), "stop_token_ids": (list,),
}  # fmt: skip
OTHERS = ("model", "stream", "stream_options", "user", "max_completion_tokens")
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {  # known elsewhere, and the values that change nothing
    "presence_penalty": (0,), "frequency_penalty": (0,), "repetition_penalty": (1,), "min_p": (0,), "min_tokens": (0,),
    "logit_bias": ({},), "logprobs": (False, 0), "top_logprobs": (0,), "best_of": (1,), "echo": (False,),
    "suffix": ("",), "tools": ([],), "tool_choice": ("none",), "parallel_tool_calls": (False,), "guided_json": (),
    "response_format": ({"type": "text"},), "structured_outputs": (), "skip_special_tokens": (True,),
    "add_generation_prompt": (True,),
}  # fmt: skip
ROLES = ("system", "user", "assistant", "tool", "developer")


class ApiError(Exception):
    """A request that is refused: status, message, and the parameter that is meant."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param

    def body(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        kinds = {404: "NotFoundError", 413: "RequestTooLarge", 429: "RateLimitError"}
        kind = kinds.get(self.status, "BadRequestError" if self.status < 500 else "ServerError")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        chat: messages, where it is a chat; else `prompt` is a text or token ids.
    """

    model: str | None
    params: SamplingParams
    chat: list[dict[str, str]] | None
    prompt: str | list[int]
    stream: bool
    include_usage: bool


def parse(raw: bytes, chat: bool) -> Asked:
    """Read a body.

    Raises:
        ApiError: 400 with the parameter's name.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object")
    body = {name: value for name, value in body.items() if value is not None}
    check_names(body, "messages" if chat else "prompt")
    options = body.get("stream_options", {})
    check_type("model", body.get("model", ""), (str,))
    check_type("stream", body.get("stream", False), (bool,))
    check_type("stream_options", options, (dict,))
    return Asked(
        body.get("model"), sampling(body, chat), messages_of(body) if chat else None,
        "" if chat else prompt_of(body), body.get("stream", False), bool(options.get("include_usage")),
    )  # fmt: skip


def check_names(body: Mapping[str, Any], text: str) -> None:
    """Refuse parameters that are unknown, and those that would change something and are not supported."""
    known = (text, *OTHERS, *SAMPLING)
    for name, value in body.items():
        if name in WITHOUT_EFFECT and value not in WITHOUT_EFFECT[name]:
            raise ApiError(400, f"{name} is not supported by the mini engine (vLLM has it)", name)
        if name not in known and name not in WITHOUT_EFFECT:
            best = nearest(name, known)
            raise ApiError(400, f"unknown parameter {name}" + (f"; did you mean {best}?" if best else ""), name)
    if text not in body:
        raise ApiError(400, f"{text} is missing", text)


def check_type(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    """Refuse a value of another type; true and false are no numbers."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join({int: "a whole number", float: "a number", str: "text", list: "a list", bool: "true or "
                              "false", dict: "an object"}[kind] for kind in kinds)  # fmt: skip
        raise ApiError(400, f"{name} has to be {wanted}", name)


def sampling(body: Mapping[str, Any], chat: bool) -> SamplingParams:
    """The sampling parameters; without max_tokens a chat may fill the context, a completion has 16, as at OpenAI."""
    given = {name: body[name] for name in SAMPLING if name in body}
    if "max_completion_tokens" in body:
        given["max_tokens"] = body["max_completion_tokens"]
    for name, value in given.items():
        check_type(name, value, SAMPLING[name])
    for name, kind in (("stop", str), ("stop_token_ids", int)):
        if isinstance(given.get(name), list):
            for item in given[name]:
                check_type(name, item, (kind,))
    if chat:
        given.setdefault("max_tokens", None)
    try:
        return SamplingParams(**given)
    except LabError as error:
        name = error.message.split()[0]
        raise ApiError(400, f"{error.message} ({error.try_next})", name) from None


def messages_of(body: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages; a content of several text parts becomes one text."""
    messages = body["messages"]
    check_type("messages", messages, (list,))
    if not messages:
        raise ApiError(400, "messages is empty", "messages")
    found = []
    for message in messages:
        check_type("messages", message, (dict,))
        role, content = message.get("role"), message.get("content")
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
        if role not in ROLES or not isinstance(content, str):
            raise ApiError(400, f'a message is {{"role": one of {", ".join(ROLES)}, "content": text}}', "messages")
        found.append({"role": role, "content": content})
    return found


def prompt_of(body: Mapping[str, Any]) -> str | list[int]:
    """The prompt: a text, token ids, or a list with one text."""
    prompt = body["prompt"]
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    ids = isinstance(prompt, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in prompt)
    if not isinstance(prompt, str) and not ids:
        raise ApiError(400, "prompt has to be one text, or one list of token ids", "prompt")
    return prompt


@dataclass
class Usage:
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0

    def body(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }  # fmt: skip


class Writer:
    """The JSON of one answer, whole or in pieces."""

    def __init__(self, request_id: str, model: str, chat: bool) -> None:
        self.chat = chat
        name = f"{'chatcmpl' if chat else 'cmpl'}-{request_id}"
        self._usual: list[str] = []
        self.head = {"id": name, "created": int(time.time()), "model": model}

    def whole(self, text: str, reason: str, cause: str | int | None, usage: Usage) -> dict[str, Any]:
        """An answer that does not stream."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason, "stop_reason": cause}
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self.head, "object": kind, "choices": [choice], "usage": usage.body()}

    def piece(self, text: str, reason: str | None = None, cause: str | int | None = None, first: bool = False) -> str:
        """An event with some more text. Most differ in nothing but the text; the rest of those is written once."""
        if reason is None and not first:
            self._usual = self._usual or self._piece("\0", None, None, False).split(json.dumps("\0"))
            return json.dumps(text, ensure_ascii=False).join(self._usual)
        return self._piece(text, reason, cause, first)

    def _piece(self, text: str, reason: str | None, cause: str | int | None, first: bool) -> str:
        role = {"role": "assistant"} if first else {}
        said = {"delta": {**role, "content": text}} if self.chat else {"text": text}
        return self._event([{"index": 0, **said, "logprobs": None, "finish_reason": reason, "stop_reason": cause}])

    def usage(self, usage: Usage) -> str:
        """The event before the last, where it was asked for."""
        return self._event([], usage=usage.body())

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return event({**self.head, "object": kind, "choices": choices, **more})


def event(body: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
