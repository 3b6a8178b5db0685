"""Each test names the bug that it catches."""

import hashlib
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from labkit.errors import LabError
from stage3_agents_llmops.experiments import Experiments, weighted
from stage3_agents_llmops.experiments.arms import Arm, choose_arm, consecutive_ranges
from stage3_agents_llmops.experiments.configuration import DEFAULT_FILE
from stage3_agents_llmops.experiments.hashing import growthbook_hash
from stage3_agents_llmops.experiments.independence import crossed, every_pair, labels, with_shared_salt
from stage3_agents_llmops.experiments.layers import UNITS
from stage3_agents_llmops.experiments.ramping import STEPS, canary_steps, grew, ramp

IDS = [f"u-{number}" for number in range(20_000)]
FEW = IDS[:2_000]
ROOT = Path(__file__).parents[3]
TWO = [{"name": "control", "weight": 50, "parameters": {"k": 1}},
       {"name": "treatment", "weight": 50, "parameters": {"k": 2}}]  # fmt: skip


def one_layer(*experiments: dict, **more) -> Experiments:
    """Experiments of one layer over the parameters k and m."""
    tables = {"parameters": {"k": 0, "m": 0}, "attributes": {"language": "text", "orders": "number"},
              "layers": [{"name": "layer", "parameters": ["k", "m"]}]}  # fmt: skip
    rows = [{"layer": "layer", "traffic": [0, 100], "arms": TWO, **row} for row in experiments]
    return Experiments.from_tables(tables | {"experiments": rows} | more)


# ------------------------------------------------------------------------------------------------ stickiness


def test_the_same_event_gets_the_same_in_another_process(shop):
    """Catches: Python's own hash, which changes with every start."""
    code = (
        "from stage3_agents_llmops.experiments import Experiments\n"
        f"e = Experiments.load({str(DEFAULT_FILE)!r})\n"
        "print([sorted(c.arm for c in e.assign({'user': f'u-{n}', 'session': 's'}).arms.values()) for n in range(50)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    here = [sorted(c.arm for c in shop.assign({"user": f"u-{n}", "session": "s"}).arms.values()) for n in range(50)]
    assert done.stdout.strip() == str(here), done.stderr


def by_hand(salt: str, unit: str, arms: dict[str, float]) -> str:
    """The race, written out once more."""
    times = {}
    for name, weight in arms.items():
        bits = int(hashlib.sha1(f"{salt}.{name}.{unit}".encode()).hexdigest(), 16) >> 100
        times[name] = -math.log((bits + 0.5) / 2**60) / weight
    return min(times, key=times.get)


def test_assignments_of_today_are_those_of_tomorrow():
    """Catches: a change of the hash or the salts that moves every customer of a running experiment."""
    experiments = one_layer({"name": "test", "traffic": [0, 30]})
    for unit in FEW:
        segment = (int(hashlib.sha1(f"layer.user.{unit}".encode()).hexdigest(), 16) >> 100) % 10_000
        wanted = by_hand("layer.test", unit, {"control": 50, "treatment": 50}) if segment < 3_000 else None
        assert experiments.assign({"user": unit}).arm("test") == wanted


def test_an_assignment_takes_far_less_than_a_millisecond(shop):
    """Catches: reading a file or walking through all users for each event. The median of many: load matters little."""
    seconds = []
    for number in range(300):
        start = time.perf_counter()
        shop.assign({"user": f"u-{number}", "session": f"s-{number}"}, {"orders": 2})
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[150] < 0.001


def test_arms_get_their_weights():
    """Catches: a race whose chances are not the weights. 20,000 users, p > .001."""
    arms = [Arm("a", 70), Arm("b", 20), Arm("c", 10)]
    counts = Counter(choose_arm(arms, "salt", unit).name for unit in IDS)
    assert chisquare([counts[arm.name] for arm in arms], [0.7 * 20_000, 0.2 * 20_000, 0.1 * 20_000]).pvalue > 0.001
    assert "z" not in {choose_arm([*arms, Arm("z", 0)], "salt", unit).name for unit in FEW}


def test_choose_arm_by_hand():
    """Catches: another race than -ln(u) / weight (this test is the quick one of the exercise)."""
    weights = {"a": 70.0, "b": 25.0, "c": 5.0}
    arms = [Arm(*pair) for pair in weights.items()]
    for unit in FEW[:200]:
        assert choose_arm(arms, "salt", unit).name == by_hand("salt", unit, weights)


# ------------------------------------------------------------------------------------------------ ramps

WEIGHTS = st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any)


