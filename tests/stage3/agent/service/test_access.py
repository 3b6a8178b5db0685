"""Whose thread it is: tokens, ownership, the operator's part, and the demo."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from service_under_test import ALICE, BOB, free_connection

from stage3_agents_llmops.agent.service.auth import OPERATOR, Tokens


@pytest.fixture
def alices(small: Any) -> tuple[str, str]:
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
    return thread, small.run("say 2", thread_id=thread)[0]


def test_another_customers_thread_and_run_are_answered_word_for_word_as_unknown_ones(
    small: Any, alices: tuple[str, str]
) -> None:
    thread, run = alices
    calls = [
        ("GET", "/threads/{}", thread), ("GET", "/threads/{}/events", thread), ("POST", "/threads/{}/runs", thread),
        ("GET", "/runs/{}", run), ("GET", "/runs/{}/events", run), ("POST", "/runs/{}/cancel", run),
        ("POST", "/runs/{}/feedback", run),
    ]  # fmt: skip
    bodies = {"/threads/{}/runs": {"message": "hello"}, "/runs/{}/feedback": {"score": 1}}
    with small.http(BOB) as http:
        for method, path, id in calls:
            answers = []
            for name in (id, "th_0000000000000000"):
                answer = http.request(method, path.format(name), json=bodies.get(path))
                answers.append((answer.status_code, answer.text.replace(name, "X")))
            assert answers[0] == answers[1], path
            assert answers[0][0] == 404
        assert http.get("/threads").json() == {"threads": []}


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer C1001", "Bearer C1001.", "Bearer C1001.AAAA", "Basic QzEwMDE6", "Bearer .x",
     "Bearer operator.é".encode("latin-1"), "Bearer C1001.x.y", "Bearer \x7f.x"],
)  # fmt: skip
def test_no_token_or_a_false_one_is_401(small: Any, authorization: Any) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    with small.http(None) as http:
        answer = http.get("/threads", headers=headers)
    assert (answer.status_code, sorted(answer.json())) == (401, ["error", "try"])
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_of_another_name_or_secret_does_not_pass(small: Any, tmp_path: Path) -> None:
    other = Tokens.open(tmp_path / "other")
    signature = small.tokens.issue(ALICE).partition(".")[2]
    with small.http(None) as http:
        for token in (other.issue(ALICE), f"{BOB}.{signature}", f"{OPERATOR}.{signature}"):
            assert http.get("/threads", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first, second = Tokens.open(tmp_path), Tokens.open(tmp_path)
    assert first.secret == second.secret
    assert (tmp_path / "service.secret").stat().st_mode & 0o077 == 0


def test_customers_and_the_operator_have_each_their_own_part(small: Any, alices: tuple[str, str]) -> None:
    with small.http(ALICE) as customer, small.http(OPERATOR) as operator:
        assert customer.get("/operator/queue").status_code == 403
        assert customer.post(f"/operator/threads/{alices[0]}/reply", json={"text": "hi"}).status_code == 403
        assert operator.post("/threads").status_code == 403
        assert operator.post(f"/threads/{alices[0]}/runs", json={"message": "x"}).status_code == 403
        assert operator.get(f"/threads/{alices[0]}").status_code == 200
        assert operator.get("/operator/queue").json() == {"queue": []}


def test_the_operator_answers_only_in_conversations_that_were_handed_over(small: Any, alices: tuple[str, str]) -> None:
    thread, _ = alices
    with small.http(OPERATOR) as operator, small.http() as customer:
        assert operator.post(f"/operator/threads/{thread}/reply", json={"text": "hi"}).status_code == 409
        assert operator.post("/operator/threads/th_0/reply", json={"text": "hi"}).status_code == 404

        def ask_for_a_person() -> None:
            with sqlite3.connect(small.folder / "shop.sqlite") as shop:
                columns = "ticket_id, customer_id, thread_id, kind, summary, status, created_at"
                row = ("T1", ALICE, thread, "human", "wants a person", "open", "2026-11-20T10:00:00")
                shop.execute(f"insert into tickets ({columns}) values (?, ?, ?, ?, ?, ?, ?)", row)

        ask_for_a_person()
        ticket = operator.get("/operator/queue").json()["queue"][0]
        assert (ticket["thread_id"], ticket["customer_id"], ticket["position"]) == (thread, ALICE, 1)
        assert customer.get("/threads").json()["threads"][0]["human"] is True


def test_the_demo_hands_out_tokens_that_work_and_can_be_turned_off(serve: Callable[..., Any]) -> None:
    small = serve()
    with small.http(None) as http:
        demo = http.get("/demo/customers").json()
        one = demo["customers"][0]
        assert set(one) == {"customer_id", "name", "language", "token"}
        assert http.get("/threads", headers={"Authorization": f"Bearer {one['token']}"}).status_code == 200
        token = demo["operator"]["token"]
        assert http.get("/operator/queue", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_without_the_demo_there_are_no_tokens(serve: Callable[..., Any]) -> None:
    with serve(demo=False).http(None) as http:
        assert http.get("/demo/customers").status_code == 404


def test_another_sites_name_for_this_machine_gets_no_tokens(small: Any) -> None:
    with small.http(None) as http:
        assert http.get("/demo/customers", headers={"Host": "evil.example"}).status_code == 400


def test_half_a_request_is_closed_and_disturbs_nobody(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from stage3_agents_llmops.agent.service.server import PatientProtocol

    monkeypatch.setattr(PatientProtocol, "half_seconds", 1.0)
    halves = [b"", b"GET /runs/run_0/events HTT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-st"]
    sockets = []
    for half in halves:
        sockets.append(free_connection(small.url))
        sockets[-1].sendall(half)
    with small.http(None) as http:
        assert http.get("/health").status_code == 200
    began = time.monotonic()
    for one in sockets:
        one.settimeout(10)
        with suppress(ConnectionResetError):
            assert one.recv(10) == b""
        one.close()
    assert time.monotonic() - began < 8


def test_the_second_half_of_a_request_that_comes_late_is_still_a_request(small: Any) -> None:
    with free_connection(small.url) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        time.sleep(0.3)
        one.sendall(b"alhost\r\nConnection: close\r\n\r\n")
        assert one.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
