"""What the routes share: the parts of a running service, who is asking, and what they may see."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from stage3_agents_llmops.agent.release import CHECKOUT
from stage3_agents_llmops.agent.service import database as db
from stage3_agents_llmops.agent.service.api_error import ApiError, unknown
from stage3_agents_llmops.agent.service.auth import Caller, Tokens
from stage3_agents_llmops.agent.service.bodies import ErrorBody
from stage3_agents_llmops.agent.service.limits import Limits, Places
from stage3_agents_llmops.agent.service.metrics import ServiceMetrics
from stage3_agents_llmops.agent.service.run import Agent, Run
from stage3_agents_llmops.agent.service.runs import RunManager
from stage3_agents_llmops.agent.service.thread_feed import ThreadFeed
from stage3_agents_llmops.agent.shop import Shop

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


@dataclass
class Service:
    """Everything that is open while the service runs."""

    agent: Agent
    database: db.ServiceDatabase
    tokens: Tokens
    limits: Limits
    metrics: ServiceMetrics
    runs: RunManager
    feed: ThreadFeed
    shop: Shop
    mask: Callable[[str], str]  # takes personal data out of a text
    demo: bool
    instance: str
    streams: Places = field(init=False)

    def __post_init__(self) -> None:
        self.streams = Places("streams", self.limits.streams, self.limits.streams_per_customer)

    @property
    def release(self) -> str:
        """The release that is served."""
        return self.agent.facts.get("release", CHECKOUT)

    def begin_drain(self, seconds: float | None = None) -> asyncio.Task[None]:
        """Nothing new; when the runs that go on are over, or after so many seconds, `runs.drained` is set.

        The same task at every call. The service still answers: streams are read to their end.
        """
        return self.runs.begin_drain(seconds)

    @property
    def drained(self) -> asyncio.Event:
        """Set when nothing goes on any more and nothing will."""
        return self.runs.drained

    def begin_stop(self) -> asyncio.Task[None]:
        """Nothing new, grace for what goes on, an end for every stream. The same task at every call."""
        self.feed.stop()
        return self.runs.begin_stop()

    async def thread(self, thread_id: str, caller: Caller) -> dict[str, Any]:
        """A thread that the caller may see. Raises ApiError 404: it does not exist, or not for this caller."""
        row = await self.database.call(db.thread_row, thread_id)
        if row is None or not (caller.is_operator or row["customer_id"] == caller.name):
            raise unknown("thread", thread_id)
        return row

    async def run(self, run_id: str, caller: Caller) -> Run:
        """A run that the caller may see. Raises ApiError 404: it does not exist, or not for this caller."""
        run = await self.runs.find(run_id)
        if run is None or not (caller.is_operator or run.customer_id == caller.name):
            raise unknown("run", run_id)
        return run


def clean(text: str, longest: int) -> str:
    """A message without control and direction characters.

    Raises:
        ApiError: 413 too long, 422 nothing is left.
    """
    if len(text) > longest:
        raise ApiError(413, f"the message has {len(text):,} characters; {longest:,} are read", "send it in parts")
    text = CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if not text:
        raise ApiError(422, "the message is empty", '{"message": "Where is my order?"}')
    return text


async def service_of(request: Request) -> Service:
    """The running service."""
    return request.app.state.service


async def caller_of(request: Request) -> Caller:
    """Who is asking."""
    return request.app.state.service.tokens.check(request.headers.get("authorization"))


async def customer_of(request: Request) -> Caller:
    """A customer; the operator has no conversations of their own."""
    caller = await caller_of(request)
    if caller.is_operator or caller.is_admin:
        raise ApiError(403, "this is for customers", "a customer's token")
    return caller


async def operator_of(request: Request) -> Caller:
    """The operator."""
    caller = await caller_of(request)
    if not caller.is_operator:
        raise ApiError(403, "this is for the shop's people", "the operator's token")
    return caller


async def admin_of(request: Request) -> Caller:
    """A program that deploys."""
    caller = await caller_of(request)
    if not caller.is_admin:
        raise ApiError(403, "this is for programs that deploy", "the admin's token")
    return caller


TheService = Annotated[Service, Depends(service_of)]
AnyCaller = Annotated[Caller, Depends(caller_of)]
Customer = Annotated[Caller, Depends(customer_of)]
Operator = Annotated[Caller, Depends(operator_of)]
Admin = Annotated[Caller, Depends(admin_of)]


def refusals(**why: str) -> dict[int | str, dict[str, Any]]:
    """`refusals(e404="no such run")` for OpenAPI's `responses`."""
    return {int(name[1:]): {"model": ErrorBody, "description": text} for name, text in why.items()}
