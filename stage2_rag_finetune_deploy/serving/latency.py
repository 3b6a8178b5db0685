"""What a user feels, from the times at which tokens came.

    sent            first token      second      ...      last
     |---- TTFT --------|--- ITL ------|--- ITL ---|--- ITL --|
     |------------------------ end to end -------------------|

TTFT, the time to the first token, holds the wait in the queue and the prefill; ITL, the gaps between tokens, the
decoding and whoever else is in the batch. Throughput alone rewards a server that lets everybody wait; goodput counts
only answers that kept a stated limit (DistServe, Zhong et al. 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Record:
    """One request, as the client saw it. Times are seconds on one clock.

    Attributes:
        outcome: "finished", "refused" (429) or "failed"; `reason` where it did not finish.
        token_times: when each piece of text came.
        prompt_tokens, new_tokens: as the server counted them (`usage`).
    """

    sent: float
    outcome: str = "failed"
    reason: str = ""
    token_times: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    new_tokens: int = 0
    text: str = ""

    @property
    def ttft(self) -> float:
        """Time to the first token."""
        return self.token_times[0] - self.sent

    @property
    def end_to_end(self) -> float:
        """Time to the last token."""
        return self.token_times[-1] - self.sent


# exercise: serving.inter_token_latencies
def inter_token_latencies(record: Record) -> list[float]:
    """Gaps between a request's tokens; the time to the first token is none of them.

    A server may send several tokens in one piece. Then every token of the piece but the first came with a gap of 0, and
    the mean counts: the time from the first piece to the last, shared by all tokens after the first (TPOT). It is
    given as often as there are such tokens, so that long answers weigh as much as they are long.
    """
    gaps = [later - earlier for earlier, later in zip(record.token_times, record.token_times[1:], strict=False)]
    after_the_first = record.new_tokens - 1
    if len(gaps) == after_the_first or not gaps:
        return gaps
    return [sum(gaps) / after_the_first] * after_the_first if after_the_first > 0 else []
# end exercise


# exercise: serving.goodput
def goodput(records: Sequence[Record], seconds: float, ttft_limit: float, itl_limit: float) -> float:
    """Answers a second that kept both limits: first token in time, and the mean gap between tokens small enough.

    Refused and failed requests are no answers; an answer of one token has no gap and keeps the second limit.
    """
    good = 0
    for record in records:
        if record.outcome != "finished" or record.ttft > ttft_limit:
            continue
        gaps = inter_token_latencies(record)
        good += not gaps or sum(gaps) / len(gaps) <= itl_limit
    return good / seconds
# end exercise


@dataclass(frozen=True)
class Summary:
    """A test in figures. Percentiles are (P50, P95, P99) in seconds, nan where nothing was finished."""

    sent: int
    finished: int
    refused: int
    failed: int
    seconds: float
    new_tokens: int
    ttft: tuple[float, ...]
    itl: tuple[float, ...]
    end_to_end: tuple[float, ...]
    goodput: float

    @property
    def throughput(self) -> float:
        """New tokens a second, over all requests together."""
        return self.new_tokens / self.seconds

    @property
    def request_rate(self) -> float:
        """Finished requests a second."""
        return self.finished / self.seconds


def percentiles(values: Sequence[float]) -> tuple[float, ...]:
    """P50, P95 and P99, interpolated linearly."""
    return tuple(np.percentile(values, (50, 95, 99)).tolist()) if len(values) else (float("nan"),) * 3


def summarise(records: Sequence[Record], ttft_limit: float, itl_limit: float) -> Summary:
    """The figures of one test. It lasts from the first request sent to the last token received."""
    finished = [record for record in records if record.outcome == "finished"]
    start = min(record.sent for record in records)
    end = max((record.token_times[-1] for record in records if record.token_times), default=start)
    seconds = max(end - start, 1e-9)
    return Summary(
        sent=len(records), finished=len(finished),
        refused=sum(record.outcome == "refused" for record in records),
        failed=sum(record.outcome == "failed" for record in records),
        seconds=seconds, new_tokens=sum(record.new_tokens for record in finished),
        ttft=percentiles([record.ttft for record in finished]),
        itl=percentiles([gap for record in finished for gap in inter_token_latencies(record)]),
        end_to_end=percentiles([record.end_to_end for record in finished]),
        goodput=goodput(records, seconds, ttft_limit, itl_limit),
    )  # fmt: skip