@settings(max_examples=60, deadline=None)
@given(before=WEIGHTS, after=WEIGHTS, salt=st.text("abc", min_size=1, max_size=3))
def test_whatever_the_weights_nobody_moves_to_an_arm_that_did_not_grow(before, after, salt):
    """Catches: a choice of arms that reshuffles; any weights, any change."""
    old, new = (dict(zip("abc", map(float, weights), strict=True)) for weights in (before, after))
    for unit in IDS[:120]:
        was, now = (choose_arm([Arm(*pair) for pair in weights.items()], salt, unit).name for weights in (old, new))
        assert was == now or grew(was, now, old, new)


@pytest.mark.parametrize("alike", [(), ("baseline",)])
def test_a_ramp_from_1_to_100_moves_nobody_for_nothing(alike):
    """Catches: a canary whose customers are exchanged at every step; 20,000 users."""
    steps = ramp(canary_steps(["champion", *alike, "canary"], "canary", STEPS, alike), IDS, "rollout")
    assert [step.strays for step in steps] == [0] * 5
    for step in steps:
        share = step.weights["canary"] / 100
        assert abs(step.counts["canary"] - 20_000 * share) <= 4 * (20_000 * share * (1 - share)) ** 0.5
    assert {new for step in steps for _, new in step.moves} <= {"canary", *alike}
    assert steps[-1].counts["canary"] == 20_000


def test_ranges_side_by_side_do_move_people():
    """Catches: a ramp test that nothing fails."""
    steps = canary_steps(["champion", "baseline", "canary"], "canary", STEPS, ["baseline"])
    assert sum(step.strays for step in ramp(steps, FEW, "rollout", consecutive_ranges)) > 200


def test_ramping_while_requests_are_answered():
    """Catches: an assignment that sees half of a change, and a ramp that is not sticky."""
    routes = weighted({"champion": 100, "v7": 0}, "rollout-v7")
    seen, stop = {unit: [] for unit in FEW[:100]}, threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for unit, releases in seen.items():
                releases.append(routes.assign({"user": unit}).parameters["release"])

    thread = threading.Thread(target=ask)
    thread.start()
    for step in (1, 5, 25, 50, 100):
        time.sleep(0.02)
        routes.ramp("rollout-v7", {"champion": 100 - step, "v7": step})
    time.sleep(0.05)
    stop.set()
    thread.join()
    assert routes.weights("rollout-v7") == {"champion": 0, "v7": 100}
    for releases in seen.values():
        assert sum(one != other for one, other in zip(releases, releases[1:], strict=False)) <= 1
        assert routes.assign({"user": "x"}).parameters["release"] == "v7"


def test_coverage_brings_units_in_and_moves_none():
    """Catches: GrowthBook's trap: half the coverage must not mean other arms."""
    experiments = one_layer({"name": "test"})
    before: dict[str, str] = {}
    for coverage in (1, 10, 50, 100):
        experiments.cover("test", coverage)
        now = {unit: arm for unit in FEW if (arm := experiments.assign({"user": unit}).arm("test"))}
        assert before.items() <= now.items()
        assert abs(len(now) / len(FEW) - coverage / 100) < 0.04
        before = now


