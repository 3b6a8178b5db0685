"""Looks at a canary; each test names the bug that it catches."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stage3_agents_llmops.experiments.ramping import canary_steps
from stage3_agents_llmops.monitoring import RunRecord
from stage3_agents_llmops.pipeline.canary_analysis import METRICS, Policy, judge_metric, look, unit_values
from stage3_agents_llmops.pipeline.schedule import CANARY_STEPS, weights_at

NOW = 1_000.0
BY_NAME = {metric.name: metric for metric in METRICS}


def draw(rng, n, probe, slow=1.0, fail=0.0, wrong=0.1, units=60, **more):
    """Runs of one arm."""
    found = []
    for _ in range(n):
        failed = rng.random() < fail
        found.append(RunRecord(
            run_id=f"r{rng.integers(1 << 60)}", unit=f"C{rng.integers(units)}", probe=probe, started=NOW - 5,
            status="failed" if failed else "answered", input_tokens=int(rng.integers(20, 60)),
            duration_s=None if failed else float(slow * np.exp(rng.normal(-0.7, 0.5))),
            wrong=bool(rng.random() < wrong) if probe else None,
            retrieval_hit=bool(rng.random() > wrong) if probe else None,
            feedback=int(rng.choice([1, -1], p=[0.9, 0.1])) if not probe and rng.random() < 0.3 else None, **more,
        ))  # fmt: skip
    return found


def arms(seed=1, probes=40, customers=40, **bad):
    """Canary and baseline."""
    rng = np.random.default_rng(seed)
    return tuple([*draw(rng, probes, True, **kind), *draw(rng, customers, False, **kind)] for kind in (bad, {}))


def test_equal_arms_continue():
    """Catches: an analysis that never lets anything through."""
    seen = look(*arms(), NOW)
    assert seen.verdict == "continue" and seen.reasons == ()


@pytest.mark.parametrize("bad, name", [
    ({"fail": 0.9}, "errors"), ({"slow": 3.0}, "latency"), ({"wrong": 0.9}, "wrong answers"),
])  # fmt: skip
def test_bad_canary_aborts_within_few_runs(bad, name):
    """Catches: a bad release that is seen only when many customers have met it: 20 probes an arm are enough."""
    seen = look(*arms(probes=20, customers=0, **bad), NOW)
    assert seen.verdict == "abort" and any(name in reason for reason in seen.reasons)


def test_a_canary_that_has_everybody_is_not_compared_in_speed():
    """Catches: a good release taken back at 100 %: one process with all customers against one that has none."""
    canary, baseline = arms()
    crowd = [replace(run, started=NOW - 1) for run in arms(seed=2, slow=4.0)[0]]
    assert look([*canary, *crowd], baseline, NOW).verdict == "abort"
    assert look([*canary, *crowd], baseline, NOW, even_until=NOW - 2).verdict == "continue"
    slow_before = [replace(run, started=NOW - 3) for run in crowd]
    assert look([*canary, *slow_before], baseline, NOW, even_until=NOW - 2).verdict == "abort"
    failing = [replace(run, status="failed") for run in crowd]
    assert look([*canary, *failing], baseline, NOW, even_until=NOW - 2).verdict == "abort", "the other metrics go on"


def test_bad_baseline_is_no_reason_to_abort():
    """Catches: a comparison turned round."""
    canary, baseline = arms(slow=3.0, fail=0.5)
    assert look(baseline, canary, NOW).verdict == "continue"


def test_one_unsafe_run_aborts_at_once():
    """Catches: a release that writes without asking and is given until the statistics are sure."""
    canary, baseline = arms(probes=0, customers=1, unsafe=1)
    assert look(canary, baseline, NOW).verdict == "abort"
    assert look(canary, canary, NOW).verdict == "pause"  # the old one does it, too: no reason for this release


@pytest.mark.parametrize("canary, baseline", [(0, 0), (0, 40), (40, 0), (3, 40)])
def test_without_data_it_pauses(canary, baseline):
    """Catches: no news taken for good news (a canary without traffic that is promoted)."""
    rng = np.random.default_rng(1)
    seen = look(draw(rng, canary, True), draw(rng, baseline, True), NOW)
    assert seen.verdict == "pause" and any("of 8 units" in reason for reason in seen.reasons)


def test_customers_without_probes_are_not_enough():
    """Catches: a canary whose answers nobody has checked."""
    assert look(*arms(probes=0, customers=80), NOW).verdict == "pause"


def test_run_from_the_future_pauses():
    """Catches: clocks that are wrong and believed; "since the canary began" means nothing then."""
    canary, baseline = arms()
    seen = look(canary, baseline, NOW - 3600)
    assert seen.verdict == "pause" and any("clock" in reason for reason in seen.reasons)


def test_arms_of_impossible_sizes_pause():
    """Catches: customers that get lost on the way to the canary, and with them those it treats worst."""
    rng = np.random.default_rng(1)
    canary, baseline = draw(rng, 60, True), draw(rng, 60, True)
    canary += draw(rng, 60, False, units=15)
    baseline += draw(rng, 300, False, units=150)
    assert any("sample ratio" in reason for reason in look(canary, baseline, NOW).reasons)
    assert look(canary, baseline, NOW, balanced=False).verdict == "continue"


def test_judge_metric_by_hand():
    """Catches: harmed without certainty; a doubt that is passed over; better and worse mixed up."""
    assert judge_metric(0.02, 0.3, 0.16, 0.05, "lower")[0] == "abort"
    assert judge_metric(0.06, 0.3, 0.16, 0.05, "lower")[0] == "abort"
    assert judge_metric(0.01, 0.08, 0.04, 0.05, "lower")[0] == "continue"  # surely worse, by a loss that is accepted
    assert judge_metric(-0.1, 0.3, 0.1, 0.05, "lower")[0] == "pause"
    assert judge_metric(-0.1, 0.1, 0.0, 0.05, "lower")[0] == "continue"
    assert judge_metric(-0.3, -0.02, -0.16, 0.05, "lower")[0] == "continue"  # surely better
    assert judge_metric(-0.3, -0.02, -0.16, 0.05, "higher")[0] == "abort"
    assert judge_metric(-math.inf, math.inf, 0.0, 0.05, "lower")[0] == "continue"


def test_the_unit_is_the_customer():
    """Catches: ten failed messages of one customer that count as ten unhappy customers."""
    rng = np.random.default_rng(1)
    runs = draw(rng, 50, False, fail=1.0, units=1) + draw(rng, 9, False, units=10**9)
    values = unit_values(BY_NAME["errors"], runs)
    assert len(values) == 10 and values.sum() == 1
    probes = draw(rng, 12, True, units=1)
    assert len(unit_values(BY_NAME["wrong answers"], probes)) == 12  # a probe is a unit of its own


def test_weights_of_the_canary_steps():
    """Catches: a baseline that is not of the canary's size; weights that do not sum to 100."""
    rows = [list(weights_at(step).items()) for step in CANARY_STEPS]
    shares = [[weight for _, weight in row] for row in rows]
    assert shares == [[98, 1, 1], [90, 5, 5], [50, 25, 25], [0, 50, 50], [0, 0, 100]]
    assert {tuple(name for name, _ in row) for row in rows} == {("stable", "baseline", "canary")}
    assert rows[-1] == list(canary_steps(["stable", "baseline", "canary"], "canary", alike=["baseline"])[-1].items())


