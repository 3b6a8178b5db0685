"""Opens an event stream within the limits, and frees its place when it ends."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.service import Service
from stage3_agents_llmops.agent.service.sse import EventStream

FRAME = 'id: 1\nevent: start\ndata: {"thread_id": "th_5f0c", "turn": 1, "run_id": "run_9b1f", "seq": 1, "at": 1.0}\n\n'
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "frames until the end", "content": {"text/event-stream": {"schema": {"type": "string"},
          "example": FRAME}}}
}  # fmt: skip


def open_stream(
    service: Service, name: str, frames: AsyncIterator[bytes], on_close: Callable[[], None] = lambda: None
) -> EventStream:  # fmt: skip
    """A response that sends frames. Raises ApiError 429 when the caller, or all together, have too many open."""
    try:
        service.streams.take(name, service.limits.retry_after)
    except ApiError:
        service.metrics.refused.labels("streams").inc()
        on_close()
        raise
    service.metrics.streams.inc()

    def close() -> None:
        service.streams.give_back(name)
        service.metrics.streams.dec()
        on_close()

    return EventStream(frames, service.limits.write_seconds, service.metrics.slow_readers.inc, close)
