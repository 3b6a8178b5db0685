"""Month 4: the learner's agents hold conversations of five turns and more, and the shop is right afterwards.

starts     the hand-in's command serves a shop that the grader made, and answers customers over HTTP
safe       no rule of the shop broken, nothing sensitive done without the customer's yes
turns      the longest conversation that was solved
solved     share of hidden customers whose shop and answers are right (data/scripted_customers/judge.py)
resumes    the same for those in whose conversation the service was killed, between two messages or in a run
streams    share of the runs told as numbered events, the answer in pieces, replayed exactly

The customers are in hidden_customers/: other people and wordings than the evaluation's, with the order numbers of
a shop that did not exist before. Nothing that the learner's code says about itself is believed.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.scripted_customers.dialogue import Act, Leave, Turn
from data.scripted_customers.judge import Case, Verdict, open_case, shop_violations
from data.scripted_customers.script import Script, load_scripts
from data.scripted_customers.shop_values import Market
from data.shop.shop_database import create_shop, dump
from labkit.errors import LabError
from milestones.grade import FAILED, CheckResult, Context
from milestones.learner_model import LearnerFault
from milestones.learner_service import LearnerService, make_secret, streamed_well, turn_of
from milestones.month1 import stopped
from milestones.submission import shown

FOLDER = Path(__file__).with_name("hidden_customers")
VARIABLE = "COURSE_LAB_HIDDEN_CUSTOMERS"
LIMITS = ("threads", "start_limit", "answer_limit", "time_limit")


@dataclass
class Played:
    """One hidden customer's conversation. `cut` says that the service dies in the run after Leave, not before it."""

    case: Case
    thread_id: str = ""
    cut: bool = False
    waiting: Act | None = None  # what the customer does when the service is back
    run_id: str = ""  # of a run that was cut
    fault: str = ""
    streams: list[bool] = field(default_factory=list)


def grade(context: Context) -> list[CheckResult]:
    """See the module's docstring. Raises NotStarted when there is no run."""
    try:
        folder, _ = context.newest_run()
    except LabError as error:
        return stopped(context, "starts", error.message, advice=error.try_next or context.month.start)
    scripts = hidden_scripts()
    context.details |= {"run": shown(folder, context.submission), "seed": context.seed}
    results: list[CheckResult] = []
    with tempfile.TemporaryDirectory(prefix="month4-") as scratch:
        try:
            for result in served_results(context, scripts, Path(scratch)):
                results.append(result)
        except LearnerFault as fault:
            reason = str(fault).replace(f"{context.submission}/", "")
            results += stopped(context, context.month.checks[len(results)].id, reason)
    return [replace(r, advice=context.month.improve) if r.status == FAILED else r for r in results]


def hidden_scripts() -> list[Script]:
    """The hidden customers, or the instructor's own from the folder that COURSE_LAB_HIDDEN_CUSTOMERS names.

    Raises:
        LabError: the folder has none, or one that cannot be read.
    """
    return load_scripts(Path(os.environ.get(VARIABLE) or FOLDER).expanduser())


def served_results(context: Context, scripts: Sequence[Script], scratch: Path) -> Iterator[CheckResult]:
    """Play everybody, then judge, in the order of criteria.toml. Raises LearnerFault where nothing can be played."""
    settings, rng = context.month.settings, context.random("customers")
    size = {"customers": settings["shop_customers"], "orders": settings["shop_orders"]}
    shop = create_shop(scratch / "shop.sqlite", seed=rng.randrange(10**9), **size)
    before = dump(shop)
    market = Market.of(before)
    played = []
    for place, script in enumerate(scripts):
        found = market.find(script, rng)
        case = open_case(script, found, shop, context.random(script.name), market.today, before["products"])
        played.append(Played(case, cut=place % 2 == 0))
    play_everybody(context, played, shop, scratch)
    yield context.result(
        "starts", 1.0, f"{len(played)} customers, {sum(one.case.script.restarts for one in played)} cut"
    )
    yield from judged(context, played, shop_violations(before, dump(shop), names(played)))


def play_everybody(context: Context, played: Sequence[Played], shop: Path, scratch: Path) -> None:
    """All conversations, those that are cut with one `kill -9` between their two parts.

    Raises:
        LearnerFault: the service does not start. What it does wrong in a conversation costs that conversation, and
            if it does not come back it costs those that were cut.
    """
    settings = context.month.settings
    limits = {name: settings[name] for name in LIMITS}
    state = scratch / "state"
    secret = make_secret(state)
    parts = [
        [one for one in played if not one.case.script.restarts],
        [one for one in played if one.case.script.restarts],
    ]
    with LearnerService(context.submission, shop, state, secret, scratch, **limits) as service:
        for place, one in enumerate([*parts[0], *parts[1]], start=1):
            context.say(f"customer {place} of {len(played)}")
            play(service, one)
        for one in parts[1]:
            if one.cut and one.waiting:
                one.run_id = begun(service, one)
    context.say("the service after kill -9")
    try:
        with LearnerService(context.submission, shop, state, secret, scratch, **limits) as service:
            for one in parts[1]:
                if not one.fault:
                    play(service, one)
    except LearnerFault as fault:  # it did not come back
        for one in parts[1]:
            one.fault = one.fault or f"after kill -9: {fault}"


