"""What the gateway does with a customer's request: which backend, what goes with it, what comes of it.

    POST /threads/ID/runs     the customer's arm; from the backend's 202 on the run is followed here
    GET /runs/ID/events       from what is followed here; of an older run from a backend
    GET /threads/ID/events    from here: runs of several backends end in one conversation
    everything of a run, or of a conversation in which one goes on: the backend that works on it
    the rest                  the customer's arm
"""

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from labkit.errors import LabError
from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.limits import Limits
from stage3_agents_llmops.agent.service.thread_feed import ThreadFeed
from stage3_agents_llmops.experiments import Assignment
from stage3_agents_llmops.monitoring import RunRecord
from stage3_agents_llmops.pipeline.gateway.following import FollowedRun, Follower
from stage3_agents_llmops.pipeline.gateway.gateway_metrics import GatewayMetrics
from stage3_agents_llmops.pipeline.gateway.open_runs import OpenRuns
from stage3_agents_llmops.pipeline.gateway.recording import OpenProposals, Recorder
from stage3_agents_llmops.pipeline.gateway.routes import Arm, Routes, RouteTable
from stage3_agents_llmops.pipeline.gateway.routing import Router, experiment_of, unit_of
from stage3_agents_llmops.pipeline.gateway.shadow import ShadowTraffic
from stage3_agents_llmops.pipeline.gateway.tracing import next_traceparent
from stage3_agents_llmops.pipeline.gateway.upstream import Answer, BackendDown, Headers, Upstream, end_to_end

logger = logging.getLogger(__name__)
OURS = ("x-arm", "x-release", "x-probe", "x-gateway-token", "traceparent")  # customers cannot set these
START_SECONDS = 30.0  # until a backend has accepted a run
CALL_SECONDS = 60.0
LINGER = 0.3  # seconds after the last run, for whoever has just got a 202
KEPT = ("run_id", "thread_id", "backend", "authorization", "traceparent", "labels", "said", "approved", "accepted_at")


@dataclass(frozen=True)
class Asking:
    """Who asks, and where their requests go."""

    unit: str
    arm: Arm
    assignment: Assignment | None  # None: the arm was not drawn
    authorization: str
    trace_id: str
    traceparent: str
    probe: bool = False


