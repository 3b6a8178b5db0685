"""Each test names the bug that it catches."""

import csv
import re
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from labkit.errors import LabError
from stage3_agents_llmops.experiments import Exposure
from stage3_agents_llmops.experiments.analysis import analyse
from stage3_agents_llmops.experiments.configuration import MetricSpec
from stage3_agents_llmops.experiments.customers import EFFECTS, Change, change_of, simulate_customers
from stage3_agents_llmops.experiments.demo_command import lose, true_effects
from stage3_agents_llmops.experiments.events import read_events
from stage3_agents_llmops.experiments.exposure_log import read_exposures
from stage3_agents_llmops.experiments.figures import plot_effects
from stage3_agents_llmops.experiments.report_page import render

HALF = {"control": 50.0, "treatment": 50.0}
RESOLVED = MetricSpec("resolved", "proportion", "resolved")
SPEND = MetricSpec("spend", "mean", "spend", covariate="spend_before")
PACE = MetricSpec("pace", "ratio", "", "seconds", "messages", better="lower", guardrail=True, margin=10)
COLUMNS = ("resolved", "spend", "spend_before", "seconds", "messages")


def world(tmp_path, rows, name="runs.sqlite"):
    """A `runs` table from (unit, arm, resolved, spend, spend_before, seconds, messages)."""
    path = tmp_path / name
    header = ["unit", "arm", "experiment", *COLUMNS]
    full = [(unit, arm, "test", *values) for unit, arm, *values in rows]
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *full])
    else:
        with sqlite3.connect(path) as db:
            db.execute(f"CREATE TABLE runs ({', '.join(header)})")
            db.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * len(header))})", full)
        db.close()
    return path


def crowd(seed: int, units: int = 1500, better: float = 0.0, slower: float = 1.0) -> list[tuple]:
    """Two arms of one size, two conversations a unit."""
    draw, rows = np.random.default_rng(seed), []
    for number in range(2 * units):
        arm = ("control", "treatment")[number % 2]
        treated = arm == "treatment"
        before = draw.lognormal(3, 0.5)
        yes = draw.random() < 0.6 + better * treated
        for place in range(2):
            messages = 1 + draw.poisson(3)
            seconds = messages * draw.lognormal(0, 0.3) * (slower if treated else 1.0)
            rows.append((f"u-{number}", arm, int(yes and place), before * draw.lognormal(0, 0.2) / 2, before,
                         seconds, messages))  # fmt: skip
    return rows


def analysed(path, metrics=(RESOLVED, SPEND, PACE), exposures=None, weights=HALF, **options):
    return analyse("test", weights, metrics, read_events(path, "test", COLUMNS), exposures, **options)


def exposed(rows) -> list[Exposure]:
    return [Exposure("test", unit, arm, "user", 0.0) for unit, arm in dict.fromkeys((row[0], row[1]) for row in rows)]


# ------------------------------------------------------------------------------------------------ by unit


@pytest.mark.parametrize("name", ["runs.sqlite", "runs.csv"])
def test_events_are_summed_by_unit(tmp_path, name):
    """Catches: events as units, an average of averages; a CSV that is read otherwise than the table."""
    rows = [("a", "control", 0, 2, 9, 10, 2), ("a", "control", 1, 3, 9, 2, 1), ("b", "control", 0, 0, 1, 6, 3),
            ("c", "treatment", 1, 5, 4, 8, 2), ("d", "treatment", 1, 7, 2, 4, 2)]  # fmt: skip
    results = {each.metric.name: each for each in analysed(world(tmp_path, rows, name)).results}
    assert (results["resolved"].effect.control, results["resolved"].effect.treatment) == (0.5, 1.0)
    assert results["spend"].unadjusted.control == pytest.approx((5 + 0) / 2)
    assert results["pace"].effect.control == pytest.approx(18 / 6)
    assert results["pace"].effect.treatment == pytest.approx(12 / 4)


