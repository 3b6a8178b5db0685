"""Drawn traffic for the demo and the tests: event streams as the agents tell them, on a clock that need not tick.

The pipeline lab has real customers of real services; here a few virtual minutes with a fault in them are wanted within
seconds. What is drawn are events with the agents' own types and fields (`agent.events` checks them) and the times at
which they arrive. Everything after that is what runs in production: record_from_events, the table, metrics, rules.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from stage3_agents_llmops.agent.events import Event
from stage3_agents_llmops.monitoring.run_record import RunRecord, Seen, record_from_events

INTENTS = {"order_status": 30, "return_item": 18, "refund_status": 14, "product_question": 16, "cancel_order": 10,
           "open_complaint": 7, "human_agent": 3, "greeting": 2}  # fmt: skip
SHIFTED = {"order_status": 10, "return_item": 12, "refund_status": 12, "product_question": 10, "cancel_order": 14,
           "open_complaint": 36, "human_agent": 5, "greeting": 1}  # fmt: skip
QUESTIONS = {
    "order_status": ("Where is my order KM204817?", "我的订单 KM204817 到哪里了？"),
    "return_item": ("I would like to send the lamp back, how does that work?", "台灯不合适，我想退货。"),
    "refund_status": ("When do I get my money?", "退款什么时候到账？"),
    "product_question": ("Is the kettle safe for children and does it switch itself off?", "这个水壶会自动断电吗？"),
    "cancel_order": ("Please cancel KM204818.", "请取消 KM204818。"),
    "open_complaint": ("The box was open and the cup inside is broken, this is the second time now.",
                       "箱子破了，里面的杯子也碎了，这已经是第二次了。"),
    "human_agent": ("A person, please.", "转人工。"),
    "greeting": ("Hello", "你好"),
}  # fmt: skip
ANSWER = ("Here", "is", "what", "I", "found", "about", "it", "and", "the", "article", "says", "more", "[1]")
ARTICLES = {"return_item": "return-window", "refund_status": "refund-time", "product_question": "product-safety"}


@dataclass(frozen=True)
class Behaviour:
    """How a release answers.

    Attributes:
        median: seconds of an answer; `spread` is the logarithm's standard deviation.
        errors: share of runs that fail.
        hits: share of probes that cite the right article; of the others half cite a wrong one.
        thumbs_up: share of the thumbs.
        leaks: share of answers with a telephone number in them.
    """

    median: float = 0.5
    spread: float = 0.45
    errors: float = 0.005
    hits: float = 0.92
    thumbs_up: float = 0.88
    leaks: float = 0.0


@dataclass(frozen=True)
class Share:
    """An arm: its part of the traffic, and how its release behaves."""

    arm: str
    release: str
    weight: float
    behaviour: Behaviour = Behaviour()


def telling(rng: random.Random, intent: str, how: Behaviour) -> list[Seen]:
    """One run's events and when they arrive."""
    whole = how.median * rng.lognormvariate(0.0, how.spread)
    told: list[tuple[float, Event]] = [
        (0.02, Event("start", {"thread_id": "t", "turn": 1, "run_id": "r", "understander": "classifier",
                               "wording": "templates", "resumed": False, "schema": 1})),
        (0.1, Event("intent", {"intent": intent, "confidence": round(rng.uniform(0.6, 1.0), 3), "abstain": False,
                               "source": "classifier", "request": 1, "of": 1})),
    ]  # fmt: skip
    if rng.random() < how.errors:
        told.append((0.5, Event("error", {"code": "internal", "message": "it failed", "retryable": True})))
        return arrived([*told, (0.5, Event("end", {"reason": "failed", "text": ""}))], whole)
    if intent in ARTICLES:
        score = min(1.0, max(0.0, rng.gauss(0.68, 0.12)))
        found = {"passages": [f"en/{ARTICLES[intent]}"], "confident": True, "score": round(score, 4)}
        told.append((0.4, Event("tool", {"name": "search_help", "arguments": {}, "phase": "result", "ok": True,
                                         "sensitive": False, "write": False, "result": found})))  # fmt: skip
        told.append((0.6, Event("citation", {"number": 1, "id": f"en/{ARTICLES[intent]}", "title": "", "text": "",
                                             "kind": "help"})))  # fmt: skip
    words = [*ANSWER[: rng.randint(4, len(ANSWER))], *(["138 1234 5678"] if rng.random() < how.leaks else [])]
    told += [(0.6 + 0.4 * place / len(words), Event("token", {"text": f"{word} "})) for place, word in enumerate(words)]
    reason = "human" if intent == "human_agent" else "answered"
    if reason == "human":
        told.append((0.95, Event("human", {"ticket_id": "T1", "position": 1})))
    return arrived([*told, (1.0, Event("end", {"reason": reason, "text": ""}))], whole)


