"""Sends requests at their times to an OpenAI-compatible server, streams the answers, and notes when tokens came."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from stage2_rag_finetune_deploy.serving.arrivals import Request
from stage2_rag_finetune_deploy.serving.latency import Record
from stage2_rag_finetune_deploy.serving.openai_client import BrokenStream, settings, stream_events, what_refused

REFUSED = 429  # Too Many Requests


def body_of(model: str, request: Request, more: dict[str, Any]) -> dict[str, Any]:
    """A streamed completion with its usage at the end; greedy, and as long as asked for."""
    return {
        "model": model, "prompt": request.prompt, "max_tokens": request.new_tokens, "temperature": 0.0,
        "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, **more,
    }  # fmt: skip


async def send(client: httpx.AsyncClient, body: dict[str, Any]) -> Record:
    """One request from the moment it is sent; never raises what the network or the server does."""
    record = Record(sent=time.perf_counter())
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if not response.is_success:
                await response.aread()
                record.outcome = "refused" if response.status_code == REFUSED else "failed"
                record.reason = what_refused(response)
                return record
            async for event in stream_events(response):
                read_event(record, event)
    except (httpx.HTTPError, BrokenStream) as error:
        record.reason = str(error) or type(error).__name__
        return record
    if record.token_times and record.new_tokens:
        record.outcome = "finished"
    else:
        record.reason = "an answer without text, or without usage"
    return record


def read_event(record: Record, event: dict[str, Any]) -> None:
    """Note a piece of text and its time, and the usage where it is given.

    An answer of special tokens only has no text: what is seen of it is that it came to its length.
    """
    for choice in event.get("choices", [])[:1]:
        text = choice.get("text") or ""
        if text or (choice.get("finish_reason") == "length" and not record.token_times):
            record.token_times.append(time.perf_counter())
            record.text += text
    if usage := event.get("usage"):
        record.prompt_tokens, record.new_tokens = usage["prompt_tokens"], usage["completion_tokens"]


async def run_load(
    url: str, model: str, requests: Sequence[Request], concurrency: int | None, timeout: float,
    on_done: Callable[[Record], None], more: dict[str, Any] | None = None,
) -> list[Record]:  # fmt: skip
    """All requests, each at its time; the records in the order of the requests.

    concurrency: at most so many at once, as with clients that wait for their turn; None sends everything at its time.
    """
    limit = asyncio.Semaphore(concurrency or len(requests))
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(**settings(url, timeout), limits=unlimited) as client:
        start = time.perf_counter()

        async def one(request: Request) -> Record:
            await asyncio.sleep(start + request.at - time.perf_counter())
            async with limit:
                record = await send(client, body_of(model, request, more or {}))
            on_done(record)
            return record

        return list(await asyncio.gather(*(one(request) for request in requests)))