@pytest.mark.parametrize(("weights", "message"), [
    ({"control": 40, "treatment": 40}, "the arms of experiment test take 80 % of it: control 40, treatment 40"),
    ({"control": 120, "treatment": -20}, "the arms of experiment test take 100 % of it: control 120, treatment -20"),
    ({"control": 100}, "arm treatment of experiment test has no weight"),
    ({"control": 50, "treatmnt": 50}, "experiment test has no arm treatmnt"),
])  # fmt: skip
def test_a_wrong_ramp_is_refused_and_changes_nothing(weights, message):
    """Catches: a half-made change, or weights that silently sum to something else."""
    experiments = one_layer({"name": "test"})
    with pytest.raises(LabError, match="^" + message.replace("%", "%")):
        experiments.ramp("test", weights)
    assert experiments.weights("test") == {"control": 50, "treatment": 50}


# ------------------------------------------------------------------------------------------------ layers, domains


def test_one_experiment_a_layer_and_its_segments_only():
    """Catches: spans that are off by one, two experiments for one user."""
    experiments = one_layer({"name": "first", "traffic": [0, 20]}, {"name": "second", "traffic": [20, 50]})
    layer = experiments.root.layers[0]
    for unit in FEW:
        segment = layer.segment("user", unit)
        arms = experiments.assign({"user": unit}).arms
        expected = "first" if segment < 2_000 else "second" if segment < 5_000 else None
        assert (arms["layer"].experiment if arms else None) == expected


def test_nested_domains_cut_the_traffic(shop):
    """Catches: a user who is in a nested domain's layers and in its neighbour's at once."""
    for unit in FEW:
        layers = set(shop.assign({"user": unit, "session": unit}, {"orders": 1}).arms)
        assert not ({"whole-system"} & layers and {"retrieval", "dialogue", "prompt", "tone"} & layers)
        assert not ({"dialogue"} & layers and {"prompt", "tone"} & layers)
    share = sum("whole-system" in shop.assign({"user": unit}).arms for unit in FEW) / len(FEW)
    assert share == pytest.approx(0.1, abs=0.025)


def test_launch_layers_change_defaults_only(shop):
    """Catches: a launched default that overrides an experiment's arm."""
    seen = set()
    for unit in FEW:
        got = shop.assign({"user": unit}, {"orders": 1})
        launched, arm = got.arm("more-context"), got.arm("deep-search")
        wanted = {"eight": 8, "twelve": 12}.get(arm, 6 if launched else 5)
        assert got.parameters["top_k"] == wanted
        seen.add((bool(launched), wanted))
    assert (True, 8) in seen and (False, 5) in seen and (True, 6) in seen


def test_units_are_asked_in_their_fixed_order():
    """Catches: a message that decides before the user does, and a session experiment that takes users' segments."""
    experiments = one_layer(
        {"name": "by-user", "traffic": [0, 50]}, {"name": "by-session", "traffic": [0, 100], "unit": "session"}
    )
    for number in range(300):
        ids = {"session": f"s-{number}", "user": f"u-{number}"}
        chosen = experiments.assign(ids).arms["layer"]
        inside = experiments.root.layers[0].segment("user", ids["user"]) < 5_000
        assert chosen.experiment == ("by-user" if inside else "by-session")
        assert experiments.assign({"session": ids["session"]}).arms["layer"].experiment == "by-session"


def test_an_event_that_fails_a_condition_goes_to_no_other_experiment():
    """Catches: left-overs of a condition handed to the next diversion: a biased sample."""
    experiments = one_layer(
        {"name": "chinese", "when": {"language": "zh"}}, {"name": "sessions", "unit": "session"}
    )  # fmt: skip
    ids = {"user": "u", "session": "s"}
    assert experiments.assign(ids, {"language": "zh"}).arm("chinese")
    other = experiments.assign(ids, {"language": "en"})
    assert (other.arms, other.biased) == ({}, ("chinese",))
    assert experiments.assign(ids).biased == ("chinese",)  # an attribute that is not known fulfils nothing


