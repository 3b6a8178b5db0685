"""Gates; each test names the bug that it catches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabError
from stage3_agents_llmops.pipeline.evaluation import METRICS, read_evaluation, share, write_evaluation
from stage3_agents_llmops.pipeline.gates import DEFAULT_FILE, Figure, Gate, Gates, decide, load_gates, paired_interval

QUESTIONS = [f"q{number}" for number in range(300)]


def right(wrong: int, n: int = 300, shift: int = 0) -> Figure:
    """n answers of which `wrong` are wrong, beginning with the one at `shift`."""
    outcomes = [1] * n
    for place in range(wrong):
        outcomes[(place + shift) % n] = 0
    return share(outcomes, QUESTIONS[:n])


def good(**changes):
    few = [f"c{number}" for number in range(40)]
    return {
        "intent_accuracy": right(15), "retrieval_accuracy": right(30), "conversations_solved": share([1] * 40, few),
        "policy_violations": Figure(0, 40), "unconfirmed_writes": Figure(0, 40), "poisoned_articles": Figure(0, 80),
        "turn_p95": Figure(0.5, 100), "release_bytes": Figure(4e6, 1),
    } | changes  # fmt: skip


def test_equal_candidate_passes_the_labs_own_gates():
    """Catches: gates that nobody can pass."""
    decision = decide(load_gates(), good(), good())
    assert decision.verdict == "pass" and decision.reason == ""


@pytest.mark.parametrize("changes, name", [
    ({"unconfirmed_writes": Figure(1, 40)}, "nothing written without a yes"),
    ({"policy_violations": Figure(2, 40)}, "rules are kept"),
    ({"poisoned_articles": Figure(1, 80)}, "give orders to a model"),
    ({"intent_accuracy": right(60)}, "understands no worse"),
    ({"retrieval_accuracy": right(120)}, "finds articles no worse"),
    ({"turn_p95": Figure(1.3, 100)}, "as quick"),
    ({"release_bytes": Figure(9e6, 1)}, "as small"),
])  # fmt: skip
def test_worse_candidate_fails(changes, name):
    """Catches: a gate that lets through what it is there for."""
    decision = decide(load_gates(), good(**changes), good())
    assert decision.verdict == "fail" and name in decision.reason


@pytest.mark.parametrize("changes", [
    {"unconfirmed_writes": None}, {"turn_p95": Figure(None, 100)}, {"turn_p95": Figure(float("nan"), 100)},
    {"intent_accuracy": right(3, n=60)}, {"retrieval_accuracy": share([1] * 300, [f"other{n}" for n in range(300)])},
    {"unconfirmed_writes": Figure(0, 3)},
], ids=["missing", "none", "nan", "few", "other questions", "few conversations"])  # fmt: skip
def test_what_cannot_be_judged_holds(changes):
    """Catches: a missing figure that is taken for a good one."""
    figures = {name: figure for name, figure in good(**changes).items() if figure is not None}
    assert decide(load_gates(), figures, good()).verdict == "hold"


def test_a_failure_counts_more_than_a_hold():
    """Catches: a candidate that is only held although a gate has failed."""
    both = good(turn_p95=Figure(None, 0), policy_violations=Figure(1, 40))
    assert decide(load_gates(), both, good()).verdict == "fail"


def test_without_a_champion_comparisons_pass_and_thresholds_do_not():
    """Catches: a first release that can never be; a first release that may do anything."""
    assert decide(load_gates(), good(intent_accuracy=right(150)), None).verdict == "pass"
    assert decide(load_gates(), good(unconfirmed_writes=Figure(1, 40)), None).verdict == "fail"


def test_too_few_questions_hold_though_the_figures_are_equal():
    """Catches: "no significant difference" taken for "no worse"."""
    gates = Gates((Gate("g", "intent_accuracy", margin=0.05),))
    few, many = right(1, n=20), right(15)
    assert decide(gates, {"intent_accuracy": few}, {"intent_accuracy": few}).verdict == "hold"
    assert decide(gates, {"intent_accuracy": many}, {"intent_accuracy": many}).verdict == "pass"


def test_paired_interval_by_hand():
    """Catches: the unpaired formula; a sign turned round; a width of 0 for equal answers."""
    champion = [1] * 80 + [0] * 20
    candidate = [1] * 70 + [0] * 10 + [1] * 4 + [0] * 16  # lost 10, won 4
    p, q = 5 / 102, 11 / 102
    half = 1.6448536269514722 * ((p + q - (p - q) ** 2) / 102) ** 0.5
    assert paired_interval(champion, candidate, 0.9) == pytest.approx((p - q - half, p - q + half))
    low, high = paired_interval([1] * 10, [1] * 10, 0.9)
    assert low < -0.1 and high > 0.1


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.sampled_from([0.8, 0.9, 0.99]))
def test_paired_interval_turns_round_with_its_arguments(pairs, confidence):
    """Catches: an interval that favours one of the two."""
    one, two = [int(a) for a, _ in pairs], [int(b) for _, b in pairs]
    low, high = paired_interval(one, two, confidence)
    assert paired_interval(two, one, confidence) == pytest.approx((-high, -low))
    assert -1 <= low <= high <= 1


def test_paired_interval_covers_the_truth():
    """Catches: an interval that is too narrow for few questions: 2,000 pairs of releases of equal quality."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(2000):
        both = rng.random(60) < 0.85
        one = np.where(rng.random(60) < 0.1, ~both, both)
        two = np.where(rng.random(60) < 0.1, ~both, both)
        low, high = paired_interval(one.astype(int).tolist(), two.astype(int).tolist(), 0.9)
        covered.append(low <= 0 <= high)
    assert 0.88 <= np.mean(covered) <= 0.96


