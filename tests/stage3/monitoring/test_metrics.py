"""Each test names the bug that it catches."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import NOW, run_of, runs_over
from prometheus_client.parser import text_string_to_metric_families

from stage3_agents_llmops.monitoring import RunLog
from stage3_agents_llmops.monitoring.agreement import disagreements, expected, scraped
from stage3_agents_llmops.monitoring.metrics import EDGES, MOST_RELEASES, RunMetrics, exposition
from stage3_agents_llmops.monitoring.quantiles import bucket_quantile, exact_quantile, same_bucket
from stage3_agents_llmops.monitoring.run_record import STATUSES
from stage3_agents_llmops.monitoring.traffic import SHIFTED, Behaviour, Share, customer_runs, probe_runs

MAYBE = st.sampled_from([None, True, False])
RUNS = st.lists(
    st.builds(
        run_of, release=st.sampled_from("ab"), arm=st.sampled_from(["stable", "canary"]),
        started=st.floats(NOW - 1000, NOW - 100), status=st.sampled_from(STATUSES),
        duration_s=st.one_of(st.none(), st.sampled_from([0.05, 0.1, 0.11, 4.0, 4.01, 70.0])),
        first_token_s=st.one_of(st.none(), st.floats(0, 12)), probe=st.booleans(), retrieval_hit=MAYBE, wrong=MAYBE,
        resolved=MAYBE, feedback=st.sampled_from([None, -1, 0, 1]), citations=st.integers(0, 2),
        citation_clicks=st.integers(0, 2), unsafe=st.integers(0, 2), guardrails=st.integers(0, 2),
        handed_to_human=st.booleans(), input_tokens=st.integers(0, 500), output_tokens=st.integers(0, 500),
        cost=st.floats(0, 1),
    ),
    max_size=25,
)  # fmt: skip


def text_of(log: RunLog, now: float = NOW, **options) -> str:
    return exposition(RunMetrics(log, clock=lambda: now, **{"debut": 0.0, **options})).decode()


@settings(max_examples=25, deadline=None)
@given(RUNS)
def test_every_sample_is_what_the_rows_say(tmp_path_factory, runs):
    """Catches: a sum over the wrong rows, a bucket that leaves its edge out, probes counted as customers."""
    with RunLog(tmp_path_factory.mktemp("log") / "runs.sqlite") as log:
        log.add(*runs)
        assert disagreements(text_of(log), runs) == []


def test_constant_metrics_do_not_agree():
    """The negative control: numbers that do not change with the rows, and numbers of one run too few, are noticed."""
    runs = runs_over(60, 50, status=lambda n: "failed" if n % 10 == 0 else "answered", feedback=1, input_tokens=7)
    constant = ""
    for name, labels in expected(runs):
        constant += name + "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels)) + "} 42\n"
    assert len(disagreements(constant, runs)) > 15
    assert disagreements("", runs)


def test_a_missing_run_is_noticed(log):
    """Catches: an exporter that loses a row; the check itself, were it blind."""
    runs = runs_over(60, 50, input_tokens=5)
    log.add(*runs[1:])
    found = disagreements(text_of(log), runs)
    assert any("llmops_runs_total" in line for line in found)
    assert any("llmops_tokens_total" in line for line in found)
    assert any("llmops_run_seconds_bucket" in line for line in found)


def test_scraped_percentiles_are_right_to_one_bucket(log):
    """Catches: a histogram that does not describe the runs it stands for."""
    runs = list(customer_runs(3, [Share("stable", "good", 1, Behaviour())], NOW - 400, 300, 4))
    log.add(*runs)
    samples = scraped(text_of(log))
    edges = EDGES["duration_s"]
    labels = {("release", "good"), ("arm", "stable")}
    counts = [int(samples["llmops_run_seconds_bucket", frozenset({*labels, ("le", str(edge))})]) for edge in edges]
    counts.append(int(samples["llmops_run_seconds_count", frozenset(labels)]))
    served = [run.duration_s for run in runs if run.status != "failed"]
    for q in (0.5, 0.95, 0.99):
        assert same_bucket(bucket_quantile(edges, counts, q), exact_quantile(served, q), edges)


def test_an_exporter_that_is_restarted_shows_the_same(log):
    """Catches: counters kept in memory, which fall to zero with the process."""
    log.add(*runs_over(60, 30))
    assert text_of(log) == text_of(log)
    before = scraped(text_of(log))
    log.add(*runs_over(1, 5))
    after = scraped(text_of(log))
    assert all(after[key] >= value for key, value in before.items() if key[0].endswith("_total"))


def test_a_release_begins_with_zeros(log):
    """Catches: a counter that appears with 30 and so has not increased, for Prometheus; or that never leaves zero."""
    log.add(*runs_over(5, 30))
    key = ("llmops_runs_total", frozenset({("release", "good"), ("arm", "stable"), ("status", "answered")}))
    early, late = (scraped(text_of(log, now, debut=10.0)) for now in (NOW, NOW + 20))
    assert (early[key], late[key]) == (0, 30)
    failed = frozenset({("release", "good"), ("arm", "stable"), ("status", "failed")})
    assert early["llmops_runs_total", failed] == late["llmops_runs_total", failed] == 0


def test_only_what_has_ended_is_shown(log):
    """Catches: rows of the future, after a clock was set back."""
    log.add(run_of(started=NOW - 10, duration_s=5.0), run_of(started=NOW - 10, duration_s=15.0))
    assert sum(value for (name, _), value in scraped(text_of(log)).items() if name == "llmops_runs_total") == 1


def test_labels_are_bounded(log):
    """Catches: a new time series for every word that a release or a customer invents."""
    log.add(*(run_of(release=f"release-{n}", arm=f"arm-{n}", started=NOW - 500 + n, status="failed", error=f"code {n}",
                     intent=f"intent {n}") for n in range(60)))  # fmt: skip
    text = text_of(log)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    releases = {sample.labels["release"] for sample in families["llmops_runs"].samples}
    codes = {sample.labels["code"] for sample in families["llmops_errors"].samples}
    assert len(releases) == MOST_RELEASES + 1 and {"other", "release-59"} <= releases
    assert "other" in codes and not any("code " in code for code in codes)
    assert "intent" not in text.replace("llmops_drift", "")
    total = sum(sample.value for sample in families["llmops_runs"].samples)
    assert total == 60


def test_drift_is_shown_once_there_is_a_reference(log):
    """Catches: a PSI of the reference against itself; none where customers ask for something else."""
    shares = [Share("stable", "good", 1)]
    log.add(*customer_runs(1, shares, NOW - 1000, 180, 3))
    assert "llmops_drift_psi{" not in text_of(log)
    log.add(*customer_runs(2, shares, NOW - 500, 200, 3, SHIFTED))
    samples = scraped(text_of(log))
    assert samples["llmops_drift_psi", frozenset({("what", "intent")})] > 0.25
    assert samples["llmops_drift_p_value", frozenset({("what", "intent")})] < 0.001


def test_probes_and_queues_are_shown(log):
    """Catches: accuracy computed from customers' runs; a queue that nobody sees."""
    log.add(*probe_runs(1, [Share("canary", "new", 1, Behaviour(hits=0.5))], NOW - 200, 100, 2))
    text = text_of(log, queues=lambda: {"http://a": 3.0})
    samples = scraped(text)
    both = [samples["llmops_probes_total", frozenset({("release", "new"), ("arm", "canary"), ("result", result)})]
            for result in ("hit", "miss")]  # fmt: skip
    assert sum(both) == 50 and 10 < both[0] < 40
    assert samples["llmops_queue_waiting", frozenset({("service", "http://a")})] == 3
    with pytest.raises(KeyError):
        samples["llmops_run_seconds_count", frozenset({("release", "new"), ("arm", "stable")})]
