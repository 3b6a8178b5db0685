"""pass^k, the estimate and the mean."""

from itertools import combinations

import pytest

from stage3_agents_llmops.agent.evaluation.pass_power import mean_pass_power, pass_power


@pytest.mark.parametrize(("trials", "solved"), [(4, 4), (4, 3), (4, 1), (4, 0), (6, 4), (1, 1)])
def test_it_is_the_share_of_subsets_that_are_solved_throughout(trials, solved):
    """Catches: (c / n) ** k, C(k, c), and 1 - pass@k."""
    results = [True] * solved + [False] * (trials - solved)
    for k in range(1, trials + 1):
        subsets = list(combinations(results, k))
        assert pass_power(trials, solved, k) == pytest.approx(sum(map(all, subsets)) / len(subsets))


def test_the_plain_power_of_the_share_is_too_high():
    """Catches: the biased estimate, which is the more wrong the fewer trials there are."""
    assert pass_power(4, 3, 4) == 0 < 0.75**4 and pass_power(4, 3, 2) == 0.5 < 0.75**2


@pytest.mark.parametrize("numbers", [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5), (0, 0, 1)])
def test_impossible_numbers_are_refused(numbers):
    """Catches: 0 for what was never measured."""
    with pytest.raises(ValueError, match="trials"):
        pass_power(*numbers)


def test_the_mean_leaves_out_tasks_with_too_few_trials():
    """Catches: an unreachable server that counts as a task that failed."""
    assert mean_pass_power([(4, 4), (4, 2), (2, 0)], 4) == 0.5
    assert mean_pass_power([(4, 4), (4, 2), (2, 0)], 1) == 0.5
    assert mean_pass_power([(2, 2)], 4) is None and mean_pass_power([], 1) is None
