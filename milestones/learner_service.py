"""The learner's customer service as the grader sees it: a command, and its API over HTTP and server-sent events.

    python -m stage3_agents_llmops.agent serve --shop FILE --state FOLDER --no-demo --port PORT
    GET  /health                     200 once it answers
    POST /threads                    {"language"} -> {"thread_id"}
    POST /threads/ID/runs            {"message"} or {"decision": {"proposal_id", "approve"}} -> {"run_id"}
    GET  /runs/ID/events             id:, event:, data: (JSON); `Last-Event-ID` says what was read before
    Authorization: Bearer TOKEN      NAME + "." + base64url(HMAC-SHA256(secret, NAME)) without padding, NAME a
                                     customer's id; the secret is hexadecimal in FOLDER/service.secret

The grader makes the shop and the secret, speaks as its customers do, and looks into the shop's database afterwards.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.scripted_customers.dialogue import Act, Proposal, Say, Turn
from milestones.learner_model import LearnerFault
from milestones.learner_process import LONGEST_ANSWER, LearnerProcess

MODULE = "stage3_agents_llmops.agent"
SECRET = "service.secret"


@dataclass(frozen=True)
class RunEvent:
    """One server-sent event."""

    id: int
    type: str
    data: dict[str, Any]


def make_secret(state: Path) -> bytes:
    """Write the secret that the service finds, so that the grader can speak for customers."""
    state.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_bytes(32)
    path = state / SECRET
    path.touch(mode=0o600)
    path.write_text(secret.hex(), encoding="ascii")
    return secret


def token(secret: bytes, name: str) -> str:
    """What proves that a request is this customer's."""
    signature = base64.urlsafe_b64encode(hmac.new(secret, name.encode(), hashlib.sha256).digest())
    return f"{name}.{signature.rstrip(b'=').decode()}"


class LearnerService(LearnerProcess):
    """The hand-in's service on a shop; the other arguments are those of LearnerProcess. `close` is a `kill -9`.

    Raises (every method):
        LearnerFault: it ends, does not answer in time, or answers something else than the form.
    """

    def __init__(self, folder: Path, shop: Path, state: Path, secret: bytes, runs: Path, **limits: Any) -> None:
        self._secret = secret
        words = [MODULE, "serve", "--shop", str(shop), "--state", str(state), "--no-demo"]
        super().__init__(folder, words, runs, **limits)

    def open_thread(self, customer_id: str, language: str) -> str:
        """A new conversation: its id."""
        return self._text("/threads", customer_id, {"language": language}, "thread_id")

    def begin(self, customer_id: str, thread_id: str, act: Act) -> str:
        """Hand over what the customer does: the run's id."""
        if isinstance(act, Say):
            body: dict[str, Any] = {"message": act.text}
        else:
            body = {"decision": {"proposal_id": act.proposal.proposal_id, "approve": act.approve}}
        return self._text(f"/threads/{thread_id}/runs", customer_id, body, "run_id")

    def told(self, customer_id: str, run_id: str, after: int | None = None) -> list[RunEvent]:
        """The run's events, up to and including `end`; with `after`, those that follow it."""
        headers = self._headers(customer_id) | ({} if after is None else {"Last-Event-ID": str(after)})
        events = []
        with self._open(f"/runs/{run_id}/events", None, headers=headers) as reply:
            for event in parsed(self._lines(reply)):
                events.append(event)
                if event.type == "end":
                    return events
        raise LearnerFault("the events of a run stopped without `end`")

    def _lines(self, reply: Any) -> Iterator[str]:
        read = 0
        for line in reply:
            read += len(line)
            if read > LONGEST_ANSWER or time.monotonic() > self._end:
                raise LearnerFault("the events of a run have no end")
            yield line.decode("utf-8", "replace").rstrip("\r\n")

    def _text(self, path: str, customer_id: str, body: dict[str, Any], name: str) -> str:
        answer = self.ask(path, body, self._headers(customer_id)).get(name)
        if not isinstance(answer, str | int):
            raise LearnerFault(f"{path} gave no {name}")
        return str(answer)

    def _headers(self, customer_id: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token(self._secret, customer_id)}"}


def parsed(lines: Iterator[str]) -> Iterator[RunEvent]:
    """Server-sent events from their lines; comments and events without data are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = fields.get(name, "") + value.removeprefix(" ")
        elif not line and "data" in fields:
            try:
                event = RunEvent(int(fields.get("id", "")), fields.get("event", "message"), json.loads(fields["data"]))
            except ValueError:
                raise LearnerFault("an event has no number as its id, or no JSON as its data") from None
            if not isinstance(event.data, dict):
                raise LearnerFault("an event's data is no JSON object")
            yield event
            fields = {}
        elif not line:
            fields = {}


def turn_of(events: Sequence[RunEvent], seconds: float) -> Turn:
    """What a customer sees of a run; a `start` that says `resumed` voids what was told before it.

    Raises:
        LearnerFault: an event lacks what its form has.
    """
    told: list[RunEvent] = []
    for event in events:
        told = [] if event.type == "start" and event.data.get("resumed") else told
        told.append(event)
    last = {event.type: event.data for event in told}
    end, asked = last["end"], last.get("interrupt")
    try:
        proposal = None
        if asked and end["reason"] == "waiting":
            proposal = Proposal(str(asked["proposal_id"]), str(asked["tool"]), dict(asked["arguments"]))
        slot = last.get("slots", {}).get("asked")
        return Turn(
            str(end["text"]), proposal, str(slot) if slot else None, str(end["reason"]),
            tuple(event.data for event in told if event.type == "citation"), seconds=seconds,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise LearnerFault("an event lacks a field that milestones/README.md names") from None


def streamed_well(events: Sequence[RunEvent], replayed: Sequence[RunEvent], half: int) -> bool:
    """Whether ids rise, there is one `end`, the tokens make the answer in pieces, and the second half replays."""
    resumed = [place for place, event in enumerate(events) if event.type == "start" and event.data.get("resumed")]
    told = events[resumed[-1] :] if resumed else events
    tokens = [str(event.data.get("text", "")) for event in told if event.type == "token"]
    text = str(told[-1].data.get("text", ""))
    return (
        [event.id for event in events] == sorted({event.id for event in events})
        and [event.type for event in events].count("end") == 1
        and "".join(tokens).strip() == text.strip() != ""
        and len([piece for piece in tokens if piece]) >= min(2, len(text.split()))
        and list(replayed) == list(events[half:])
    )
