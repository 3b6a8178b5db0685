"""What is sent when, and what is made of the answers. Each test names the bug that it catches."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from stage2_rag_finetune_deploy.serving.arrivals import poisson_arrivals, ragged_requests
from stage2_rag_finetune_deploy.serving.latency import Record, goodput, inter_token_latencies, percentiles, summarise


def record(sent: float, *times: float, new_tokens: int | None = None, outcome: str = "finished") -> Record:
    return Record(sent, outcome, token_times=list(times), new_tokens=len(times) if new_tokens is None else new_tokens)


def test_gaps_of_poisson_arrivals_are_exponential():
    """Catches: even gaps (no bursts, no queue), a rate taken for a gap, times that are not increasing."""
    times = poisson_arrivals(4000, 5.0, random.Random(3))
    gaps = np.diff(times)
    assert times[0] == 0 and (gaps >= 0).all()
    assert stats.kstest(gaps, "expon", args=(0, 1 / 5)).pvalue > 0.01
    assert stats.kstest([0.2] * 4000, "expon", args=(0, 1 / 5)).pvalue < 1e-9  # the measure itself tells even gaps


def test_an_infinite_rate_is_a_burst():
    """Catches: a division by infinity, or a burst that is spread."""
    assert poisson_arrivals(3, math.inf, random.Random(0)) == [0.0, 0.0, 0.0]


def test_requests_are_ragged_and_their_seed_decides():
    """Catches: lengths outside the span, the same prompts under another seed (a warm prefix cache)."""
    some, same, other = (ragged_requests(40, 2.0, (3, 9), (5, 50), seed) for seed in (1, 1, 2))
    assert some == same and not {r.prompt for r in some} & {r.prompt for r in other}
    assert {len(r.prompt.split()) for r in some} == set(range(3, 10))
    assert all(5 <= r.new_tokens <= 50 for r in some)
    assert len({r.new_tokens for r in some}) > 15


def test_the_first_token_is_no_gap():
    """Catches: the time to the first token counted among the gaps, which hides the queue in the wrong figure."""
    assert inter_token_latencies(record(0.0, 5.0, 5.5, 7.0)) == [0.5, 1.5]
    assert inter_token_latencies(record(0.0, 5.0)) == []


def test_tokens_that_came_in_one_piece_share_the_time():
    """Catches: a server that sends four tokens at a time called four times as slow, or its gaps counted as fewer."""
    packed = record(0.0, 1.0, 2.0, 3.0, new_tokens=9)
    assert inter_token_latencies(packed) == pytest.approx([0.25] * 8)


def test_goodput_counts_answers_that_kept_both_limits():
    """Catches: a fast first token excusing slow ones, refused requests counted, a limit that is exclusive."""
    records = [
        record(0.0, 1.0, 1.1, 1.2),  # good
        record(0.0, 2.1, 2.2),  # first token late
        record(0.0, 1.0, 2.0, 3.0),  # slow
        record(0.0, 0.5),  # one token: good
        record(0.0, outcome="refused"),
        record(0.0, 0.1, outcome="failed"),
    ]
    assert goodput(records, 4.0, ttft_limit=1.0, itl_limit=0.1 + 1e-9) == 2 / 4


def test_summary_of_a_test():
    """Catches: seconds counted from the clock's zero, tokens of failed requests, percentiles over all requests."""
    records = [record(10.0, 11.0, 12.0), record(11.0, 14.0, 15.0), record(11.0, outcome="refused", new_tokens=0),
               record(11.0, 19.0, outcome="failed")]  # fmt: skip
    summary = summarise(records, ttft_limit=2.0, itl_limit=1.0)
    assert (summary.sent, summary.finished, summary.refused, summary.failed) == (4, 2, 1, 1)
    assert summary.seconds == 9.0 and summary.new_tokens == 4
    assert summary.throughput == pytest.approx(4 / 9) and summary.goodput == pytest.approx(1 / 9)
    assert summary.ttft[0] == pytest.approx(2.0) and summary.itl == (1.0, 1.0, 1.0)


def test_percentiles_of_nothing_are_not_zero():
    """Catches: 0 ms as the latency of a test in which nothing was answered."""
    assert all(math.isnan(value) for value in percentiles([]))
    assert percentiles(list(range(101))) == (50, 95, 99)
