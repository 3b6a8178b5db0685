"""The engine in a thread of its own, its answers as asynchronous streams.

One thread computes step after step; requests come in and leave between two steps only, so the engine itself needs no
lock. A client that goes away is noticed by whoever reads its stream; its blocks are free before the next step begins.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

from stage2_rag_finetune_deploy.serving.mini_engine.engine import Engine, StepOutput
from stage2_rag_finetune_deploy.serving.mini_engine.engine_metrics import EngineMetrics
from stage2_rag_finetune_deploy.serving.mini_engine.sampling_params import SamplingParams


class Overloaded(Exception):
    """Too many requests wait already."""


class EngineStopped(Exception):
    """The engine computes no more; the text says why."""


@dataclass
class Stream:
    """An open request: where its outputs go, and when it came."""

    request_id: str
    prompt_ids: list[int]
    params: SamplingParams
    loop: asyncio.AbstractEventLoop
    outputs: asyncio.Queue[StepOutput | EngineStopped] = field(default_factory=asyncio.Queue)
    arrived: float = field(default_factory=time.monotonic)
    last: float | None = None  # when its last token came


def give(pairs: list[tuple[Stream, StepOutput | EngineStopped]]) -> None:
    """Hand outputs to their readers, from another thread: one call for each event loop, because each wakes it up."""

    def put(some: list[tuple[Stream, StepOutput | EngineStopped]]) -> None:
        for stream, output in some:
            stream.outputs.put_nowait(output)

    for loop in {stream.loop for stream, _ in pairs}:
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            loop.call_soon_threadsafe(put, [pair for pair in pairs if pair[0].loop is loop])


class AsyncEngine:
    """An engine that many coroutines ask at once.

    Args:
        max_waiting: requests that may be open beyond those that can run.
    """

    def __init__(self, engine: Engine, max_waiting: int = 64, metrics: EngineMetrics | None = None) -> None:
        self.engine, self.metrics = engine, metrics or EngineMetrics("model")
        self.most_open = engine.config.max_num_seqs + max_waiting
        self.stopped: EngineStopped | None = None
        self._streams: dict[str, Stream] = {}
        self._new: list[Stream] = []
        self._gone: list[str] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def open_requests(self) -> int:
        """Requests that wait or run."""
        return len(self._streams)

    def submit(self, prompt_ids: list[int], params: SamplingParams) -> Stream:
        """Put a request in the line; read it with `read`.

        Raises:
            Overloaded: too many are open.
            EngineStopped: the engine computes no more.
            LabError: the prompt is empty or does not fit.
        """
        self.engine.check_prompt(prompt_ids, params)
        with self._changed:
            if self.stopped:
                raise self.stopped
            if len(self._streams) >= self.most_open:
                self.metrics.refused.inc()
                raise Overloaded(f"{len(self._streams)} requests are open")
            stream = Stream(f"r{next(self._numbers)}", prompt_ids, params, asyncio.get_running_loop())
            self._streams[stream.request_id] = stream
            self._new.append(stream)
            self._changed.notify()
        return stream

    async def read(self, stream: Stream) -> AsyncIterator[StepOutput]:
        """The outputs of a request, one a token. A reader that stops early aborts it: close the iterator.

        Raises:
            EngineStopped: the engine ended before the answer.
        """
        try:
            while True:
                output = await stream.outputs.get()
                if isinstance(output, EngineStopped):
                    raise output
                yield output
                if output.finish_reason:
                    return
        finally:
            self.abort(stream.request_id)

    def abort(self, request_id: str) -> None:
        """Forget a request; does nothing for one that has ended."""
        with self._changed:
            if self._streams.pop(request_id, None):
                self._gone.append(request_id)
                self._changed.notify()

    def stop(self, reason: str, wait: bool = True) -> None:
        """End all open requests with `reason`, and the thread."""
        with self._changed:
            self.stopped = self.stopped or EngineStopped(reason)
            give([(stream, self.stopped) for stream in self._streams.values()])
            self._streams.clear()
            self._changed.notify()
        if wait:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._take_changes():
                self._deliver(self.engine.step())
        except Exception as error:  # a bug: everybody who waits has to hear of it
            self.stop(f"the engine failed: {type(error).__name__}: {error}", wait=False)
            raise

    def _take_changes(self) -> bool:
        """Wait until there is something to compute, let requests in and out; False when the engine is stopped."""
        with self._changed:
            while not (self.stopped or self._new or self._gone or self.engine.unfinished):
                self._changed.wait()
            new, gone, self._new, self._gone = self._new, self._gone, [], []
            if self.stopped:
                return False
        for stream in new:
            self.engine.add_request(stream.request_id, stream.prompt_ids, stream.params)
        for request_id in gone:
            if self.engine.abort(request_id):
                self.metrics.ended("abort")
        return True

    def _deliver(self, outputs: list[StepOutput]) -> None:
        """Give each stream its output, and count."""
        now = time.monotonic()
        with self._changed:
            found = [(self._streams.get(output.request_id), output) for output in outputs]
            for output in outputs:
                if output.finish_reason:
                    self._streams.pop(output.request_id, None)
        pairs = [(stream, output) for stream, output in found if stream]  # the others' readers left during the step
        for stream, output in pairs:
            self.metrics.token(now, stream.arrived, stream.last)
            stream.last = now
            if output.finish_reason:
                self.metrics.ended(output.finish_reason, now - stream.arrived, len(stream.prompt_ids))
        self.metrics.state(self.engine.scheduler)
        give(pairs)