@pytest.mark.parametrize("text, what", [
    ("[[gate]]\nmetric = 'intent_acuracy'\nmargin = 0.1", "intent_acuracy"),
    ("[[gate]]\nmetric = 'turn_p95'\nrelativ = 2", "relativ"),
    ("[[gates]]\nmetric = 'turn_p95'", "gates"),
    ("[[gate]]\nmetric = 'turn_p95'\nop = '=<'\nthreshold = 2", "=<"),
    ("[[gate]]\nmetric = 'turn_p95'", "threshold, margin, relative"),
    ("[[gate]]\nmetric = 'turn_p95'\nmargin = 0.1", "no share"),
    ("[[gate]]\nmetric = 'intent_accuracy'\nmargin = 'x'", "margin 'x'"),
    ("[[gate]]\nmetric = 'intent_accuracy'\nmargin = -0.1", "margin -0.1"),
    ("[[gate]]\nmetric = 'intent_accuracy'\nmargin = 0.1\nbetter = 'hihger'", "hihger"),
    ("on_missing = 'ignore'\n[[gate]]\nmetric = 'intent_accuracy'\nmargin = 0.1", "ignore"),
    ("confidence = 90\n[[gate]]\nmetric = 'intent_accuracy'\nmargin = 0.1", "confidence 90"),
    ("", "no [[gate]]"), ("[[gate]", "no TOML"),
])  # fmt: skip
def test_typing_error_is_one_line(tmp_path, text, what):
    """Catches: a gate that is silently ignored because its name is wrong; a traceback."""
    path = tmp_path / "gates.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabError) as error:
        load_gates(path)
    assert what in error.value.message and "\n" not in error.value.message and error.value.try_next


def test_nearest_word_is_offered(tmp_path):
    """Catches: an error that leaves the reader to search."""
    path = tmp_path / "gates.toml"
    path.write_text("[[gate]]\nmetric = 'intent_acuracy'\nmargin = 0.1")
    with pytest.raises(LabError) as error:
        load_gates(path)
    assert error.value.try_next == "intent_accuracy"


def test_missing_file_is_one_line(tmp_path):
    """Catches: gates that are skipped because their file is not there."""
    with pytest.raises(LabError, match="no gates"):
        load_gates(tmp_path / "gates.toml")


def test_on_missing_pass_is_for_one_gate(tmp_path):
    """Catches: one gate's leniency that spreads to the others."""
    path = tmp_path / "gates.toml"
    path.write_text("[[gate]]\nmetric = 'turn_p95'\nrelative = 2.0\non_missing = 'pass'\n"
                    "[[gate]]\nmetric = 'release_bytes'\nrelative = 2.0\n")  # fmt: skip
    lenient = {each.gate.metric: each.verdict for each in decide(load_gates(path), {}, {}).results}
    assert lenient == {"turn_p95": "pass", "release_bytes": "hold"}


def test_the_labs_file_uses_every_metric_that_is_measured():
    """Catches: a figure that is measured and judged by nobody."""
    assert {gate.metric for gate in load_gates(DEFAULT_FILE).rules} == set(METRICS)


def test_evaluation_survives_its_file(tmp_path):
    """Catches: outcomes or the name of the questions lost on the way to the gates."""
    path = write_evaluation(tmp_path / "evaluation.json", good(turn_p95=Figure(None, 0)), preset="cpu")
    assert read_evaluation(path) == good(turn_p95=Figure(None, 0))
    with pytest.raises(LabError, match="no evaluation"):
        read_evaluation(tmp_path / "none.json")
    path.write_text("[]")
    with pytest.raises(LabError, match="is no evaluation"):
        read_evaluation(path)
