"""The load test against a server whose answers are known. Each test names the bug that it catches."""

import asyncio
import json
import math
from collections import Counter

import pytest

from labkit.runs import latest_run, read_report
from stage2_rag_finetune_deploy.serving.arrivals import Request
from stage2_rag_finetune_deploy.serving.latency import Record, Summary
from stage2_rag_finetune_deploy.serving.load_test import read_event, run_load
from stage2_rag_finetune_deploy.serving.load_test_command import conclusion, read_rates, read_span
from stage2_rag_finetune_deploy.serving.server_process import free_port


def load(toy, requests, concurrency=None, **more):
    return asyncio.run(run_load(toy.url, "toy", requests, concurrency, 20, lambda record: None, more))


def test_two_hundred_requests_none_lost_none_twice(toy):
    """Catches: requests dropped or sent again under load, a refusal counted as a failure, answers that got mixed."""
    toy.refuse_every = 5
    requests = [Request(0.0, f"prompt {number}", 3) for number in range(200)]
    records = load(toy, requests)
    assert Counter(record.outcome for record in records) == {"finished": 160, "refused": 40}
    assert Counter(body["prompt"] for body in toy.bodies) == {request.prompt: 1 for request in requests}
    assert all(record.text == "0 1 2 " and record.new_tokens == 3 for record in records if record.outcome == "finished")
    assert {record.reason for record in records if record.outcome == "refused"} == {"429 too many requests wait"}


def test_a_server_that_dies_while_streaming(toy):
    """Catches: half an answer counted as a whole one; an exception that ends the whole test; an empty reason."""
    toy.break_after = 2
    (record,) = load(toy, [Request(0.0, "hello", 5)])
    assert record.outcome == "failed" and record.text == "0 1 "
    assert "gone in the middle" in record.reason or "without [DONE]" in record.reason


def test_requests_are_sent_at_their_time_and_not_after_the_last_answer(toy):
    """Catches: a closed loop, in which a slow server slows the test down and its queue is never seen."""
    toy.gap = 0.1
    open_loop = load(toy, [Request(0.05 * number, f"{number}", 4) for number in range(4)])
    sent = [record.sent - open_loop[0].sent for record in open_loop]
    assert sent == sorted(sent) and sent[-1] < open_loop[0].end_to_end
    closed = load(toy, [Request(0.0, f"{number}", 2) for number in range(3)], concurrency=1)
    assert all(later.sent >= earlier.token_times[-1] for earlier, later in zip(closed, closed[1:], strict=False))


def test_the_first_tokens_time_holds_the_wait(toy):
    """Catches: a clock that starts when the answer starts."""
    toy.gap = 0.2
    (record,) = load(toy, [Request(0.0, "x", 2)])
    assert record.ttft >= 0.2 and record.end_to_end >= 0.4


def test_command_writes_table_figure_and_report(toy, cli, runs):
    """Catches: the warm-up counted, a figure or report that is missing, results that are not JSON."""
    code, out, err = cli("load-test", "--preset", "smoke", "--url", f"{toy.url}/v1")
    assert code == 0, err
    assert "tokens/s at most" in out and "P50 / P95 / P99" in out
    assert len(toy.bodies) == 1 + 2 * 4
    run = latest_run("stage2", "serving", "load-test")
    assert (run / "saturation.png").stat().st_size > 10_000
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert list(results) == ["4", "inf"] and results["inf"]["finished"] == 4
    assert read_report(run)["metrics"]["failed"]["value"] == 0


def test_command_without_answers(toy, cli, runs):
    """Catches: a table of nan, exit code 0, when every request was refused."""
    toy.refuse_every = 1
    code, _, err = cli("load-test", "--preset", "smoke", "--url", toy.url)
    assert code == 2
    assert err.splitlines()[-2].startswith("error: no request was answered: 429 too many requests wait")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--url", "ftp://x"), "error: ftp://x is no address of a server"),
        (("--rates", "1,0"), "error: --rates 1,0 are no rates"),
        (("--rates", "nan"), "error: --rates nan are no rates"),
        (("--new-tokens", "9-3"), "error: --new-tokens 9-3 is no span"),
        (("--new-tokens", "0"), "error: --new-tokens 0 is no span"),
        (("--requests", "0"), "error: --requests 0 is not possible"),
        (("--model", "other"), "does not serve other"),
    ],
)
def test_command_refuses(toy, cli, runs, words, message):
    """Catches: a traceback, or a test that starts and then fails."""
    code, _, err = cli("load-test", "--url", toy.url, *words)
    assert code == 2 and message in err and err.splitlines()[-1].startswith("  try: ")
    assert not runs.exists()


def test_nobody_there_is_one_line(cli, runs, monkeypatch):
    """Catches: httpx's traceback; a proxy asked about this very machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    port = free_port()
    for command in ("load-test", "metrics"):
        code, _, err = cli(command, "--url", f"http://127.0.0.1:{port}")
        assert code == 2
        assert err.splitlines()[-2] == f"error: no server answers at http://127.0.0.1:{port}"


def test_a_proxy_does_not_stand_between_this_machine_and_itself(toy, cli, runs, monkeypatch):
    """Catches: a load test through the proxy of a company network."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert cli("load-test", "--preset", "smoke", "--url", toy.url)[0] == 0


def test_spans_and_rates():
    """Catches: one number refused, inf refused."""
    assert read_span("--x", "7") == (7, 7) and read_span("--x", "3-5") == (3, 5)
    assert read_rates("1,inf") == [1.0, math.inf]


def test_the_conclusion_names_the_rate_where_it_saturates():
    """Catches: the largest rate called the saturation point though a smaller one gave as much."""

    def summary(throughput: float, good: float) -> Summary:
        nothing = (0.0, 0.0, 0.0)
        return Summary(8, 8, 0, 0, 10.0, int(10 * throughput), nothing, nothing, nothing, good)

    results = {1.0: summary(50, 0.9), 2.0: summary(97, 1.6), 4.0: summary(100, 0.5), math.inf: summary(99, 0.1)}
    text = conclusion(results)
    assert text.startswith("100 tokens/s at most, reached from 2 requests/s on")
    assert "1.60, at 2 requests/s" in text


def test_an_answer_of_special_tokens_is_seen_when_it_ends():
    """Catches: a short answer that vLLM sends without text, because its tokens are all special, taken for a failure."""
    silent, spoken, stopped = (Record(sent=0.0) for _ in range(3))
    read_event(silent, {"choices": [{"text": "", "finish_reason": None}]})
    assert not silent.token_times
    read_event(silent, {"choices": [{"text": "", "finish_reason": "length"}]})
    read_event(silent, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert len(silent.token_times) == 1 and (silent.text, silent.new_tokens) == ("", 2)
    read_event(spoken, {"choices": [{"text": "a", "finish_reason": None}]})
    read_event(spoken, {"choices": [{"text": "", "finish_reason": "length"}]})
    assert len(spoken.token_times) == 1
    read_event(stopped, {"choices": [{"text": "", "finish_reason": "stop"}]})
    assert not stopped.token_times