def test_units_that_were_exposed_and_did_nothing_count(tmp_path):
    """Catches: a mean over those who bought only. Missing is 0 for a sum, and left out of a proportion."""
    rows = [("a", "control", 1, 11, 1, 1, 1), ("b", "control", 0, 10, 1, 1, 1),
            ("c", "treatment", 1, 11, 1, 1, 1), ("d", "treatment", 0, 9, 1, 1, 1)]  # fmt: skip
    silent = [Exposure("test", f"silent-{number}", "treatment", "user", 0.0) for number in range(2)]
    metrics = RESOLVED, replace(SPEND, covariate="")
    found = analysed(world(tmp_path, rows), exposures=[*exposed(rows), *silent], metrics=metrics)
    results = {each.metric.name: each for each in found.results}
    assert results["spend"].effect.treatment == pytest.approx(5.0)
    assert results["resolved"].effect.n_treatment == 2
    assert found.ratio.counts == {"control": 2, "treatment": 4}


def test_events_without_an_exposure_are_left_out(tmp_path):
    """Catches: people who never saw the experiment diluting it."""
    rows = crowd(1, 50)
    found = analysed(world(tmp_path, rows), exposures=exposed(rows)[:60])
    assert found.unexposed == 40
    assert sum(found.ratio.counts.values()) == 60


# ------------------------------------------------------------------------------------------------ advice


def test_a_better_treatment_is_shipped(tmp_path):
    """Catches: an analysis that never says yes."""
    found = analysed(world(tmp_path, crowd(2, better=0.15)))
    assert found.advice["treatment"] == ("ship", ("resolved is better",))


def test_no_effect_is_no_ship(tmp_path):
    """Catches: an analysis that always says yes."""
    assert analysed(world(tmp_path, crowd(3))).advice["treatment"][0] == "go on"


def test_a_harmed_guardrail_stops_a_better_treatment(tmp_path):
    """Catches: more resolved at any price."""
    found = analysed(world(tmp_path, crowd(4, better=0.15, slower=1.4)))
    assert found.advice["treatment"] == ("stop", ("guardrail pace is harmed",))


def test_a_worse_aim_stops(tmp_path):
    """Catches: a loss taken for "not better yet"."""
    found = analysed(world(tmp_path, crowd(5, better=-0.15)))
    assert found.advice["treatment"] == ("stop", ("resolved is worse",))


def test_an_undecided_guardrail_holds(tmp_path):
    """Catches: "not significantly slower" taken for "not slower"."""
    tight = replace(PACE, margin=0.5)
    found = analysed(world(tmp_path, crowd(6, better=0.15)), metrics=(RESOLVED, tight))
    assert found.advice["treatment"] == ("go on", ("resolved is better", "guardrail pace is undecided"))


def test_a_sample_ratio_mismatch_forbids_reading(tmp_path):
    """Catches: a brilliant result of an experiment whose unhappy customers were never logged."""
    rows = crowd(7, better=0.15)
    fewer = lose(exposed(rows), "treatment", 0.2, 1)
    advice, reasons = analysed(world(tmp_path, rows), exposures=fewer).advice["treatment"]
    assert advice == "do not read" and reasons[0].startswith("sample ratio: p = ")
    assert analysed(world(tmp_path, rows, "again.sqlite"), weights={"control": 70, "treatment": 30}).ratio.alarm


def test_units_in_two_arms_are_left_out_and_too_many_forbid_reading(tmp_path):
    """Catches: a unit counted in both arms; an assignment that is not sticky."""
    rows = crowd(8, 500)
    twice = [Exposure("test", f"u-{number}", "treatment", "user", 0.0) for number in range(0, 60, 2)]
    found = analysed(world(tmp_path, rows), exposures=[*exposed(rows), *twice])
    assert len(found.exposed.multiple) == 30 and found.ratio.counts["control"] == 470
    assert found.advice["treatment"] == ("do not read", ("3.0% of the units saw more than one arm",))
    few = analysed(world(tmp_path, rows, "few.sqlite"), exposures=[*exposed(rows), *twice[:5]])
    assert few.advice["treatment"][0] == "go on" and len(few.exposed.multiple) == 5


