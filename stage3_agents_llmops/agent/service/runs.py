"""A run lives in a task of its own. Connections come and go; only `cancel`, its end or a time limit stops it.

    POST -> create -> task: agent.stream -> log -> any number of readers

Iterating the graph inside the request would tie the two together the wrong way round: when the tab closes, LangGraph's
subgraphs go on asking models for nobody (issues 5682 and 8302 there), and when the connection breaks for a second the
answer is lost. Cancelling the task reaches every await below it, in nested graphs too.

What a process that died left unfinished goes on in the next one, under the same run id, with the next number.
"""

import asyncio
import logging
import secrets
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.agent.events import SCHEMA, Decision
from stage3_agents_llmops.agent.service import database as db
from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.event_log import EventWriter, Logged, Reader, RunLog, event_row
from stage3_agents_llmops.agent.service.instances import MAIN
from stage3_agents_llmops.agent.service.limits import Limits, Places, retry_after
from stage3_agents_llmops.agent.service.metrics import ServiceMetrics
from stage3_agents_llmops.agent.service.run import Agent, Asked, Run

logger = logging.getLogger(__name__)
ATTEMPTS = 3  # processes that may die over one run before it is given up
TITLE_CHARS = 60
USUAL_SECONDS = 1.0  # what a run takes, before any was measured
UNSTORED = 256  # events of all runs that may wait to be stored before the agents wait for them
QUIET = 0.03  # seconds without a request until the agents work in a crowd
PATIENCE = 0.25  # seconds that they wait for that at most
LINGER = 0.3  # seconds after the last run of a drained instance


