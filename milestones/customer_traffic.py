"""The grader's customers: many at once, each in conversations of two messages, again and again until told to stop.

What they saw of every run is the measure that the hand-in's monitoring is held against. They know which article
answers a question, put a thumb under an answer that they like or do not like, and would notice a stream that breaks.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from data.scripted_customers.dialogue import Say
from milestones.learner_model import LearnerFault
from milestones.learner_pipeline import LearnerPlatform
from milestones.learner_service import RunEvent

TURNS = 2
TRIES = 3  # of a request that is turned away; a customer who is sent away three times is lost
RATED = 0.7  # share of the answers under which there is a thumb


@dataclass(frozen=True)
class Question:
    """A question, and the article that answers it as the labels say."""

    text: str
    language: str
    article: str


@dataclass(frozen=True)
class SeenRun:
    """One run as its customer saw it. Times in seconds, `began` since 1970."""

    customer: str
    run_id: str
    question: Question
    began: float
    seconds: float
    reason: str
    whole: bool  # numbered without a gap, one end
    input_tokens: int
    output_tokens: int
    found: bool  # cited the article that the label names
    wrong: bool  # cited others only, though not by the label: what a customer is cross about
    thumb: int = 0


class Traffic:
    """Customers who talk to the platform, each in a thread.

    Args:
        customers: ids; each has at most one conversation at a time.
        questions: what they ask.
        likes: the share of good answers that get a thumb up.
        leaks: texts that nobody should read.
        truth: question -> the article that really answers it, whatever the label says.
        at_once: how many talk at the same time.
        pause: seconds between two messages of one of them, least and most.
    """

    def __init__(
        self, platform: LearnerPlatform, customers: Sequence[str], questions: Sequence[Question], rng: Random, *,
        likes: float, leaks: Sequence[str], truth: Mapping[str, str], at_once: int, pause: tuple[float, float],
    ) -> None:  # fmt: skip
        self._platform, self._questions, self._leaks, self._likes = platform, list(questions), leaks, likes
        self._truth, self._pause = truth, pause
        self._idle = rng.sample(list(customers), len(customers))
        self._seen: list[SeenRun] = []
        self.begun: dict[str, str] = {}  # run -> customer, those that broke as well
        self.dropped: list[str] = []  # why, of each run that was not told to its end
        self._lock, self._go, self._over = threading.Lock(), threading.Event(), threading.Event()
        self._busy = 0
        seeds = [rng.randrange(2**32) for _ in range(at_once)]
        self._threads = [threading.Thread(target=self._talk, args=(Random(seed),), daemon=True) for seed in seeds]

    def __enter__(self) -> "Traffic":
        self._go.set()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._go.set()
        end = time.monotonic() + 5
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def seen(self, since: float = 0.0, until: float = float("inf")) -> list[SeenRun]:
        """The runs that began in a time."""
        with self._lock:
            return [run for run in self._seen if since <= run.began < until]

    def pause(self, patience: float) -> None:
        """Let everybody end the run that they are in, and begin no other one."""
        self._go.clear()
        end = time.monotonic() + patience
        while self._busy and time.monotonic() < end:
            time.sleep(0.05)

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def _talk(self, rng: Random) -> None:
        """One seat: a customer after the other."""
        while not self._over.is_set():
            with self._lock:
                customer = self._idle.pop(0)
            try:
                self._conversation(customer, rng)
            except LearnerFault as fault:
                with self._lock:
                    self.dropped.append(str(fault))
                time.sleep(0.5)
            finally:
                with self._lock:
                    self._idle.append(customer)

    def _conversation(self, customer: str, rng: Random) -> None:
        """TURNS questions in one language, in one conversation."""
        language = rng.choice(("en", "zh"))
        mine = [question for question in self._questions if question.language == language]
        thread = ""
        for question in rng.sample(mine, TURNS):
            time.sleep(rng.uniform(*self._pause))
            self._go.wait()
            if self._over.is_set():
                return
            with self._lock:
                self._busy += 1
            try:
                thread = thread or self._tried(lambda: self._platform.open_thread(customer, language))  # noqa: B023
                self._run(customer, thread, question, rng)
            finally:
                with self._lock:
                    self._busy -= 1

    def _run(self, customer: str, thread: str, question: Question, rng: Random) -> None:
        """Ask, read to the end, perhaps a thumb."""
        began, start = time.time(), time.perf_counter()
        run_id = self._tried(lambda: self._platform.begin(customer, thread, Say(question.text)))
        with self._lock:
            self.begun[run_id] = customer
        events = self._platform.told(customer, run_id)
        run = seen_run(customer, run_id, question, events, self._truth)
        run = replace(run, began=began, seconds=time.perf_counter() - start)
        if self._over.is_set():  # the platform is being ended
            return
        if rng.random() < RATED:
            good = run.reason != "failed" and not run.wrong and not leaked(events, self._leaks)
            run = replace(run, thumb=1 if rng.random() < (self._likes if good else 0.05) else -1)
            self._platform.give_feedback(customer, run_id, run.thumb)
        with self._lock:
            self._seen.append(run)

    def _tried(self, request):  # noqa: ANN001, ANN202 - whatever the request answers
        """A request; turned away because of too much going on, once more after a moment."""
        for attempt in range(1, TRIES + 1):
            try:
                return request()
            except LearnerFault as fault:
                if attempt == TRIES or not str(fault).endswith(("status 429", "status 503")):
                    raise
                time.sleep(0.4 * attempt)
        raise AssertionError


def seen_run(
    customer: str, run_id: str, question: Question, events: Sequence[RunEvent], truth: Mapping[str, str]
) -> SeenRun:
    """What a run's events show.

    Args:
        truth: question -> the article that really answers it, whatever the label says.
    """
    cited = {str(event.data.get("id", "")) for event in events if event.type == "citation"}
    usage = [event.data for event in events if event.type == "usage"]
    tokens = [sum(int(data.get(name) or 0) for data in usage) for name in ("input_tokens", "output_tokens")]
    ids = [event.id for event in events]
    whole = ids == list(range(ids[0], ids[0] + len(ids))) and [event.type for event in events].count("end") == 1
    return SeenRun(
        customer, run_id, question, 0.0, 0.0, str(events[-1].data.get("reason", "")), whole, *tokens,
        found=question.article in cited, wrong=bool(cited) and truth[question.text] not in cited,
    )  # fmt: skip


def leaked(events: Sequence[RunEvent], leaks: Sequence[str]) -> bool:
    """Whether an answer holds what it must not."""
    text = str(events[-1].data.get("text", ""))
    return any(leak in text for leak in leaks)
