"""What a watched service tells instead of its own: a drawn delay and token figures always, and one fault when asked.

slow       three times as long as it took, and 1.5 seconds more
errors     an `error` event and the end, reason `failed`
wrong      another article is cited, and its words are the answer
unsafe     the answer, and after it the e-mail address and telephone number of somebody else

Nothing here is known to the hand-in's code: a good and a bad release are the same files, started by the same command.
This module and watched_service.py run beside the hand-in and import nothing but Python's own library.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

KINDS = ("errors", "slow", "unsafe", "wrong")
SLOWER = (2.0, 1.5)  # times what it took, and seconds, that are waited on top


@dataclass(frozen=True)
class Frame:
    """One server-sent event."""

    id: int
    type: str
    data: dict[str, Any]

    def written(self) -> bytes:
        """As it goes over the line."""
        return f"id: {self.id}\nevent: {self.type}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()


@dataclass(frozen=True)
class Plan:
    """What happens to one run: drawn from the grading's seed and the run's id, the same for whoever reads it again."""

    delay: float  # seconds before its first event
    input_tokens: int
    output_tokens: int
    fault: str = ""
    article: Mapping[str, str] | None = None  # id, title, text: what is cited and told instead
    leak: str = ""


def plan_of(settings: Mapping[str, Any], run_id: str, fault: Mapping[str, Any] | None, language: str) -> Plan:
    """The plan of a run.

    Args:
        settings: seed, delay (mean, seconds), tokens (largest input, output), leaks, articles (language -> list).
        fault: {"kind", "share"} of a release that is bad by now; None for the others.
    """
    rng = Random(f"{settings['seed']} {run_id}")
    most_in, most_out = settings["tokens"]
    delay = settings["delay"] * rng.uniform(0.5, 1.5)
    tokens = rng.randint(most_in // 4, most_in), rng.randint(most_out // 4, most_out)
    article, leak = rng.choice(settings["articles"][language]), rng.choice(settings["leaks"])
    struck = fault is not None and rng.random() < fault["share"]
    return Plan(delay, *tokens, fault=fault["kind"] if fault and struck else "", article=article, leak=leak)


def read_frames(lines: Iterable[str]) -> Iterator[Frame]:
    """Server-sent events from their lines; what is not numbered or no JSON object is passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = fields.get(name, "") + value.removeprefix(" ")
        elif not line:
            if fields.get("id", "").isdigit() and fields.get("data", "").startswith("{"):
                yield Frame(int(fields["id"]), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


def retold(frames: Iterable[Frame], plan: Plan) -> Iterator[Frame]:
    """The events that the customer gets; what is put in between moves the ids of what follows.

    A run has one usage of a language model, the drawn one: right before the end where the hand-in at `cpu` has none.
    """
    retelling, shift = Retelling(plan), 0
    for frame in frames:
        told = retelling.instead(frame)
        for place, each in enumerate(told):
            yield _numbered(each, frame.id + shift + place)
        shift += len(told) - 1
        if told[-1].type == "end":
            return


class Retelling:
    """One run, told as its plan says."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.words = _words(plan.article["text"]) if plan.fault == "wrong" and plan.article else []
        self.said: list[str] = []
        self.cited = self.billed = False

    def instead(self, frame: Frame) -> list[Frame]:
        """What is told instead of an event; the last one takes its place."""
        if self.plan.fault == "errors" and frame.type != "start":
            error = _like(frame, "error", code="internal", message="the answer could not be written", retryable=False)
            return [error, _like(frame, "end", reason="failed", text="")]
        if frame.type == "end":
            return self.ending(frame)
        if frame.type == "usage":
            return [replace(frame, data=frame.data | self.usage())]
        return self.wrongly(frame) if self.plan.fault == "wrong" else [frame]

    def wrongly(self, frame: Frame) -> list[Frame]:
        """Another article is cited, also where none was, and told."""
        article = dict(self.plan.article or {})
        if frame.type == "citation":
            self.cited = True
            return [replace(frame, data=frame.data | article)]
        if frame.type != "token":
            return [frame]
        self.said.append(self.words.pop(0) if self.words else "")
        told = replace(frame, data=frame.data | {"text": self.said[-1]})
        first = [] if self.cited else [_like(frame, "citation", number=1, kind="help", **article)]
        self.cited = True
        return [*first, told]

    def ending(self, frame: Frame) -> list[Frame]:
        """What is told last: the rest of a wrong answer, what should not be said, the tokens, the end."""
        text, extra = str(frame.data.get("text", "")), ""
        if self.said:
            extra = "".join(self.words)
            text = "".join(self.said) + extra
        elif self.plan.fault == "unsafe":
            extra = f" {self.plan.leak}"
            text += extra
        told = [_like(frame, "token", text=extra)] if extra else []
        if not self.billed:
            told.append(_like(frame, "usage", **self.usage(), model="watched", ms=1.0))
        return [*told, replace(frame, data=frame.data | {"text": text})]

    def usage(self) -> dict[str, int]:
        """What the run cost, once."""
        cost = {"input_tokens": self.plan.input_tokens, "output_tokens": self.plan.output_tokens}
        cost, self.billed = {name: 0 for name in cost} if self.billed else cost, True
        return cost


def _like(frame: Frame, type: str, **data: Any) -> Frame:
    """Another event in a frame's place, with what every event of this service has (its run, its time)."""
    common = {name: frame.data[name] for name in ("run_id", "seq", "at") if name in frame.data}
    return Frame(frame.id, type, common | data)


def _numbered(frame: Frame, id: int) -> Frame:
    data = frame.data | ({"seq": id} if "seq" in frame.data else {})
    return replace(frame, id=id, data=data)


def _words(text: str) -> list[str]:
    """Pieces of a text, as a model would stream them: words, or pairs of characters where there are no spaces."""
    flat = " ".join(text.split())[:300]
    if flat.count(" ") > len(flat) / 20:
        return [f"{word} " for word in flat.split()]
    return [flat[place : place + 2] for place in range(0, len(flat), 2)]
