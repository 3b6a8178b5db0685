"""The suite over both registries, check by check; and over registries that are wrong in one way each."""

import pytest
from broken_registries import BROKEN, ClaimsNothing

from stage3_agents_llmops.registry.conformance import load_checks, run_check
from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.interface import CAPABILITIES

CHECKS = {check.name: check for check in load_checks()}
NOT_MLFLOWS = {"tamper_evident", "deduplication"}


@pytest.mark.parametrize("name", CHECKS)
def test_the_courses_own(name, tmp_path):
    result = run_check(CHECKS[name], FileRegistry, tmp_path)
    assert result.status == "passed", result.message


@pytest.mark.parametrize("name", CHECKS)
def test_mlflow(name, tmp_path, mlflow_maker):
    result = run_check(CHECKS[name], mlflow_maker, tmp_path)
    wanted = "left out" if CHECKS[name].capability in NOT_MLFLOWS else "passed"
    assert result.status == wanted, result.message


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_registry_fails(name, tmp_path):
    """Catches: a check that nothing can fail."""
    result = run_check(CHECKS[name], BROKEN[name], tmp_path)
    assert result.status == "failed" and result.message, f"{BROKEN[name].__name__} passed {name}"


def test_every_check_has_a_registry_that_fails_it():
    assert set(BROKEN) == set(CHECKS)


def test_what_is_not_claimed_is_left_out_and_said(tmp_path):
    """Catches: a registry that passes because it can do nothing; a missing capability counted as passed."""
    results = [run_check(check, ClaimsNothing, tmp_path / check.name) for check in CHECKS.values() if check.capability]
    assert {result.status for result in results} == {"left out"}
    assert {result.message.split()[-1] for result in results} == set(CAPABILITIES)
