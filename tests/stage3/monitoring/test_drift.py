"""Each test names the bug that it catches."""

import json
import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_runs import run_of
from scipy.stats import chi2_contingency

from labkit.errors import LabError
from stage3_agents_llmops.monitoring.drift import (
    Reference,
    chi_square,
    drifts,
    load_references,
    population_stability,
    references,
    save_references,
)
from stage3_agents_llmops.monitoring.traffic import INTENTS, SHIFTED, Share, customer_runs

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=12)


def test_psi_by_hand():
    """Catches: a logarithm of the wrong base, a share of the wrong total."""
    expected = (0.6 - 0.5) * math.log(0.6 / 0.5) + (0.4 - 0.5) * math.log(0.4 / 0.5)
    assert population_stability([50, 50], [120, 80], smooth=0) == pytest.approx(expected)
    assert population_stability([50, 50], [500, 500]) == pytest.approx(0, abs=1e-12)
    smoothed = [(10.5 / 21, 0.5 / 21), (10.5 / 21, 20.5 / 21)]
    assert population_stability([10, 10], [0, 20]) == pytest.approx(sum((b - a) * math.log(b / a) for a, b in smoothed))


@given(COUNTS, st.data())
def test_psi_is_symmetric_and_never_below_zero(then, data):
    """Catches: one side of the divergence only, which may be small where the other is large; an infinity."""
    now = data.draw(st.lists(st.integers(0, 500), min_size=len(then), max_size=len(then)))
    psi = population_stability(then, now)
    assert 0 <= psi < math.inf
    assert psi == pytest.approx(population_stability(now, then))


def test_other_bins_are_refused():
    """Catches: bins that are compared although they are not the same ones."""
    with pytest.raises(ValueError, match="bins"):
        population_stability([1, 2], [1, 2, 3])


@given(st.lists(st.tuples(st.integers(20, 400), st.integers(20, 400)), min_size=2, max_size=8))
def test_chi_square_is_scipys(pairs):
    """Catches: expected counts of the wrong margin, degrees of freedom one off."""
    then, now = zip(*pairs, strict=True)
    expected = chi2_contingency([then, now], correction=False)
    assume(expected.expected_freq.min() >= 5)
    assert chi_square(then, now) == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)


def test_rare_bins_are_put_together():
    """Catches: an alarm from one run in a bin that expects none."""
    then, now = [500, 480, 0, 0, 1], [200, 190, 1, 1, 0]
    assert chi_square(then, now) > 0.05
    assert chi_square([5, 0], [3, 0]) == 1.0
    assert chi_square([20, 20], [20, 261]) < 1e-9  # the only two bins stay two


def test_traffic_that_stays_the_same_is_quiet_and_a_shift_is_seen():
    """Catches: an alarm where nothing has shifted, in 200 tries of small samples; and none where it has."""
    rng = random.Random(5)
    names, weights = list(INTENTS), list(INTENTS.values())

    def draw(mix: dict[str, int], count: int) -> list[str]:
        return rng.choices(list(mix), list(mix.values()), k=count)

    quiet = sum(Reference.of("intent", draw(INTENTS, 500)).compare(draw(INTENTS, 200)).shifted for _ in range(200))
    seen = sum(Reference.of("intent", draw(INTENTS, 500)).compare(draw(SHIFTED, 200)).shifted for _ in range(50))
    assert (quiet, seen) == (0, 50)
    few = [population_stability([5, 5, 5, 5, 5], [1, 9, 4, 8, 3])]
    assert few[0] > 0.25  # that alone would be an alarm: too few runs
    assert Reference.of("intent", rng.choices(names, weights, k=25)).compare(draw(SHIFTED, 25)).psi is None


def test_numbers_fall_into_the_references_tenths():
    """Catches: bins that are made anew from what is compared: then nothing ever drifts."""
    rng = random.Random(2)
    reference = Reference.of("query_chars", [rng.gauss(60, 15) for _ in range(1000)])
    assert reference.n == 1000 and set(reference.counts.values()) == {100}
    assert not reference.compare([rng.gauss(60, 15) for _ in range(300)]).shifted
    assert reference.compare([rng.gauss(90, 15) for _ in range(300)]).shifted
    assert Reference.of("query_chars", [7.0] * 200).compare([7.0] * 200).psi == pytest.approx(0)


def test_a_category_that_is_new_counts():
    """Catches: an intent that the reference does not know, dropped and so never seen."""
    reference = Reference.of("intent", ["a"] * 100 + ["b"] * 100)
    drift = reference.compare(["a"] * 60 + ["b"] * 60 + ["new"] * 80)
    assert "new" in drift.bins and drift.shifted


def test_probes_and_clicks_are_no_questions():
    """Catches: a reference full of the monitor's own probes, or of clicks on "yes" with no text."""
    asked = [run_of(intent="order_status", query_chars=20) for _ in range(120)]
    others = [run_of(intent="other", probe=True, query_chars=30) for _ in range(120)]
    others += [run_of(intent="other", query_chars=0) for _ in range(120)]
    assert references(asked + others)["intent"].counts == {"order_status": 120}


def test_only_the_newest_are_compared():
    """Catches: a shift that is thinned out by all the runs before it."""
    shares = [Share("stable", "a", 1)]
    old = list(customer_runs(1, shares, 1000.0, 200, 5))
    new = list(customer_runs(2, shares, 2000.0, 200, 5, SHIFTED))
    normal = references(old[:500])
    assert next(each for each in drifts(normal, old[500:] + new) if each.what == "intent").shifted
    assert not next(each for each in drifts(normal, old[500:]) if each.what == "intent").shifted


def test_a_reference_is_kept(tmp_path):
    """Catches: edges that lose digits, counts that come back as other bins."""
    shares = [Share("stable", "a", 1)]
    normal = references(list(customer_runs(1, shares, 1000.0, 200, 5)))
    save_references(normal, tmp_path / "normal.json")
    assert load_references(tmp_path / "normal.json") == normal


@pytest.mark.parametrize("text", [None, "no json", "[1]", json.dumps({"intent": {"edges": []}})])
def test_no_reference_is_said(tmp_path, text):
    """Catches: a traceback for a wrong file."""
    if text is not None:
        (tmp_path / "normal.json").write_text(text)
    with pytest.raises(LabError, match="reference|read"):
        load_references(tmp_path / "normal.json")
