"""Shadow traffic: a new release gets copies of real messages, and nobody sees what it says.

After the customer has their answer, and not before, the same message goes to the shadow: a process with a copy of the
shop and of the conversations, so nothing it writes is real. Its runs leave rows with the arm "shadow". It has its own
proposals, so a customer's yes goes to what the shadow has asked, and to nothing if it has asked nothing.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stage3_agents_llmops.pipeline.gateway.following import FollowedRun, Follower
from stage3_agents_llmops.pipeline.gateway.gateway_metrics import GatewayMetrics
from stage3_agents_llmops.pipeline.gateway.recording import Recorder
from stage3_agents_llmops.pipeline.gateway.routes import Shadow
from stage3_agents_llmops.pipeline.gateway.tracing import next_traceparent
from stage3_agents_llmops.pipeline.gateway.upstream import BackendDown, Headers, Upstream

logger = logging.getLogger(__name__)
ARM = "shadow"
AT_ONCE, WAITING = 4, 64  # copies that run, and that wait; more are left out: a shadow must not cost the customers
REMEMBERED = 10_000  # conversations
SECONDS = 30.0


@dataclass(frozen=True)
class Said:
    """What a copy needs of a run: who said what, where."""

    thread_id: str
    authorization: str
    said: Mapping[str, Any]
    labels: dict[str, Any]


@dataclass
class ShadowThread:
    """A conversation and its copy. One message at a time, in the customer's order."""

    thread_id: str = ""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class ShadowTraffic:
    """Copies runs that are over.

    Args:
        shadow: the shadow in force, or None.
    """

    def __init__(
        self, upstream: Upstream, recorder: Recorder, metrics: GatewayMetrics, shadow: Callable[[], Shadow | None]
    ) -> None:
        self.upstream, self.recorder, self.metrics, self.shadow = upstream, recorder, metrics, shadow
        self.follower = Follower(upstream, self._backends, recorder.finished, lambda run: None, lost_seconds=5.0)
        self.threads: OrderedDict[tuple[str, str], ShadowThread] = OrderedDict()
        self.tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_ONCE)

    def _backends(self) -> list[str]:
        shadow = self.shadow()
        return [shadow.backend] if shadow else []

    def copy(self, run: FollowedRun) -> None:
        """Send a customer's message to the shadow as well, in the background."""
        shadow = self.shadow()
        if shadow is None:
            return
        if len(self.tasks) >= WAITING:
            self.metrics.shadow.labels("left out").inc()
            return
        task = asyncio.create_task(self._copy(Said(run.thread_id, run.authorization, run.said, run.labels), shadow))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _copy(self, run: Said, shadow: Shadow) -> None:
        thread = self._thread(shadow, run.thread_id)
        async with thread.turn, self._places:
            try:
                outcome = await self._answer(run, shadow, thread)
            except (BackendDown, KeyError, ValueError) as error:
                logger.warning("shadow: %r", error)
                outcome = "failed"
            self.metrics.shadow.labels(outcome).inc()

    def _thread(self, shadow: Shadow, thread_id: str) -> ShadowThread:
        key = (shadow.backend, thread_id)
        thread = self.threads.setdefault(key, ShadowThread())
        self.threads.move_to_end(key)
        while len(self.threads) > REMEMBERED:
            self.threads.popitem(last=False)
        return thread

    async def _answer(self, run: Said, shadow: Shadow, thread: ShadowThread) -> str:
        """One copied run to its end: "answered", "nothing asked" for a yes to nothing, or "refused"."""
        trace_id, traceparent = next_traceparent(None)
        headers = [("Authorization", run.authorization), ("Content-Type", "application/json"), ("x-arm", ARM),
                   ("x-release", shadow.release), ("traceparent", traceparent)]  # fmt: skip
        if not thread.thread_id:
            thread.thread_id = await self._open(shadow, headers)
        body = self._body(run.said, thread.thread_id)
        if body is None:
            return "nothing asked"
        began, sent = time.monotonic(), time.time()
        target = f"/threads/{thread.thread_id}/runs"
        answer = await self.upstream.ask(shadow.backend, "POST", target, headers, json.dumps(body).encode(), SECONDS)
        if answer.status != 202:
            return "refused"
        labels = run.labels | {"arm": ARM, "release": shadow.release, "trace_id": trace_id,
                               "thread_id": thread.thread_id}  # fmt: skip
        copied = FollowedRun(
            json.loads(answer.body)["run_id"], thread.thread_id, shadow.backend, run.authorization, traceparent, labels,
            said=body, approved=self.recorder.proposals.agreed(thread.thread_id, body), accepted_at=sent, began=began,
        )  # fmt: skip
        await self.follower.follow(copied).task
        return "answered"

    async def _open(self, shadow: Shadow, headers: Headers) -> str:
        answer = await self.upstream.ask(shadow.backend, "POST", "/threads", headers, b"{}", SECONDS)
        if answer.status != 201:
            raise ValueError(f"the shadow opens no conversation: {answer.status}")
        return json.loads(answer.body)["thread_id"]

    def _body(self, said: Mapping[str, Any], thread_id: str) -> dict[str, Any] | None:
        """The same message; the same decision, about the shadow's own proposal."""
        if "decision" not in said:
            return {"message": said.get("message") or ""}
        proposal = self.recorder.proposals.get(thread_id)
        if proposal is None:
            return None
        approve = bool((said["decision"] or {}).get("approve"))
        return {"decision": {"proposal_id": proposal["proposal_id"], "approve": approve}}

    async def stop(self) -> None:
        """Copies that have not ended are given up."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.follower.stop()