def test_cancelled_runs_are_nobodys_fault():
    """Catches: customers who leave that count as errors."""
    rng = np.random.default_rng(1)
    runs = [RunRecord(run_id=f"c{n}", unit=f"u{n}", status="cancelled") for n in range(9)] + draw(rng, 3, False)
    assert len(unit_values(BY_NAME["errors"], runs)) <= 3


def test_few_opinions_do_not_delay():
    """Catches: three thumbs down that hold a good release for ever."""
    canary, baseline = arms(customers=0)
    canary += [RunRecord(run_id=f"t{n}", unit=f"u{n}", feedback=-1, duration_s=0.5, started=NOW) for n in range(3)]
    baseline += [RunRecord(run_id=f"b{n}", unit=f"v{n}", feedback=1, duration_s=0.5, started=NOW) for n in range(3)]
    assert look(canary, baseline, NOW).verdict == "continue"


def test_good_canaries_are_not_aborted_over_many_looks():
    """Catches: peeking: twenty looks at 40 good canaries, each of which must survive. Alpha is 0.02 over all looks."""
    aborted = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        canary, baseline = [], []
        for _ in range(20):
            for arm in (canary, baseline):
                arm += draw(rng, 3, True) + draw(rng, 2, False)
            if look(canary, baseline, NOW, balanced=False).verdict == "abort":
                aborted += 1
                break
    assert aborted <= 3  # P(more than 3 of 40 at 0.02) = 0.008; with peeking at p < .05 it is about half of them


def test_naive_looks_would_abort_good_canaries():
    """Catches: a simulation in which nothing could ever go wrong: the negative control of the test above."""
    values = np.random.default_rng(1).normal(size=(40, 2, 7, 100))  # seeds, arms, metrics, units
    looks = np.arange(5, 101, 5)
    difference = np.stack([values[:, 1, :, :n].mean(-1) - values[:, 0, :, :n].mean(-1) for n in looks], -1)
    aborted = (difference / np.sqrt(2 / looks) > 1.96).any(axis=(1, 2))
    assert aborted.sum() > 15


def test_as_dict_is_json():
    """Catches: infinity and NaN in the log."""
    import json

    text = json.dumps(look(*arms(probes=2, customers=0), NOW).as_dict(), allow_nan=False)
    assert json.loads(text)["verdict"] == "pause"
    assert Policy().alpha < 0.05
