"""From a followed run to its row in the run log; and what customers say about a run afterwards.

The gateway writes the row and not the release: a release that is wrong about itself must not be its own witness.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.monitoring import RunLog, RunRecord, record_from_events
from stage3_agents_llmops.pipeline.gateway.following import FollowedRun
from stage3_agents_llmops.pipeline.gateway.gateway_metrics import GatewayMetrics

logger = logging.getLogger(__name__)
REMEMBERED = 100_000  # conversations whose open question is kept in mind


class OpenProposals:
    """What waits for a customer's yes, by conversation: a write after it is not a write without asking."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Mapping[str, Any] | None] = OrderedDict()

    def __contains__(self, thread_id: str) -> bool:
        return thread_id in self._open

    def get(self, thread_id: str) -> Mapping[str, Any] | None:
        """The data of the `interrupt` that is open."""
        return self._open.get(thread_id)

    def set(self, thread_id: str, proposal: Mapping[str, Any] | None) -> None:
        """A run ended with this question open, or with none."""
        self._open[thread_id] = proposal
        self._open.move_to_end(thread_id)
        while len(self._open) > REMEMBERED:
            self._open.popitem(last=False)

    def agreed(self, thread_id: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The proposal that a request says yes to, by a button or in words."""
        from stage3_agents_llmops.agent.understanding import reply_kind

        proposal, decision = self.get(thread_id), body.get("decision")
        if proposal is None:
            return None
        if isinstance(decision, dict):
            yes = decision.get("approve") is True and decision.get("proposal_id") == proposal.get("proposal_id")
        else:
            yes = reply_kind(str(body.get("message") or "")) == "yes"
        return proposal if yes else None


class Recorder:
    """Writes rows, in a thread. A run log that cannot be written costs rows and no customer.

    Args:
        tracer: monitoring's RunTracer, or None.
    """

    def __init__(self, path: Path, metrics: GatewayMetrics, proposals: OpenProposals, tracer: Any = None) -> None:
        self.run_log, self.metrics, self.proposals, self.tracer = RunLog(path), metrics, proposals, tracer

    async def finished(self, run: FollowedRun) -> None:
        """A run is over: its row, and what it leaves open."""
        seen = run.seen
        waiting = bool(seen) and seen[-1].type == "end" and seen[-1].data.get("reason") == "waiting"
        asked = [event.data for event in seen if event.type == "interrupt"]
        self.proposals.set(run.thread_id, asked[-1] if waiting and asked else None)
        try:
            record = record_from_events(
                seen, run_id=run.run_id, started=run.accepted_at, query=run.query, approved=run.approved,
                instance=run.backends[-1].rpartition(":")[2] if run.backends else "", **run.labels,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:  # events that no release of ours tells
            logger.error("run %s told what cannot be recorded: %r", run.run_id, error)
            record = RunRecord(run_id=run.run_id, started=run.accepted_at, status="failed", error="malformed",
                               **run.labels)  # fmt: skip
        run.record = record
        await self.add(record)

    def trace(self, run: FollowedRun) -> None:
        """The trace of a run that is over; the exporter has a thread of its own."""
        if self.tracer is None or run.record is None:
            return
        try:
            self.tracer.trace(run.record, run.seen, span_id=run.traceparent.split("-")[2])
        except Exception:  # whatever a tracer does, the customers are served
            logger.exception("run %s has no trace", run.run_id)

    async def add(self, record: RunRecord) -> None:
        """One row."""
        try:
            await asyncio.to_thread(self.run_log.add, record)
        except LabError as error:
            self.metrics.unrecorded.inc()
            logger.error("a run is not recorded: %s", error)

    async def update(self, run_id: str, **changes: Any) -> bool:
        """What is known later; False where the run has no row."""
        try:
            return await asyncio.to_thread(self.run_log.update, run_id, **changes)
        except LabError as error:
            logger.error("%s", error)
            return False

    async def click(self, run_id: str) -> bool:
        """A customer has opened a citation."""
        try:
            return await asyncio.to_thread(self.run_log.click, run_id)
        except LabError as error:
            logger.error("%s", error)
            return False

    def close(self) -> None:
        """Close the file, and let the last traces out."""
        self.run_log.close()
        if self.tracer is not None:
            self.tracer.close()