class RunManager:
    """Creates runs, drives them, finds them again.

    Args:
        agent: whatever streams events.
        on_change: called with a thread's id when one of its runs has ended.
        instance: this process's name; runs of dead instances are taken over.
    """

    def __init__(
        self, agent: Agent, database: db.ServiceDatabase, limits: Limits, metrics: ServiceMetrics,
        on_change: Callable[[str], None] = lambda thread_id: None, instance: str = MAIN,
    ) -> None:  # fmt: skip
        self.agent, self.database, self.limits, self.metrics = agent, database, limits, metrics
        self.on_change, self.instance = on_change, instance
        self.writer = EventWriter(database, metrics.unstored.inc)
        self.places = Places("runs", limits.active, limits.active_per_customer)
        self.work = asyncio.Semaphore(limits.working)
        self.by_id: dict[str, Run] = {}
        self.by_thread: dict[str, Run] = {}
        self.over: OrderedDict[str, Run] = OrderedDict()
        self.seconds = USUAL_SECONDS  # of a run, a moving average
        self.asked_at = 0.0  # monotonic; when a request came last
        self.stopping: asyncio.Task[None] | None = None
        self.draining: asyncio.Task[None] | None = None
        self.drained = asyncio.Event()  # nothing goes on and nothing will: the process may end

    # -- creating

    async def create(self, thread: dict[str, Any], asked: Asked) -> str:
        """Accept a run; returns its id.

        Raises:
            ApiError: 409 the thread has one or the proposal is no longer open, 422 the key was used for something else,
                429 too many, 503 the service stops.
        """
        thread_id, customer_id = thread["thread_id"], thread["customer_id"]
        if self.stopping:
            raise ApiError(503, "the service is stopping", "again in a few seconds", {"Retry-After": "3"}, "stopping")
        if self.draining:
            raise ApiError(503, "this instance takes no more runs", "again: another one answers", {"Retry-After": "1"},
                           "draining")  # fmt: skip
        if thread_id in self.by_thread:
            if before := await self._made_before(thread_id, asked):
                return before
            raise ApiError(409, "a run of this conversation is going on", "wait for its end, or cancel it")
        self.places.take(customer_id, self.wait_seconds())
        self.asked_at = time.monotonic()
        run_id = f"run_{secrets.token_hex(8)}"
        run = Run(run_id, thread_id, customer_id, asked, RunLog(run_id, 0, self.limits.held_events))
        self._reserve(run)
        try:
            await self._check_proposal(run)
            title = (asked.message or "")[:TITLE_CHARS]
            row = self._row(run)
            told = await self.database.call(db.add_run, row, title, lambda turn: self._first_event(run, turn))
        except BaseException as error:
            self._release(run)
            if not isinstance(error, sqlite3.IntegrityError | ApiError):
                raise
            # Only now: a key is nearly always new, and asking first would cost every request a turn of a busy loop.
            if before := await self._made_before(thread_id, asked):
                return before
            if isinstance(error, ApiError):
                raise
            raise ApiError(409, "a run of this conversation is going on", "wait for its end") from None
        if told is not None:
            run.log.given = 1
            run.log.publish(Logged.of(*told[1:]))
            self._measure(run, "start", {}, first=True)
        self._launch(run, resume=False)
        return run_id

    def _first_event(self, run: Run, turn: int) -> db.EventRow:
        """`start`, stored together with the run: a reader sees a sign of life before the agents have read anything."""
        data = {"thread_id": run.thread_id, "turn": turn, "resumed": False, "schema": SCHEMA, **self.agent.facts}
        run.turn = turn
        return event_row(run.run_id, 1, "start", data)

    async def _made_before(self, thread_id: str, asked: Asked) -> str | None:
        if asked.key is None:
            return None
        running = self.by_thread.get(thread_id)
        if running and running.asked.key == asked.key:
            run_id, mac = running.run_id, running.asked.mac
        elif row := await self.database.call(db.run_with_key, thread_id, asked.key):
            run_id, mac = row["run_id"], row["request_mac"]
        else:
            return None
        if mac != asked.mac:
            raise ApiError(422, "this Idempotency-Key was used for another request", "a fresh key for each request")
        return run_id

    async def _check_proposal(self, run: Run) -> None:
        if run.asked.decision is None:
            return
        proposal = (await self.agent.snapshot(run.thread_id)).get("proposal")
        if not proposal or proposal["proposal_id"] != run.asked.decision.proposal_id:
            raise ApiError(409, "this proposal is no longer open", "GET the thread for what is open now")

    def _row(self, run: Run) -> dict[str, Any]:
        asked, decision = run.asked, run.asked.decision
        proposal_id, approve = (decision.proposal_id, decision.approve) if decision else (None, None)
        return {
            "run_id": run.run_id, "thread_id": run.thread_id, "customer_id": run.customer_id,
            "message": asked.message, "message_run": decision is None, "proposal_id": proposal_id, "approve": approve,
            "request_key": asked.key, "request_mac": asked.mac, "created_at": run.created_at,
            "instance": self.instance,
        }  # fmt: skip

    def wait_seconds(self) -> int:
        """What a refused client is told to wait."""
        return retry_after(self.places.total, self.limits.working, self.seconds, self.limits.retry_after)

    def _reserve(self, run: Run) -> None:
        self.by_id[run.run_id] = self.by_thread[run.thread_id] = run
        self._count()

    def _release(self, run: Run) -> None:
        self.places.give_back(run.customer_id)
        del self.by_id[run.run_id], self.by_thread[run.thread_id]
        self._count()

    def _count(self) -> None:
        self.metrics.active.set(len(self.by_id))
        self.metrics.waiting.set(sum(not run.working for run in self.by_id.values()))

    def _launch(self, run: Run, resume: bool) -> None:
        run.task = asyncio.create_task(self._drive(run, resume), name=run.run_id)

    # -- driving

    async def _drive(self, run: Run, resume: bool) -> None:
        """Let the agent work until it ends, is cancelled, or has had too long; then see to it that there is an end."""
        pump = asyncio.create_task(self._pump(run, resume))
        stop = asyncio.create_task(run.cancelled.wait())
        try:
            await asyncio.wait({pump, stop}, timeout=self.limits.run_seconds, return_when=asyncio.FIRST_COMPLETED)
            if not pump.done():
                run.closing = True
                pump.cancel()
                await asyncio.wait({pump}, timeout=self.limits.cancel_seconds)
            await self._see_to_end(run, pump)
        except asyncio.CancelledError:  # the service stops: the next process goes on
            run.closing = True
            pump.cancel()
            await asyncio.wait({pump}, timeout=self.limits.cancel_seconds)
            raise
        finally:
            stop.cancel()
            self._over(run, pump)

    def _over(self, run: Run, pump: asyncio.Task[None]) -> None:
        """Keep the run readable; free its thread when the agent has really let go of it."""
        self.over[run.run_id] = run
        while len(self.over) > self.limits.held_runs:
            self.over.popitem(last=False)

        def free(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() and run.closing:
                logger.warning("run %s: the agent's clean-up failed: %r", run.run_id, task.exception())
            self._release(run)
            self.on_change(run.thread_id)

        if pump.done():
            free(pump)
        else:
            logger.warning("run %s: the agent has not stopped yet", run.run_id)
            pump.add_done_callback(free)

    async def _pump(self, run: Run, resume: bool) -> None:
        """The agent's events into the log. The first one goes out at once; then the run waits for a place to work.

        An answer's tokens come faster than they can be stored one by one, so they are not waited for, unless too many
        are under way: a transaction then takes all that have come meanwhile.
        """
        asked = run.asked
        stream = self.agent.stream(
            thread_id=run.thread_id, customer_id=run.customer_id, message=asked.message, decision=asked.decision,
            resume=resume, run_id=run.run_id, language=asked.language,
        )  # fmt: skip
        try:
            if run.turn is not None:  # `start` has been told with the request
                await self._begin_work(run)
            async with aclosing(stream) as events:
                async for event in events:
                    if run.closing or run.end_told:
                        break
                    if event.type != "start" or self._is_news(run, event.data):
                        told = self._note(run, event.type, event.data)
                        if run.end_told or len(self.writer.waiting) >= UNSTORED:
                            await told
                    if not run.working and not run.end_told:
                        await self._begin_work(run)
        finally:
            if run.working:
                run.working = False
                self.work.release()
                self._count()

    async def _begin_work(self, run: Run) -> None:
        """Wait for a place among those that use models.

        In a crowd the requests go first: agents and HTTP share one loop, and everybody who is just coming in would wait
        for the first ones' answers before seeing a sign of life.
        """
        latest = time.monotonic() + PATIENCE
        while len(self.by_id) > 1 and self.asked_at + QUIET > time.monotonic() < latest:
            await asyncio.sleep(QUIET)
        await self.work.acquire()
        run.working = True
        self._count()

    def _is_news(self, run: Run, data: dict[str, Any]) -> bool:
        """Whether the agents' `start` says more than the one that was told when the run was accepted."""
        expected, run.turn = run.turn, None
        if expected is not None and data["turn"] != expected:
            logger.warning("run %s is turn %s, not %s", run.run_id, data["turn"], expected)
        return data["turn"] != expected or data["resumed"]

    async def tell(self, run: Run, type: str, data: dict[str, Any]) -> None:
        """One event into the log and the figures; a caller that is cancelled here has told it all the same."""
        await asyncio.shield(self._note(run, type, data))

    def _note(self, run: Run, type: str, data: dict[str, Any]) -> asyncio.Future[None]:
        """The same, not waited for; the figures are of the moment when readers can see it."""
        run.end_told = run.end_told or type == "end"
        first = run.log.given == 0
        done = self.writer.add(run.log, type, data)
        done.add_done_callback(lambda _: self._measure(run, type, data, first))
        return done

    def _measure(self, run: Run, type: str, data: dict[str, Any], first: bool) -> None:
        seconds = time.monotonic() - run.began
        self.metrics.saw(type, data)
        if first:
            self.metrics.first_event.observe(seconds)
        if type == "token" and not run.token_told:
            run.token_told = True
            self.metrics.first_token.observe(seconds)
        if type == "end":
            self.metrics.runs.labels(data["reason"]).inc()
            self.metrics.run_seconds.observe(seconds)
            self.seconds += 0.1 * (seconds - self.seconds)

    async def _see_to_end(self, run: Run, pump: asyncio.Task[None]) -> None:
        """Exactly one `end`, whatever the agent did."""
        failure = pump.exception() if pump.done() and not pump.cancelled() else None
        if run.end_told:
            return
        if run.cancelled.is_set():
            text = await self.agent.cancelled_text(run.thread_id)
            await self.tell(run, "end", {"reason": "cancelled", "text": text})
            return
        if not pump.done() or pump.cancelled():
            code, message = "timeout", "this took too long and was given up"
        elif isinstance(failure, LabError):
            code, message = "refused", f"{failure.message} ({failure.try_next})"
        else:
            logger.error("run %s failed", run.run_id, exc_info=failure)
            code, message = "internal", "something went wrong here, please send it again"
        await self.tell(run, "error", {"code": code, "message": message, "retryable": True})
        await self.tell(run, "end", {"reason": "failed", "text": ""})

    # -- finding, cancelling, going on, stopping

    async def find(self, run_id: str) -> Run | None:
        """A run, from memory or else from the database."""
        run = self.by_id.get(run_id) or self.over.get(run_id)
        if run is not None:
            return run
        row = await self.database.call(db.run_row, run_id)
        if row is None:
            return None
        if row["status"] == "running" and row["instance"] != self.instance:
            raise ApiError(421, "another instance works on this run", "the gateway knows which", code="elsewhere")
        if row["status"] == "running":
            return None
        log = RunLog(run_id, row["last_seq"])
        log.closed = True
        return Run(run_id, row["thread_id"], row["customer_id"], Asked(), log, row["created_at"])

    def cancel(self, run: Run) -> None:
        """Stop a run; nothing happens to one that is over."""
        run.cancelled.set()

    def open_reader(self, run: Run, cursor: int | None) -> Reader:
        """A reader of a run; `close_reader` when it is gone."""
        reader = Reader(self.database, run.log, cursor, self.limits.heartbeat, self.metrics.replayed.inc,
                        self.metrics.resyncs.inc)  # fmt: skip
        reader.stopping = self.stopping is not None and self.stopping.done()
        run.readers.add(reader)
        self.asked_at = time.monotonic()
        return reader

    async def take_up(self, row: dict[str, Any]) -> None:
        """Go on with a run where it was cut off; give one up that was cut off too often."""
        decision = Decision(row["proposal_id"], bool(row["approve"])) if row["proposal_id"] else None
        asked = Asked(row["message"], decision, row["request_key"], row["request_mac"], row["language"])
        log = RunLog(row["run_id"], row["last_seq"], self.limits.held_events)
        run = Run(row["run_id"], row["thread_id"], row["customer_id"], asked, log, row["created_at"])
        self.places.hold(run.customer_id)
        self._reserve(run)
        await self.database.call(db.count_attempt, run.run_id)
        self.metrics.resumed.inc()
        if row["attempts"] >= ATTEMPTS:
            await self._give_up(run)
        else:
            self._launch(run, resume=True)

    async def _give_up(self, run: Run) -> None:
        logger.error("run %s was cut off %d times and is given up", run.run_id, ATTEMPTS)
        message = "this run was cut off several times and is given up"
        await self.tell(run, "error", {"code": "cut_off", "message": message, "retryable": False})
        await self.tell(run, "end", {"reason": "failed", "text": ""})
        self.over[run.run_id] = run
        self._release(run)

    def begin_drain(self, seconds: float | None = None) -> asyncio.Task[None]:
        """Take nothing new and let what goes on come to its end, for so many seconds at most. One task at all calls."""
        if self.draining is None:
            self.draining = asyncio.create_task(self._drain(seconds))
        return self.draining

    async def _drain(self, seconds: float | None) -> None:
        tasks = {run.task for run in self.by_id.values() if run.task}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
            await asyncio.sleep(LINGER)  # whoever has just got a 202 opens the stream
        self.drained.set()

    def begin_stop(self) -> asyncio.Task[None]:
        """Take nothing new; give runs their grace, then let readers and runs go. The same task at every call."""
        if self.stopping is None:
            self.stopping = asyncio.create_task(self._stop())
        return self.stopping

    async def _stop(self) -> None:
        tasks = {run.task for run in self.by_id.values() if run.task}
        if tasks:
            grace = 0.0 if self.drained.is_set() else self.limits.grace  # they have had it
            await asyncio.wait(tasks, timeout=grace)
        for run in [*self.by_id.values(), *self.over.values()]:
            for reader in run.readers:
                reader.stopping = True
            run.log.ring()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.writer.flush()
