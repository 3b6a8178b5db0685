"""Month 5: the learner's platform brings a good release to everybody and takes a bad one back, under traffic.

starts        the platform serves a shop that the grader made, through services that the grader watches
deployed      the good release reached every customer
broken        how many of the customers' runs were not told to their end, or with a gap
exposed       share of customers whom the bad release answered
rolled_back   the bad release is gone, the former one serves everybody
alerted       the alert of the right family fired, and not before there was a reason
latency, tokens, retrieval, satisfaction    the platform's metrics against what the grader's own customers saw

Which deployment is the bad one, and what it does wrong, is drawn with the grading's seed. Good and bad are the same
files: the bad one behaves until its first customer, and then its services, which the grader started a relay in front of
(watched_service.py), turn slow, wrong, failing or unsafe (service_faults.py). It can only be found out by watching.
"""

import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from data.shop.shop_database import create_shop, dump
from labkit.errors import LabError
from milestones.customer_traffic import Traffic
from milestones.grade import FAILED, CheckResult, Context
from milestones.hidden_release import BAD, GOOD, STABLE, Drawn, copy_of, draw, probe_line, watch_settings
from milestones.learner_model import LearnerFault
from milestones.learner_pipeline import Alert, LearnerPlatform
from milestones.learner_service import make_secret
from milestones.metric_agreement import latency_apart, retrieval_apart, satisfaction_apart, tokens_apart
from milestones.month1 import stopped
from milestones.submission import NotStarted, newest_run, shown
from milestones.watch_log import WatchLog, probes_of
from milestones.watched_rollouts import Measured, Rollout, deploy_all

LIMITS = ("threads", "start_limit", "answer_limit", "time_limit")
FITTING = {
    "errors": {"errors"}, "slow": {"latency"}, "unsafe": {"safety"}, "wrong": {"retrieval", "satisfaction"},
}  # fmt: skip
CANNOT_BE = {"errors": {"safety"}, "slow": {"errors", "safety"}, "unsafe": {"errors"}, "wrong": {"errors", "safety"}}
NEVER_OF_THE_GOOD = {"errors", "safety"}  # retrieval may be: labels are wrong on purpose; latency as well: it is drawn
FAMILIES = ("latency", "tokens", "retrieval", "satisfaction")


def grade(context: Context) -> list[CheckResult]:
    """See the module's docstring. Raises NotStarted when there is no run."""
    try:
        folder = newest_release(context)
    except LabError as error:
        return stopped(context, "starts", error.message, advice=error.try_next or context.month.start)
    release = folder / "release"
    context.details |= {"run": shown(folder, context.submission), "seed": context.seed}
    results: list[CheckResult] = []
    with terminated(), tempfile.TemporaryDirectory(prefix="month5-", ignore_cleanup_errors=True) as scratch:
        try:
            for result in platform_results(context, release, Path(scratch)):
                results.append(result)
        except LearnerFault as fault:
            reason = str(fault).replace(f"{context.submission}/", "").replace(f"{scratch}/", "")
            results += stopped(context, context.month.checks[len(results)].id, reason)
    return [replace(r, advice=context.month.improve) if r.status == FAILED else r for r in results]


@contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM ends the grading as Ctrl-C does: with everything ended that it has started."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread hears of signals
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def newest_release(context: Context) -> Path:
    """The folder of the newest run that kept a release.

    Raises:
        NotStarted: there is no run of the lab at all.
        LabError: no run that finished, or none with release/release.json.
    """
    newest, _ = context.newest_run()
    found = []
    for command in context.month.settings["commands"]:
        with suppress(NotStarted, LabError):
            folder, report = newest_run(context.runs, *context.month.run, command)
            found.append((report["started"], folder))
    kept = [folder for _, folder in sorted(found) if (folder / "release" / "release.json").is_file()]
    if not kept:
        raise LabError(f"{shown(newest, context.submission)} has no release/release.json", context.month.start)
    return kept[-1]