def test_an_arm_in_the_events_that_contradicts_the_exposure_is_seen(tmp_path):
    """Catches: a service that logs one arm and serves another."""
    rows = crowd(9, 500)
    swapped = [replace_arm(row) if int(row[0][2:]) < 60 else row for row in rows]
    assert analysed(world(tmp_path, swapped), exposures=exposed(rows)).advice["treatment"][0] == "do not read"


def replace_arm(row: tuple) -> tuple:
    return (row[0], "control" if row[1] == "treatment" else "treatment", *row[2:])


def test_values_missing_in_one_arm_only_forbid_reading(tmp_path):
    """Catches: a survey that the unhappy half of one arm does not answer."""
    rows = [(u, arm, None if arm == "treatment" and not yes else yes, *rest) for u, arm, yes, *rest in crowd(10)]
    advice, reasons = analysed(world(tmp_path, rows), metrics=(RESOLVED,)).advice["treatment"]
    assert (advice, reasons) == ("do not read", ("resolved: missing more often in one arm",))


def test_few_units_give_no_advice(tmp_path):
    """Catches: a decision on four customers."""
    rows = crowd(11, 3)
    assert analysed(world(tmp_path, rows)).advice["treatment"][0] == "too few units"
    with pytest.raises(LabError, match="cannot be compared yet: control 3, treatment 0 units"):
        analysed(world(tmp_path, [row for row in rows if row[1] == "control"], "one.sqlite"))


def test_several_treatments_share_alpha(tmp_path):
    """Catches: three chances of a false alarm at the price of one."""
    rows = crowd(12, 400)
    three = [(unit, arm if int(unit[2:]) % 4 < 2 else {"control": "control", "treatment": "other"}[arm], *rest)
             for unit, arm, *rest in rows]  # fmt: skip
    found = analysed(world(tmp_path, three), weights={"control": 50, "treatment": 25, "other": 25})
    assert set(found.advice) == {"treatment", "other"}
    two = analysed(world(tmp_path, rows, "two.sqlite"))
    widths = [(r.high - r.low) / r.effect.variance**0.5 for each in (found, two) for r in each.results[:1]]
    assert widths[0] > widths[1] * 1.05


def test_an_aa_test_raises_few_alarms(tmp_path):
    """Catches: intervals that do not hold: 60 A/A tests of three metrics, at most 6 that say anything."""
    said = 0
    for seed in range(60):
        found = analysed(world(tmp_path, crowd(100 + seed, 150), f"{seed}.sqlite"))
        said += found.advice["treatment"][0] in ("ship", "stop")
    assert said <= 6


# ------------------------------------------------------------------------------------------------ known effects


@pytest.fixture(scope="module")
def simulated(shop, tmp_path_factory):
    """4,000 customers through the shop's experiments, with effects four times those of the demo."""
    folder = tmp_path_factory.mktemp("customers")
    effects = {("rerank", "treatment"): Change(resolved=0.2), ("short-prompt", "treatment"): Change(handed_over=0.2)}
    simulate_customers(shop, 4_000, folder / "log.sqlite", folder / "runs.sqlite", 5, effects)
    return folder


