"""Whatever is sent, the answer is defined: `{"error", "try"}`, or a run that ends."""

import json
from collections.abc import Callable
from typing import Any

import pytest

NOT_READ = ["", "   ", "\n\t", "\u200b\u200d\ufeff", "\x00\x01\x02", "\u202e"]


@pytest.fixture
def thread(small: Any) -> str:
    with small.http() as http:
        return http.post("/threads").json()["thread_id"]


def refused(answer: Any, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert sorted(body) == ["error", "try"]
    assert body["error"] and body["try"]
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize("message", NOT_READ)
def test_a_message_without_anything_to_read_is_422(small: Any, thread: str, message: str) -> None:
    with small.http() as http:
        body = refused(http.post(f"/threads/{thread}/runs", json={"message": message}), 422)
        assert "empty" in body["error"]


@pytest.mark.parametrize("size", [4001, 50_000, 5_000_000])
def test_a_message_that_is_too_long_is_413(small: Any, thread: str, size: int) -> None:
    with small.http() as http:
        refused(http.post(f"/threads/{thread}/runs", json={"message": "a" * size}), 413)
        assert http.get("/health").json()["runs"]["active"] == 0


@pytest.mark.parametrize(
    "message",
    ["😀🎉👍", "say 订单 KM204817 where 呢?", "say 2 \x07\x1b[31mred\x1b[0m", "a" * 4000, "<script>alert(1)</script>",
     "';drop table runs;--", "\u202egnirts", "é" * 3000],
)  # fmt: skip
def test_odd_messages_are_runs_like_others(small: Any, thread: str, message: str) -> None:
    with small.http() as http:
        answer = http.post(f"/threads/{thread}/runs", json={"message": message})
        assert answer.status_code == 202
        run_id = answer.json()["run_id"]
        lines = http.get(f"/runs/{run_id}/events").text
        assert lines.count("event: end\n") == 1
        messages = http.get(f"/threads/{thread}").json()["messages"]
        assert not any(ord(letter) < 32 and letter != "\n" for letter in messages[0]["text"])


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"{}", b'{"message": 5}', b'{"message": null}', b'{"mesage": "a"}',
     b'{"message": "a", "decision": {"proposal_id": "p", "approve": true}}', b'{"decision": {"proposal_id": "p"}}',
     b'{"decision": {"proposal_id": "p", "approve": "yes"}}', b'{"decision": true}', b"\xff\xfe",
     b'{"message": "\xff"}', b'{"message": NaN}', b"[" * 20000],
)  # fmt: skip
def test_a_malformed_body_is_422(small: Any, thread: str, body: bytes) -> None:
    with small.http() as http:
        answer = http.post(f"/threads/{thread}/runs", content=body, headers={"Content-Type": "application/json"})
        refused(answer, 422)


def test_half_an_emoji_is_read_as_a_question_mark(small: Any, thread: str) -> None:
    with small.http() as http:
        answer = http.post(f"/threads/{thread}/runs", content=b'{"message": "hello \\ud83d"}',
                           headers={"Content-Type": "application/json"})  # fmt: skip
        http.get(answer.json()["events"])
        assert http.get(f"/threads/{thread}").json()["messages"][0]["text"] == "hello ?"


def test_a_refusal_does_not_repeat_what_was_written(small: Any, thread: str) -> None:
    secret = "13812345678"
    with small.http() as http:
        proposal = {"decision": {"proposal_id": secret * 10}}
        for body in ({"message": [secret]}, {"message": secret, "x": secret}, proposal):
            assert secret not in http.post(f"/threads/{thread}/runs", json=body).text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("DELETE", "/threads", 405), ("GET", "/threads/th_0", 404), ("GET", "/runs/run_0", 404),
     ("GET", "/runs/run_0/events", 404), ("POST", "/runs/run_0/cancel", 404), ("GET", "/threads/" + "a" * 3000, 404),
     ("GET", "/static/../app.py", 404), ("GET", "/static/%2e%2e/service/app.py", 404)],
)  # fmt: skip
def test_unknown_places_are_refused_in_the_same_form(small: Any, method: str, path: str, status: int) -> None:
    with small.http() as http:
        refused(http.request(method, path), status)


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 40])
def test_a_cursor_in_the_address_that_is_no_number_is_422(small: Any, after: str) -> None:
    run_id, _ = small.run("say 1")
    with small.http() as http:
        refused(http.get(f"/runs/{run_id}/events", params={"after": after}), 422)


@pytest.mark.parametrize("cursor", ["x", "-1", "9" * 40, "1; drop", "²"])
def test_a_last_event_id_that_was_never_given_out_gets_resync_and_the_whole_run(small: Any, cursor: str) -> None:
    run_id, events = small.run("say 3")
    with small.http() as http:
        text = http.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": cursor.encode()}).text
    assert text.startswith("id: 0\nevent: resync\n")
    assert text.count("event: token\n") == 3
    assert json.loads(text.split("data: ")[1].split("\n")[0]) == {"oldest": 1, "reason": "expired"}


def test_a_cursor_at_or_past_the_end_is_204_so_that_browsers_stop(small: Any) -> None:
    run_id, events = small.run("say 3")
    with small.http() as http:
        for after in (len(events), len(events) + 5):
            assert http.get(f"/runs/{run_id}/events", params={"after": after}).status_code == 204
            last = {"Last-Event-ID": str(after)}
            assert http.get(f"/runs/{run_id}/events", headers=last).status_code == 204
        assert http.get(f"/runs/{run_id}/events", params={"after": len(events) - 1}).text.count("event: ") == 1


def test_a_body_that_never_comes_is_408(serve: Callable[..., Any]) -> None:
    from service_under_test import ALICE, free_connection

    small = serve(body_seconds=0.5)
    token = small.tokens.issue(ALICE)
    with free_connection(small.url) as one:
        one.sendall(f"POST /threads HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                    "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{".encode())  # fmt: skip
        assert b"408" in one.recv(100)


@pytest.mark.parametrize("body", [{"score": 0}, {"score": 2}, {"score": "1"}, {}, {"score": 1, "comment": "a" * 1001}])
def test_feedback_that_is_no_thumb_is_422(small: Any, body: dict) -> None:
    run_id, _ = small.run("say 1")
    with small.http() as http:
        refused(http.post(f"/runs/{run_id}/feedback", json=body), 422)


def test_feedback_is_kept_masked_and_the_last_one_counts(small: Any) -> None:
    from stage3_agents_llmops.agent.service.database import first

    run_id, _ = small.run("say 1")
    with small.http() as http:
        for score, comment in ((1, None), (-1, "call 13812345678")):
            body = {"score": score} | ({"comment": comment} if comment else {})
            assert http.post(f"/runs/{run_id}/feedback", json=body).status_code == 204
        assert 'agent_feedback_total{score="down"} 1.0' in http.get("/metrics").text
    row = small.service.database._transact(first, ("select * from feedback where run_id = ?", run_id))
    assert (row["score"], row["comment"]) == (-1, "call [phone]")
