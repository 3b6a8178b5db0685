"""The W3C `traceparent` that ties a customer's request to what the service, the search and the model did for it."""

import re
import secrets

FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def next_traceparent(given: str | None) -> tuple[str, str]:
    """(trace id, traceparent to send on): the caller's trace, or a new one, with a span of our own.

    Source: W3C Trace Context, section 3.2; a header that is malformed, or all zeros, begins a new trace.
    """
    found = FORM.fullmatch((given or "").strip().lower())
    sound = found and set(found[1]) != {"0"} and set(found[2]) != {"0"}
    trace_id, flags = (found[1], found[3]) if sound else (secrets.token_hex(16), "01")
    return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"