def platform_results(context: Context, release: Path, scratch: Path) -> Iterator[CheckResult]:
    """Run it all, then judge, in the order of criteria.toml. Raises LearnerFault where nothing can be judged."""
    settings, rng, drawn = context.month.settings, context.random("shop"), draw(context)
    size = {"customers": settings["customers"], "orders": settings["orders"]}
    shop = create_shop(scratch / "shop.sqlite", seed=rng.randrange(10**9), **size)
    people = dump(shop)["customers"]
    releases = {role: copy_of(release, scratch / role, drawn.notes[role]) for role in drawn.notes}
    log, state = WatchLog(scratch / "watched"), scratch / "state"
    leaks = [f"{who['name']}, {who['email']}, {who['phone']}" for who in rng.sample(people, 10)]
    watched = scratch / "watched.json"
    watched.write_text(json.dumps(watch_settings(context, log, scratch, leaks), ensure_ascii=False), encoding="utf-8")
    probes = scratch / "probes.jsonl"
    probes.write_text("".join(probe_line(question) for question in drawn.questions), encoding="utf-8")
    limits = {name: settings[name] for name in LIMITS}
    context.say("the platform starts")
    try:
        with LearnerPlatform(
            context.submission, shop, state, releases[STABLE], make_secret(state), probes, watched, scratch / "runs",
            **limits,
        ) as platform:  # fmt: skip
            ids = [who["customer_id"] for who in people]
            with Traffic(
                platform, ids, drawn.questions, Random(rng.random()), likes=drawn.likes, leaks=leaks,
                truth=drawn.truth, at_once=settings["at_once"], pause=settings["pause"],
            ) as traffic:  # fmt: skip
                time.sleep(settings["warm"])
                check_watched(traffic, log, drawn, settings["answer_limit"])
                yield context.result("starts", 1.0, f"{len(traffic.seen())} runs before anything was deployed")
                measured = deploy_all(context, platform, traffic, log, releases, drawn, scratch)
                yield from judged(context, platform, traffic, log, drawn, measured)
    finally:
        log.kill()


def check_watched(traffic: Traffic, log: WatchLog, drawn: Drawn, patience: float) -> None:
    """The stable release answers, and the grader sees it do so.

    Raises:
        LearnerFault: nobody was answered, or by something that the grader did not start.
    """
    end = time.monotonic() + patience
    while not (seen := traffic.seen()) and time.monotonic() < end:
        time.sleep(0.1)
    if not seen:
        raise LearnerFault(f"no customer was answered{f': {traffic.dropped[0]}' if traffic.dropped else ''}")
    served = log.served_by(drawn.notes[STABLE])
    if missing := [run for run in seen if run.run_id not in served]:
        raise LearnerFault(f"{len(missing)} of {len(seen)} runs did not come through the service that --wrap starts")


def judged(
    context: Context, platform: LearnerPlatform, traffic: Traffic, log: WatchLog, drawn: Drawn, measured: Measured
) -> Iterator[CheckResult]:  # fmt: skip
    """The figures."""
    good, bad = measured.rollout(GOOD), measured.rollout(BAD)
    context.details |= {"fault": drawn.fault, "order": list(drawn.order)} | facts_of(measured)
    yield deployed_result(context, good, drawn)
    yield broken_result(context, traffic)
    yield exposed_result(context, bad, traffic, log, drawn)
    yield rolled_back_result(context, bad, drawn)
    yield alerted_result(context, bad, platform, drawn)
    yield from metric_results(context, traffic, log, drawn, measured)


def deployed_result(context: Context, good: Rollout, drawn: Drawn) -> CheckResult:
    """Whether the good release serves everybody: the command, /releases and the watched services say so."""
    alone = set(good.serving or ()) == {drawn.notes[GOOD]}
    value = good.live and good.share >= 0.995 and alone
    return context.result("deployed", float(value), story(good, drawn))


def broken_result(context: Context, traffic: Traffic) -> CheckResult:
    """How many runs were not told whole, in all the time; a run that fails by design is told to its end as well."""
    seen, dropped = traffic.seen(), list(traffic.dropped)
    holes = sum(not run.whole for run in seen)
    first = f"; e.g. {dropped[0][:120]}" if dropped else ""
    message = f"of {len(seen) + len(dropped)}: {len(dropped)} broken off, {holes} with a gap{first}"
    return context.result("broken", float(holes + len(dropped)), message)


def rolled_back_result(context: Context, bad: Rollout, drawn: Drawn) -> CheckResult:
    """Whether the bad release was found out, and the former one serves everybody again."""
    alone = set(bad.serving or ()) == {bad.before}
    value = bad.outcome is not None and not bad.live and bad.struck is not None and alone
    unseen = "" if bad.struck else "it was still good: no customer had reached it; "
    return context.result("rolled_back", float(value), unseen + story(bad, drawn))