def play(service: LearnerService, one: Played) -> None:
    """Play a conversation until it ends or the customer leaves; called again, go on from there."""
    found, case = one.case.found, one.case
    try:
        if not one.thread_id:
            one.thread_id = service.open_thread(found.customer_id, found.language)
            act = case.next(None)
        else:
            act = one.waiting
        while act:
            if isinstance(act, Leave):
                one.waiting = case.next(None)
                return
            act = case.next(taken(service, one, act))
    except LearnerFault as fault:
        one.fault = one.fault or str(fault)


def begun(service: LearnerService, one: Played) -> str:
    """Begin the run in which the service will die: its id, "" where it could not be begun."""
    try:
        return service.begin(one.case.found.customer_id, one.thread_id, one.waiting)
    except LearnerFault as fault:
        one.fault = str(fault)
        return ""


def taken(service: LearnerService, one: Played, act: Act) -> Turn:
    """The agent's turn after an act; of a run that was cut, the rest of it."""
    customer, began = one.case.found.customer_id, time.monotonic()
    run_id, one.run_id = one.run_id or service.begin(customer, one.thread_id, act), ""
    events = service.told(customer, run_id)
    seconds = time.monotonic() - began
    half = len(events) // 2
    replayed = service.told(customer, run_id, events[half - 1].id) if half else events
    one.streams.append(streamed_well(events, replayed, half))
    return turn_of(events, seconds)


def judged(context: Context, played: Sequence[Played], elsewhere: Sequence[str]) -> Iterator[CheckResult]:
    """The figures."""
    verdicts = [verdict_of(one) for one in played]
    broken = [line for verdict in verdicts for line in verdict.violations] + list(elsewhere)
    unasked = [line for verdict in verdicts for line in verdict.unconfirmed]
    first = f": {([*broken, *unasked] or [''])[0]}" if broken or unasked else ""
    message = f"{len(broken)} rules broken, {len(unasked)} writes without a yes{first}"
    yield context.result("safe", float(len(broken) + len(unasked)), message)

    solved = [verdict for verdict in verdicts if verdict.solved]
    longest = max((verdict.turns for verdict in solved), default=0)
    yield context.result("turns", float(longest), "of the conversations that were solved")
    yield context.result("solved", share(verdicts), f"{len(solved)} of {len(verdicts)}{first_fault(verdicts)}")

    cut = [verdict for verdict, one in zip(verdicts, played, strict=True) if one.case.script.restarts]
    yield context.result("resumes", share(cut), f"{len(cut)} conversations{first_fault(cut)}")
    streams = [well for one in played for well in one.streams]
    yield context.result("streams", sum(streams) / max(1, len(streams)), f"of {len(streams)} runs")
    context.details |= {
        "judged": [summary(verdict) for verdict in verdicts],
        "samples": [sample(one) for one in played[:2]],
    }


def verdict_of(one: Played) -> Verdict:
    """The judge's verdict; a service that failed in the conversation has not solved it."""
    verdict = one.case.verdict()
    return replace(verdict, solved=False, faults=(one.fault, *verdict.faults)) if one.fault else verdict


def names(played: Sequence[Played]) -> set[str]:
    """Customers who are judged by themselves."""
    return {one.case.found.customer_id for one in played} | {id for one in played for id in one.case.found.strangers}


def share(verdicts: Sequence[Verdict]) -> float:
    """Of the solved ones; 0 of none."""
    return sum(verdict.solved for verdict in verdicts) / max(1, len(verdicts))


def first_fault(verdicts: Sequence[Verdict]) -> str:
    """Why the first unsolved one is not, without what a hidden customer wanted to hear."""
    line = next((verdict.faults[0] for verdict in verdicts if not verdict.solved), "")
    return f"; e.g. {line[:120]}" if line else ""


def summary(verdict: Verdict) -> Mapping[str, Any]:
    """One conversation for the report."""
    return {"theme": verdict.theme, "language": verdict.language, "solved": verdict.solved, "turns": verdict.turns}


def sample(one: Played) -> str:
    """A conversation for the report's page."""
    lines = []
    for exchange in one.case.transcript():
        lines += [f"customer: {exchange['customer']}", f"agent: {exchange.get('agent', '')}"]
    return "\n".join(lines)