class Gateway:
    """Everything that is open while the gateway runs."""

    def __init__(
        self, table: RouteTable, router: Router, upstream: Upstream, recorder: Recorder, metrics: GatewayMetrics,
        open_runs: OpenRuns, token: str, limits: Limits,
    ) -> None:  # fmt: skip
        self.table, self.router, self.upstream, self.recorder = table, router, upstream, recorder
        self.metrics, self.open_runs, self.token, self.limits = metrics, open_runs, token, limits
        self.proposals: OpenProposals = recorder.proposals
        self.feed = ThreadFeed(limits.heartbeat)
        self.follower = Follower(upstream, lambda: self.routes.backends, recorder.finished, self._run_over)
        self.shadow = ShadowTraffic(upstream, recorder, metrics, lambda: self.routes.shadow)
        self.stopping, self.drained = asyncio.Event(), asyncio.Event()
        self._drain_task: asyncio.Task[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        self.disk = ThreadPoolExecutor(1, thread_name_prefix="open-runs")
        self._show_weights(Routes())

    @property
    def routes(self) -> Routes:
        """The table in force."""
        return self.table.routes

    def put(self, wanted: Routes) -> Routes:
        """Change the table. Raises RoutesConflict, or LabError: nobody can be drawn by it."""
        before = self.routes
        experiment_of(wanted)
        routes = self.table.put(wanted)
        self.router.use(routes)
        self._show_weights(before)
        return routes

    def _show_weights(self, before: Routes) -> None:
        for arm in before.arms:
            self.metrics.weight.labels(arm.name, arm.release).set(0)
        for arm in self.routes.arms:
            self.metrics.weight.labels(arm.name, arm.release).set(arm.weight)
        self.metrics.number.set(self.routes.number)

    # -- whose request, and where to

    def asking(self, request: Request, thread_id: str | None = None) -> Asking:
        """Who asks, and their arm. Raises ApiError 503 while there are no routes."""
        headers = request.headers
        authorization = headers.get("authorization", "")
        client = request.client.host if request.client else "nobody"
        unit = unit_of(authorization, thread_id, client)
        trace_id, traceparent = next_traceparent(headers.get("traceparent"))
        try:
            arm, assignment = self.router.draw(unit)
        except LabError as error:
            raise ApiError(503, error.message, error.try_next, {"Retry-After": "2"}, "no_routes") from None
        token = headers.get("x-gateway-token", "")
        if token and hmac.compare_digest(token.encode(), self.token.encode()):
            return self._tester(Asking(unit, arm, None, authorization, trace_id, traceparent), headers)
        return Asking(unit, arm, assignment, authorization, trace_id, traceparent)

    def _tester(self, asking: Asking, headers: Mapping[str, str]) -> Asking:
        """Whoever has the gateway's token may name an arm, and says whether it is a probe; no exposure is noted."""
        wanted = headers.get("x-arm")
        arm = self.routes.arm(wanted) if wanted else asking.arm
        if arm is None:
            raise ApiError(422, f"there is no arm {wanted}", ", ".join(arm.name for arm in self.routes.arms))
        return replace(asking, arm=arm, probe="x-probe" in headers)

    def headers(self, request: Request, asking: Asking, arm: Arm) -> Headers:
        """What goes to the backend: the customer's headers, and ours."""
        kept = [(name, value) for name, value in end_to_end(request.headers) if name.lower() not in OURS]
        ours = [("x-arm", arm.name), ("x-release", arm.release), ("traceparent", asking.traceparent)]
        return [*kept, *ours, *([("x-probe", "1")] if asking.probe else [])]

    # -- a run

    async def start_run(self, request: Request, thread_id: str) -> Response:
        """A message or a decision: to the customer's arm, or where its process does not answer, to another one."""
        if self._drain_task is not None:
            raise ApiError(503, "the gateway is about to end", "again in a moment", {"Retry-After": "1"}, "draining")
        began, asking = time.monotonic(), self.asking(request, thread_id)
        body = await request.body()
        said = read_object(body)
        await self._know_proposal(asking, thread_id)
        key = request.headers.get("idempotency-key") or f"gateway-{secrets.token_hex(12)}"
        answer, arm = await self._offer(request, asking, body, key)
        if answer.status == 202:
            run_id = json.loads(answer.body)["run_id"]
            self._follow(run_id, thread_id, asking, arm, said, began)
            self.metrics.accept.labels(arm.name).observe(time.monotonic() - began)
            met = asking.assignment is not None and arm is asking.arm
            if met and not self.router.exposed(asking.assignment):  # a thread's turn beside a busy loop is dear
                new = await asyncio.to_thread(self.router.expose, asking.assignment)
                self.metrics.exposures.labels(arm.name).inc(new)
        elif answer.status == 429 or answer.status >= 500:
            await self.record_refusal(asking, arm, thread_id, str(answer.status), said)
        return plain(answer)

    async def _offer(self, request: Request, asking: Asking, body: bytes, key: str) -> tuple[Answer, Arm]:
        """The first answer that is no "not here". The key makes asking twice harmless: the arms share a database."""
        answer = unreachable()
        for arm in self.router.candidates(asking.arm):
            headers = [pair for pair in self.headers(request, asking, arm) if pair[0].lower() != "idempotency-key"]
            headers.append(("Idempotency-Key", key))
            try:
                answer = await self.upstream.ask(arm.backend, "POST", target_of(request), headers, body, START_SECONDS)
            except BackendDown as error:
                logger.warning("%s: %s", arm.name, error)
                self.metrics.backend_failures.labels(arm.name).inc()
                await self.record_refusal(asking, arm, request.path_params["thread_id"], "unreachable", {})
                continue
            if answer.status == 503:  # it is being drained, or stops
                continue
            if arm is not asking.arm:
                self.metrics.rescued.labels(asking.arm.name).inc()
            return answer, arm
        return answer, asking.arm

    def _follow(
        self, run_id: str, thread_id: str, asking: Asking, arm: Arm, said: Mapping[str, Any], began: float
    ) -> None:
        labels = {"arm": arm.name, "release": arm.release, "unit": asking.unit, "trace_id": asking.trace_id,
                  "thread_id": thread_id, "probe": asking.probe}  # fmt: skip
        run = FollowedRun(
            run_id, thread_id, arm.backend, asking.authorization, asking.traceparent, labels,
            said=said, approved=self.proposals.agreed(thread_id, said),
            accepted_at=time.time() - (time.monotonic() - began), began=began,
        )  # fmt: skip
        if self.follower.follow(run) is run:
            self.metrics.runs.labels(arm.name, arm.release).inc()
            self.metrics.following.set(len(self.follower.running))
            kept = {name: getattr(run, name) for name in KEPT}
            asyncio.get_running_loop().run_in_executor(self.disk, self.open_runs.add, run_id, kept)

    async def recover(self) -> int:
        """Go on reading what a gateway that was killed has left; returns how many."""
        left = await asyncio.to_thread(self.open_runs.all)
        for kept in left:
            began = time.monotonic() - (time.time() - kept["accepted_at"])
            self.follower.follow(FollowedRun(**kept, began=began, resumed=True))
        return len(left)

    async def _know_proposal(self, asking: Asking, thread_id: str) -> None:
        """What waits for a yes in a conversation that this process has not seen before."""
        if thread_id in self.proposals or thread_id in self.follower.by_thread:
            return
        headers = [("Authorization", asking.authorization), ("traceparent", asking.traceparent)]
        try:
            answer = await self.upstream.ask(asking.arm.backend, "GET", f"/threads/{thread_id}", headers, None, 5.0)
        except BackendDown:
            return
        if answer.status == 200:
            self.proposals.set(thread_id, read_object(answer.body).get("proposal"))

    def _run_over(self, run: FollowedRun) -> None:
        self.metrics.following.set(len(self.follower.running))
        if run.backends and run.backend != run.backends[0]:
            self.metrics.moved.inc()
        self.feed.changed(run.thread_id, "run")
        asyncio.get_running_loop().run_in_executor(self.disk, self.open_runs.remove, run.run_id)
        self.recorder.trace(run)
        if not run.labels["probe"] and not run.lost and self.router.shadowed(run.labels["unit"]):
            self.shadow.copy(run)

    async def record_refusal(
        self, asking: Asking, arm: Arm, thread_id: str, why: str, said: Mapping[str, Any]
    ) -> None:
        """A customer who was turned away, or whose arm's process did not answer: that counts against the arm."""
        await self.recorder.add(RunRecord(
            run_id=f"refused-{secrets.token_hex(8)}", trace_id=asking.trace_id, thread_id=thread_id, unit=asking.unit,
            arm=arm.name, release=arm.release, started=time.time(), status="refused", error=why, probe=asking.probe,
            query_chars=len(str(said.get("message") or "")),
        ))  # fmt: skip

    # -- the rest

    async def call(self, asking: Asking, backend: str, method: str, target: str, headers: Headers) -> Answer:
        """A request of the gateway's own, without a body; 502 where nobody answers."""
        try:
            return await self.upstream.ask(backend, method, target, headers, None, CALL_SECONDS)
        except BackendDown as error:
            logger.warning("%s", error)
            self.metrics.backend_failures.labels(asking.arm.name).inc()
            return unreachable()

    async def pass_on(self, request: Request, asking: Asking, first: Arm | str) -> Answer:
        """A request and its whole answer, from the backend that should know, or else from another one."""
        body = await request.body() or None
        arms = self.router.candidates(asking.arm)
        places = [arm.backend for arm in arms]
        if isinstance(first, str):
            places = [first, *(place for place in places if place != first)]
        by_place = {arm.backend: arm for arm in reversed(arms)}
        for place in places:
            arm = by_place.get(place, asking.arm)
            try:
                headers = self.headers(request, asking, arm)
                return await self.upstream.ask(place, request.method, target_of(request), headers, body, CALL_SECONDS)
            except BackendDown as error:
                logger.warning("%s", error)
                self.metrics.backend_failures.labels(arm.name).inc()
        return unreachable()

    async def keep_saved(self, seconds: float = 5.0) -> None:
        """A table that did not get to the disk is written when there is room again."""
        while not self.stopping.is_set():
            await asyncio.sleep(seconds)
            if not self.table.persisted:
                await asyncio.to_thread(self.table.save_again)

    # -- the end

    def begin_drain(self, seconds: float | None = None) -> asyncio.Task[None]:
        """No new run; `drained` is set when those that go on are over, or after so many seconds."""
        if self._drain_task is None:
            self._drain_task = asyncio.create_task(self._drain(seconds))
        return self._drain_task

    async def _drain(self, seconds: float | None) -> None:
        tasks = [run.task for run in self.follower.running.values() if run.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
            await asyncio.sleep(LINGER)
        self.drained.set()

    def begin_stop(self) -> asyncio.Task[None]:
        """Customers are told to come back; runs go on at their backends. The same task at every call."""
        if self._stop_task is None:
            self._stop_task = asyncio.create_task(self._stop())
        return self._stop_task

    async def _stop(self) -> None:
        self.stopping.set()
        self.feed.stop()
        for run in [*self.follower.running.values(), *self.follower.over.values()]:
            run.log.ring()
        await self.shadow.stop()
        await self.follower.stop()
        self.disk.shutdown()
        self.open_runs.close()


def target_of(request: Request) -> str:
    """Path and query as they came."""
    raw, query = request.scope["raw_path"].decode("ascii"), request.scope["query_string"].decode("ascii")
    return f"{raw}?{query}" if query else raw


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def plain(answer: Answer) -> Response:
    """An answer as it came."""
    response = Response(answer.body, answer.status)
    del response.headers["content-length"]
    response.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    response.headers["content-length"] = str(len(answer.body))
    return response


def unreachable() -> Answer:
    """The gateway's own refusal where nobody answers."""
    body = {"error": "no service answers", "try": "again in a few seconds", "code": "unreachable"}
    return Answer(502, [("content-type", "application/json"), ("retry-after", "2")], json.dumps(body).encode())