@pytest.mark.parametrize(("name", "reason", "truth"), [
    ("rerank", "resolved is better", ("resolved", 0.2)),
    ("short-prompt", "guardrail handed-over is harmed", ("handed-over", 0.2)),
    ("warm-tone", None, ("resolved", 0.0)),
])  # fmt: skip
def test_known_effects_are_found(shop, simulated, name, reason, truth):
    """Catches: an effect found in the wrong experiment: all of them ran on the same people at once."""
    columns = sorted({column for metric in shop.setup.metrics for column in metric.columns})
    events = read_events(simulated / "runs.sqlite", name, columns)
    exposures = read_exposures(simulated / "log.sqlite", name)
    found = analyse(name, shop.weights(name), shop.setup.metrics, events, exposures)
    reasons = found.advice["treatment"][1]
    assert reasons[0] == reason if reason else not any("better" in each or "harmed" in each for each in reasons)
    result = next(each for each in found.results if each.metric.name == truth[0])
    assert result.low <= truth[1] <= result.high


def test_effects_of_several_layers_add_up(shop):
    """Catches: a simulation in which the last layer wins."""
    assignment = shop.assign({"user": "u"}, overrides={"rerank": "treatment", "hint": "treatment"})
    effects = {("rerank", "treatment"): Change(spend=1, slower=2), ("hint", "treatment"): Change(spend=2, slower=3)}
    assert change_of(assignment, effects) == Change(spend=3, slower=6)


def test_true_effects_are_those_of_the_simulation(tmp_path):
    """Catches: a truth that is not what was put in."""
    found = replace(analysed(world(tmp_path, crowd(13, 50)), metrics=(RESOLVED,)), experiment="rerank")
    change = EFFECTS["rerank", "treatment"]
    assert true_effects("rerank", found)["treatment", "resolved"] == change.resolved


# ------------------------------------------------------------------------------------------------ page, bad files


def test_the_page_is_self_contained_and_in_both_languages(tmp_path):
    """Catches: a picture by link, a language that is missing, a name that is not escaped."""
    found = analysed(world(tmp_path, crowd(14, 300, better=0.2)))
    found = replace(found, experiment="a<b>")
    page = render(found, [(plot_effects(found, tmp_path / "x.png"), "effects", "效应")], "made")
    assert "a&lt;b&gt;" in page and "<b>a<b>" not in page
    assert "data:image/png;base64," in page and not re.search(r'(src|href)="(?!data:)', page)
    assert "全量发布" in page and ">ship<" in page and "更好" in page
    english, chinese = (len(re.findall(f'class="{language}"', page)) for language in ("en", "zh"))
    assert english == chinese > 15


@pytest.mark.parametrize(("columns", "table", "experiment", "message", "advice"), [
    (("resolvd",), "runs", "test", "has no column resolvd", "resolved"),
    (COLUMNS, "run", "test", "has no table run", "--table runs"),
    (COLUMNS, "runs", "tset", "has no events of experiment tset", "--experiment test"),
])  # fmt: skip
def test_events_that_are_not_there(tmp_path, columns, table, experiment, message, advice):
    """Catches: an empty analysis where a name was mistyped."""
    path = world(tmp_path, crowd(15, 3))
    with pytest.raises(LabError, match=message) as refused:
        read_events(path, experiment, columns, table)
    assert refused.value.try_next == advice


def test_files_that_hold_no_events(tmp_path):
    """Catches: a traceback for text, a short line, words where numbers belong."""
    (tmp_path / "text.sqlite").write_text("nothing " * 300)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "short.csv").write_text("unit,arm,experiment,resolved\na,control,test\n")
    (tmp_path / "words.csv").write_text("unit,arm,experiment,resolved\na,control,test,yes\n")
    for name, message in (("none.csv", "there are no events"), ("text.sqlite", "is no SQLite database"),
                          ("empty.csv", "is empty"), ("short.csv", "line 2 of .* has another number of fields"),
                          ("words.csv", "holds text that is no number")):  # fmt: skip
        with pytest.raises(LabError, match=message):
            read_events(tmp_path / name, "test", ("resolved",))


def test_an_arm_that_nobody_configured(tmp_path):
    """Catches: an arm of an older configuration left out without a word."""
    with pytest.raises(LabError, match="experiment test has no arm treatment"):
        analysed(world(tmp_path, crowd(16, 3)), weights={"control": 50, "treated": 50})