@pytest.mark.parametrize(("condition", "attributes", "takes_part"), [
    ({"orders": {"min": 2}}, {"orders": 2}, True), ({"orders": {"min": 2}}, {"orders": 1}, False),
    ({"orders": {"min": 1, "max": 3}}, {"orders": 4}, False), ({"language": ["zh", "en"]}, {"language": "en"}, True),
    ({"language": {"not": ["zh"]}}, {"language": "zh"}, False), ({"language": {"not": "zh"}}, {"language": "en"}, True),
    ({"language": "zh", "orders": {"min": 1}}, {"language": "zh"}, False),
    ({"orders": {"max": 9}}, {"orders": "2"}, False),
])  # fmt: skip
def test_conditions(condition, attributes, takes_part):
    """Catches: a bound that excludes itself, `not` of a list, one of two conditions forgotten."""
    experiments = one_layer({"name": "test", "when": condition})
    assert bool(experiments.assign({"user": "u"}, attributes).arms) == takes_part


def test_testers_see_their_arm_wherever_they_fall():
    """Catches: an override that needs the right segment, or that reaches everybody of that name in another unit."""
    experiments = one_layer(
        {"name": "test", "traffic": [0, 1], "when": {"language": "zh"}},
        overrides=[{"experiment": "test", "arm": "treatment", "ids": ["anna"]}],
    )
    got = experiments.assign({"user": "anna"})
    assert got.arms["layer"].forced and got.parameters["k"] == 2
    assert not experiments.assign({"session": "anna"}).arms
    assert experiments.assign({"user": "anna"}, overrides={"test": "control"}).parameters["k"] == 1
    with pytest.raises(LabError, match="experiment test has no arm contrl") as refused:
        experiments.assign({"user": "u"}, overrides={"test": "contrl"})
    assert refused.value.try_next == "control"


@pytest.mark.parametrize(("ids", "message"), [
    ({}, "an event without an id cannot be assigned"), ({"user": ""}, "an event without an id cannot be assigned"),
    ({"usr": "u"}, "there is no unit usr"),
])  # fmt: skip
def test_events_that_cannot_be_assigned(shop, ids, message):
    """Catches: everybody without an id in the same arm."""
    with pytest.raises(LabError, match=message):
        shop.assign(ids)


def test_a_new_salt_draws_everybody_anew():
    """Catches: a second run whose treatment is the first one's."""
    first, second = (one_layer({"name": "test", "salt": salt}) for salt in ("test-1", "test-2"))
    pairs = [tuple(each.assign({"user": unit}).arm("test") for each in (first, second)) for unit in FEW]
    assert crossed(*zip(*pairs, strict=True)) > 0.001


# ------------------------------------------------------------------------------------------------ independence


def test_every_pair_of_layers_is_independent(shop):
    """Catches: layers that share their salt or a part of the hash. 20,000 users, p > .001 for every pair."""
    p_values = every_pair(labels(shop.root, IDS))
    assert len(p_values) == 17
    assert min(p_values.values()) > 0.001, p_values


def test_a_shared_salt_breaks_it(shop):
    """Catches: an independence test that nothing fails."""
    p_values = every_pair(labels(with_shared_salt(shop.root), FEW))
    assert sum(p_value < 1e-6 for p_value in p_values.values()) >= 3


def test_p_values_over_many_salts_are_even():
    """Catches: a weak dependence that one draw would not show. 150 pairs of salts, Kolmogorov-Smirnov."""
    arms = [Arm("control", 50), Arm("treatment", 50)]
    p_values = []
    for number in range(150):
        one, other = ([choose_arm(arms, f"{name}-{number}", unit).name for unit in IDS[:400]] for name in "ab")
        p_values.append(crossed(one, other))
    assert kstest(p_values, "uniform").pvalue > 0.001


def test_growthbooks_first_hash_fails_where_the_second_passes():
    """Catches: the bias of a hash that is applied once. Two experiments, 20,000 ids in order."""

    def both(version: int) -> float:
        return crossed(*([growthbook_hash(seed, str(number), version) < 0.5 for number in range(20_000)]
                         for seed in ("exp-1", "exp-2")))  # fmt: skip

    assert both(1) < 1e-6
    assert both(2) > 0.001


def test_the_tree_is_not_changed_by_the_demonstration(shop):
    """Catches: with_shared_salt spoiling the real configuration."""
    before = shop.root
    with_shared_salt(shop.root)
    assert shop.root is before and replace(before) == before and UNITS == ("user", "session", "message")