def arrived(told: Sequence[tuple[float, Event]], whole: float) -> list[Seen]:
    """Shares of the run's time become seconds."""
    return [Seen(event.type, event.data, round(part * whole, 5)) for part, event in told]


def customer_runs(
    seed: int | str, shares: Sequence[Share], start: float, seconds: float, rate: float,
    mix: dict[str, int] | None = None,
    on_run: Callable[[RunRecord, list[Seen]], object] = lambda row, seen: None,
) -> Iterator[RunRecord]:  # fmt: skip
    """Customers' rows over a stretch of time.

    Args:
        seed: of the draw; with the same seed the same customers come at the same distances from `start`.
        rate: runs a second, of all arms together.
        mix: intent -> weight; None: INTENTS.
        on_run: called with each row and its events, to trace it.
    """
    rng = random.Random(f"traffic-{seed}")
    mix = mix or INTENTS
    now, number = start + rng.expovariate(rate), 0
    while now < start + seconds:
        share = rng.choices(shares, [each.weight for each in shares])[0]
        intent = rng.choices(list(mix), list(mix.values()))[0]
        query = rng.choice(QUESTIONS[intent]) + " Thank you!" * rng.randint(0, 3)
        seen = telling(rng, intent, share.behaviour)
        row = record_from_events(
            seen, run_id=f"run_{seed}_{start:.0f}_{number}", started=now, query=query, arm=share.arm,
            release=share.release, unit=f"C{rng.randint(1001, 1040)}", instance=share.arm, thread_id=f"th_{number}",
            trace_id=f"{rng.getrandbits(128):032x}",
        )  # fmt: skip
        on_run(row, seen)
        yield judged(rng, row, share.behaviour)
        now, number = now + rng.expovariate(rate), number + 1


def judged(rng: random.Random, row: RunRecord, how: Behaviour) -> RunRecord:
    """What the customer does afterwards: one in five leaves a thumb, one in three opens a citation."""
    if row.status == "failed":
        return replace(row, feedback=-1 if rng.random() < 0.3 else None, resolved=False)
    thumb = (1 if rng.random() < how.thumbs_up else -1) if rng.random() < 0.2 else None
    clicks = int(row.citations > 0 and rng.random() < 0.35)
    return replace(row, feedback=thumb, citation_clicks=clicks, resolved=rng.random() < how.thumbs_up)


def probe_runs(
    seed: int | str, shares: Sequence[Share], start: float, seconds: float, every: float
) -> Iterator[RunRecord]:
    """Probes' rows: one to each arm every so many seconds."""
    rng = random.Random(f"probes-{seed}")
    for number in range(int(seconds / every)):
        for share in shares:
            seen = telling(rng, "return_item", share.behaviour)
            hit = rng.random() < share.behaviour.hits
            yield record_from_events(
                seen, run_id=f"probe_{seed}_{start:.0f}_{number}_{share.arm}", started=start + number * every,
                query="How long can I return it?", arm=share.arm, release=share.release, probe=True, retrieval_hit=hit,
                wrong=not hit and rng.random() < 0.5,
            )  # fmt: skip