def story(rollout: Rollout, drawn: Drawn) -> str:
    """How a deployment went, in one line."""
    roles = {note: role for role, note in drawn.notes.items()}
    serving = {roles.get(note, note): count for note, count in (rollout.serving or {}).items()}
    after = ", ".join(f"{count} by the {role}" for role, count in serving.items()) or "none"
    outcome = rollout.outcome
    said = f"{outcome.status} after {outcome.seconds:.0f} s ({outcome.reason})" if outcome else rollout.fault
    return f"{said[:160]}; /releases gives it {rollout.share:.0%}; runs afterwards: {after}"


def exposed_result(context: Context, bad: Rollout, traffic: Traffic, log: WatchLog, drawn: Drawn) -> CheckResult:
    """The share of the customers of that time whom the bad release answered."""
    served = log.runs()
    late = {id: who for id, who in traffic.begun.items() if id in served and served[id].at >= bad.began - 1}
    during = {who for id, who in late.items() if served[id].at <= bad.ended}
    reached = {who for id, who in late.items() if served[id].release == drawn.notes[BAD]}
    harmed = sum(1 for id in late if served[id].fault)
    message = f"{len(reached)} of {len(during)} customers, {harmed} runs went wrong"
    return context.result("exposed", len(reached) / len(during | reached) if during else None, message)


def alerted_result(context: Context, bad: Rollout, platform: LearnerPlatform, drawn: Drawn) -> CheckResult:
    """Whether the right alert fired in time, and none that could not be."""
    if bad.struck is None:
        return context.result("alerted", 0.0, "nothing went wrong that an alert could be about")
    try:
        alerts = platform.alerts()
    except LearnerFault as fault:
        return context.result("alerted", 0.0, str(fault))
    names = {drawn.notes[BAD], bad.outcome.release if bad.outcome else ""} - {""}
    about = [alert for alert in alerts if is_about(alert, names, bad.struck)]
    late = [alert for alert in about if alert.since >= bad.struck - 1]
    fitting = [alert for alert in late if alert.family in FITTING[drawn.fault]]
    false = [alert for alert in late if alert.family in CANNOT_BE[drawn.fault]]
    false += [alert for alert in alerts if alert not in late and alert.family in NEVER_OF_THE_GOOD]
    context.details["alerts"] = [f"{alert.family}: {alert.name} ({alert.release})" for alert in alerts]
    told = f"{fitting[0].name}, {fitting[0].since - bad.struck:.1f} s after it went wrong" if fitting else "none"
    wrong = f"; false alarm: {false[0].name} ({false[0].family})" if false else ""
    return context.result("alerted", float(bool(fitting) and not false), f"it was {drawn.fault}: {told}{wrong}")


def is_about(alert: Alert, names: set[str], struck: float) -> bool:
    """Whether an alert is about the bad release; one that names none is about whatever went wrong then."""
    if not alert.release:
        return alert.since >= struck - 1
    return any(alert.release.startswith(name) or name.startswith(alert.release) for name in names)


def metric_results(
    context: Context, traffic: Traffic, log: WatchLog, drawn: Drawn, measured: Measured
) -> Iterator[CheckResult]:  # fmt: skip
    """The four families, in the good rollout."""
    said = measured.reported
    if isinstance(said, str):
        for family in FAMILIES:
            yield context.result(family, None, said)
        return
    seen = traffic.seen(*measured.window)
    labels = {question.text: question.article for question in drawn.questions}
    runs = [run for run in log.runs().values() if measured.window[0] <= run.at < measured.window[1]]
    answered = [run for run in seen if run.reason != "failed"]
    yield context.result("latency", *latency_apart(said, answered))
    yield context.result("tokens", *tokens_apart(said, seen))
    yield context.result("retrieval", *retrieval_apart(said, probes_of(runs, labels), seen))
    yield context.result("satisfaction", *satisfaction_apart(said, seen))


def facts_of(measured: Measured) -> dict[str, object]:
    """For the report."""
    seconds = {one.role: round(one.ended - one.began, 1) for one in measured.rollouts}
    struck = next((one.struck - one.began for one in measured.rollouts if one.struck), None)
    return {"deploy_seconds": seconds, "struck_after": struck and round(struck, 1)}
