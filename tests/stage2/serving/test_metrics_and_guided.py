"""Reading /metrics, and the schema that answers are held to. Each test names the bug that it catches."""

import copy
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import data
from data.customer_service.schema import INTENTS, SLOTS_OF
from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.guided_command import Answer, judge, parameters
from stage2_rag_finetune_deploy.serving.guided_schema import guided_schema
from stage2_rag_finetune_deploy.serving.metrics_command import histogram, place, quantile, read, total

SCHEMA = json.loads((Path(data.__file__).parent / "customer_service" / "label.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def page() -> str:
    """A page as vLLM writes it: two engines, so two label sets of each figure."""
    registry = CollectorRegistry()
    running = Gauge("vllm:num_requests_running", "", ["engine"], registry=registry)
    tokens = Counter("vllm:generation_tokens", "", ["engine"], registry=registry)
    first = Histogram("vllm:time_to_first_token_seconds", "", ["engine"], buckets=(0.1, 0.2, 0.4), registry=registry)
    Counter("other", "", registry=registry).inc()
    for engine in ("0", "1"):
        running.labels(engine).set(2)
        tokens.labels(engine).inc(50)
        for seconds in (0.05, 0.15, 0.15, 0.9):
            first.labels(engine).observe(seconds)
    return generate_latest(registry).decode()


def test_figures_are_summed_over_engines(page):
    """Catches: one engine of several shown, `_created` times added to the count, foreign figures."""
    families = read(page)
    assert total(families, "num_requests_running") == 4
    assert total(families, "generation_tokens_total") == 100
    assert total(families, "not_there_total") is None and "other" not in families


def test_histograms(page):
    """Catches: buckets of two engines side by side instead of added, the order of text ('+Inf' before '0.1')."""
    buckets, count, seconds = histogram(read(page), "time_to_first_token_seconds")
    assert buckets == [(0.1, 2.0), (0.2, 6.0), (0.4, 6.0), (float("inf"), 8.0)]
    assert count == 8 and seconds == pytest.approx(2.5)


def test_quantiles_are_those_of_prometheus():
    """Catches: a bound in place of a place inside the bucket, infinity as a P95."""
    buckets = [(0.1, 2.0), (0.2, 6.0), (0.4, 6.0), (float("inf"), 8.0)]
    assert quantile(buckets, 0.5) == pytest.approx(0.15)
    assert quantile(buckets, 0.125) == pytest.approx(0.05)
    assert quantile(buckets, 0.99) == 0.4
    assert (place(buckets, 0.2), place(buckets, 0.5)) == ("<100", "150")
    times = np.random.default_rng(0).gamma(2.0, 0.1, 20_000)
    bounds = np.arange(0.02, 2.0, 0.02)
    counted = [(float(bound), float((times <= bound).sum())) for bound in bounds] + [(float("inf"), float(len(times)))]
    assert quantile(counted, 0.95) == pytest.approx(np.percentile(times, 95), abs=0.005)


def test_a_page_of_something_else():
    """Catches: a parser's traceback for an HTML page."""
    with pytest.raises(LabError, match="not in Prometheus' text form"):
        read("<html>{</html>")


def test_every_label_of_the_task_follows_the_schema():
    """Catches: a right answer that the grammar forbids, which no model could then give."""
    check = jsonschema.Draft202012Validator(guided_schema())
    for name in ("customer-service-en", "customer-service-zh"):
        for split in ("train", "test"):
            wrong = [each.label for each in data.load_understanding(name, split)
                     if not check.is_valid(json.loads(each.label))]  # fmt: skip
            assert not wrong


def test_it_forbids_what_the_task_forbids():
    """Catches: alternatives that let a slot through which its intent may not carry."""
    ours, theirs = (jsonschema.Draft202012Validator(schema) for schema in (guided_schema(), SCHEMA))
    for intent in INTENTS:
        for slot in ("order_id", "product", "reason", "address", "date", "amount"):
            label = {"intent": intent, "slots": {slot: "late" if slot == "reason" else "KM1"}}
            assert ours.is_valid(label) == theirs.is_valid(label) == (slot in SLOTS_OF[intent]), label
    for label in ({"intent": "refund"}, {"intent": "thanks", "slots": {}, "more": 1},
                  {"intent": "complaint", "slots": {"reason": "sad"}}, {"slots": {}}):  # fmt: skip
        assert not ours.is_valid(label)


def test_slots_stand_in_the_order_of_the_labels():
    """Catches: a grammar whose order differs from what was trained: the tuned model would be forced off its way."""
    for alternative in guided_schema()["anyOf"]:
        properties = alternative["properties"]
        assert tuple(properties["slots"]["properties"]) == SLOTS_OF[properties["intent"]["const"]]


def test_judging_answers():
    """Catches: JSON counted as a label, an allowed intent counted as the right one."""
    utterance = next(each for each in data.load_understanding("customer-service-en", "test") if each.slots)
    wrong = copy.deepcopy(json.loads(utterance.label)) | {"intent": "thanks", "slots": {}}
    answers = [utterance.label, json.dumps(wrong), '{"intent": "made up", "slots": {}}', "I am sorry"]
    outcome = judge([utterance] * 4, [Answer(text, cut=text[0] == "I") for text in answers], 1.0)
    assert outcome.cut == 0.25
    assert (outcome.json, outcome.label, outcome.intent, outcome.exact) == (0.75, 0.5, 0.25, 0.25)


def test_only_guided_requests_carry_the_schema():
    """Catches: both columns of the table decoded alike."""
    assert "response_format" not in parameters(False, 8)
    assert parameters(True, 8)["response_format"]["json_schema"]["schema"] == guided_schema()
