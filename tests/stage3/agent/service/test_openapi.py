"""Every documented route answers as documented, and nothing is answered that is not documented."""

import json
from typing import Any

import jsonschema
import pytest
from service_under_test import ALICE

from stage3_agents_llmops.agent.service.auth import OPERATOR


@pytest.fixture(scope="module")
def described(small: Any) -> dict[str, Any]:
    with small.http() as http:
        return http.get("/openapi.json").json()


@pytest.fixture(scope="module")
def ids(small: Any) -> dict[str, str]:
    with small.http() as http:
        thread = http.post("/threads").json()["thread_id"]
    return {"{thread_id}": thread, "{run_id}": small.run("say 2", thread_id=thread)[0]}


# who, method, path, body, query -> the status that the call must have
CALLS = [
    (ALICE, "post", "/threads", None, {}, 201), (ALICE, "post", "/threads", {"language": "xx"}, {}, 422),
    (None, "post", "/threads", None, {}, 401), (OPERATOR, "post", "/threads", None, {}, 403),
    (ALICE, "get", "/threads", None, {}, 200), (None, "get", "/threads", None, {}, 401),
    (OPERATOR, "get", "/threads", None, {}, 403),
    (ALICE, "get", "/threads/{thread_id}", None, {}, 200), ("C1002", "get", "/threads/{thread_id}", None, {}, 404),
    (None, "get", "/threads/{thread_id}", None, {}, 401),
    ("C1002", "get", "/threads/{thread_id}/events", None, {}, 404),
    (None, "get", "/threads/{thread_id}/events", None, {}, 401),
    (ALICE, "post", "/threads/{thread_id}/runs", {"message": "say 1"}, {}, 202),
    (ALICE, "post", "/threads/{thread_id}/runs", {"message": ""}, {}, 422),
    (ALICE, "post", "/threads/{thread_id}/runs", {"message": "a" * 5000}, {}, 413),
    (ALICE, "post", "/threads/{thread_id}/runs", {"decision": {"proposal_id": "x", "approve": True}}, {}, 409),
    ("C1002", "post", "/threads/{thread_id}/runs", {"message": "a"}, {}, 404),
    (OPERATOR, "post", "/threads/{thread_id}/runs", {"message": "a"}, {}, 403),
    (ALICE, "get", "/runs/{run_id}", None, {}, 200), ("C1002", "get", "/runs/{run_id}", None, {}, 404),
    (ALICE, "get", "/runs/{run_id}/events", None, {}, 200),
    (ALICE, "get", "/runs/{run_id}/events", None, {"after": 99}, 204),
    (ALICE, "get", "/runs/{run_id}/events", None, {"after": "x"}, 422),
    ("C1002", "get", "/runs/{run_id}/events", None, {}, 404),
    (ALICE, "post", "/runs/{run_id}/cancel", None, {}, 202), ("C1002", "post", "/runs/{run_id}/cancel", None, {}, 404),
    (ALICE, "post", "/runs/{run_id}/feedback", {"score": 1}, {}, 204),
    (ALICE, "post", "/runs/{run_id}/feedback", {"score": 7}, {}, 422),
    ("C1002", "post", "/runs/{run_id}/feedback", {"score": 1}, {}, 404),
    (OPERATOR, "post", "/runs/{run_id}/feedback", {"score": 1}, {}, 403),
    (OPERATOR, "get", "/operator/queue", None, {}, 200), (ALICE, "get", "/operator/queue", None, {}, 403),
    (None, "get", "/operator/queue", None, {}, 401),
    (OPERATOR, "post", "/operator/threads/{thread_id}/reply", {"text": "hi"}, {}, 409),
    (OPERATOR, "post", "/operator/threads/{thread_id}/reply", {"text": ""}, {}, 422),
    (ALICE, "post", "/operator/threads/{thread_id}/reply", {"text": "hi"}, {}, 403),
    (OPERATOR, "post", "/operator/threads/{thread_id}/release", None, {}, 409),
    (ALICE, "post", "/operator/threads/{thread_id}/release", None, {}, 403),
    (ALICE, "post", "/admin/drain", None, {}, 403), (None, "post", "/admin/drain", None, {}, 401),
    (None, "get", "/health", None, {}, 200), (None, "get", "/metrics", None, {}, 200),
    (None, "get", "/graph", None, {}, 200), (None, "get", "/demo/customers", None, {}, 200),
]  # fmt: skip


@pytest.mark.parametrize(("who", "method", "path", "body", "query", "status"), CALLS)
def test_every_route_answers_as_documented(
    small: Any, described: dict, ids: dict, who: str | None, method: str, path: str, body: Any, query: dict, status: int
) -> None:
    documented = described["paths"][path][method]["responses"]
    assert str(status) in documented
    place = path
    for name, value in ids.items():
        place = place.replace(name, value)
    with small.http(who) as http:
        answer = http.request(method, place, json=body, params=query)
    assert answer.status_code == status, answer.text
    content = documented[str(status)].get("content", {})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    assert (kind in content) if answer.content else not content
    if kind == "application/json":
        schema = {**content[kind]["schema"], "components": described["components"]}
        jsonschema.validate(answer.json(), schema)


def test_the_calls_above_leave_no_route_out(described: dict) -> None:
    routes = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert routes == {(method, path) for _, method, path, _, _, _ in CALLS}


def test_every_operation_has_a_tag_a_summary_and_words(described: dict) -> None:
    tags = {tag["name"] for tag in described["tags"]}
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert operation["summary"] and operation["description"], path
            assert set(operation["tags"]) <= tags
            for status, answer in operation["responses"].items():
                assert answer["description"], (path, status)


def test_every_refusal_is_documented_in_the_form_that_it_has(described: dict) -> None:
    for path, methods in described["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}, (path, status)


def test_a_contract_that_is_broken_is_noticed(described: dict) -> None:
    schema = {"$ref": "#/components/schemas/RunStatus", "components": described["components"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"run_id": "run_0", "status": "lost"}, schema)


def test_the_stream_is_described_as_a_stream_with_an_example(described: dict) -> None:
    answers = described["paths"]["/runs/{run_id}/events"]["get"]["responses"]["200"]["content"]
    assert list(answers) == ["text/event-stream"]
    example = answers["text/event-stream"]["example"]
    assert json.loads(example.split("data: ")[1].strip())["seq"] == 1


def test_streams_say_that_nothing_may_hold_them_back(small: Any, ids: dict) -> None:
    with small.http() as http:
        headers = http.get(f"/runs/{ids['{run_id}']}/events").headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"


def test_the_page_has_a_policy_and_its_files_their_types(small: Any) -> None:
    with small.http(None) as http:
        for path, kind in (("/", "text/html"), ("/operator", "text/html"), ("/static/chat.js", "text/javascript")):
            answer = http.get(path)
            assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
