"""How a run ends: answered, waiting for a yes, with a person, or failed; in words, and with exactly one `end`."""

from typing import Any

from stage3_agents_llmops.agent.events import Event
from stage3_agents_llmops.agent.wording import say


def ending(snapshot: Any) -> list[Event]:
    """The last events of a run that came to its end or waits."""
    values = snapshot.values
    text = values.get("answer", "")
    if snapshot.interrupts:
        asked = dict(snapshot.interrupts[0].value)
        return [Event("interrupt", asked), Event("end", {"reason": "waiting", "text": text})]
    called = any(said["code"].startswith("human_queued") for said in values.get("outcomes", []))
    reason = "human" if values.get("human_active") or called else "answered"
    return [Event("end", {"reason": reason, "text": text})]


def stale(language: str) -> list[Event]:
    """The end of a run that decides what is no longer open."""
    text = say("stale_proposal", language)
    return failed("stale_proposal", "this proposal is not open any more", False, text)


def failed(code: str, message: str, retryable: bool, text: str) -> list[Event]:
    """An error and its end."""
    tokens = [Event("token", {"text": text})] if text else []
    return [Event("error", {"code": code, "message": message, "retryable": retryable}), *tokens,
            Event("end", {"reason": "failed", "text": text})]  # fmt: skip
