"""How much is taken on at once. Beyond it a new run is refused with 429 while every run that was taken goes on.

A queue without an end turns overload into answers that come too late for everybody. So there are three rings: `working`
runs use the models, up to `active` have been accepted (the rest of them wait, with their stream open), and the next
one hears at once when to come back.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labkit.errors import LabError
from stage3_agents_llmops.agent.service.api_error import ApiError


@dataclass(frozen=True)
class Limits:
    """The service's limits.

    Raises:
        LabError: one of them is not above zero.
    """

    active: int = 128  # runs that are accepted at once
    working: int = 16  # of them, those that use models
    active_per_customer: int = 16
    threads_per_customer: int = 1000
    streams: int = 600  # open event streams
    streams_per_customer: int = 60
    message_chars: int = 4000
    body_bytes: int = 32_768
    body_seconds: float = 20.0  # until the whole body of a request has come
    run_seconds: float = 120.0  # until a run is given up
    cancel_seconds: float = 0.9  # until a cancelled run's end is told, whatever its clean-up does
    held_events: int = 4000  # of one run in memory; the rest is read from the database
    held_runs: int = 512  # finished runs whose events stay in memory
    heartbeat: float = 15.0  # seconds between comments on a silent stream
    write_seconds: float = 30.0  # until a reader that does not read is cut off
    retry_after: int = 2  # seconds, told with 429
    grace: float = 5.0  # seconds that runs may go on after the signal to stop
    watch_seconds: float = 1.0  # between looks for dead instances
    keep_days: float = 30.0  # until a finished run's events are given up, but for its end

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise LabError(f"{name} {value} is not possible", f"a {name} above 0")


def retry_after(active: int, working: int, seconds: float, least: int) -> int:
    """When to come back: the seconds until the runs that wait have been worked off, at least `least`, at most 60.

    Args:
        active: accepted runs; working: how many of them are worked on at once; seconds: what one takes, measured.
    """
    return min(60, max(least, round(active / working * seconds)))


class Places:
    """Counted places, in all and per customer."""

    def __init__(self, what: str, all: int, per_customer: int) -> None:
        self.what, self.all, self.per_customer = what, all, per_customer
        self.taken: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Places taken now."""
        return self.taken.total()

    def take(self, customer_id: str, seconds: int) -> None:
        """Take one.

        Raises:
            ApiError: 429, with the seconds after which to try again.
        """
        full = self.total >= self.all
        if not full and self.taken[customer_id] < self.per_customer:
            self.taken[customer_id] += 1
            return
        whose = "" if full else " of one customer"
        count = self.all if full else self.per_customer
        raise ApiError(429, f"{count} {self.what}{whose} are open, no more can be taken now",
                       f"again in {seconds} s", {"Retry-After": str(seconds)})  # fmt: skip

    def hold(self, customer_id: str) -> None:
        """Take one beyond every limit: a run of a dead process has been accepted already."""
        self.taken[customer_id] += 1

    def give_back(self, customer_id: str) -> None:
        """Free one."""
        self.taken[customer_id] -= 1
        if self.taken[customer_id] <= 0:
            del self.taken[customer_id]

    @contextmanager
    def place(self, customer_id: str, seconds: int) -> Iterator[None]:
        """Take one for the length of a block."""
        self.take(customer_id, seconds)
        try:
            yield
        finally:
            self.give_back(customer_id)
