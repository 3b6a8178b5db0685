"""The RAG over HTTP, by a real client against the real application. Each test names the bug that it catches."""

import json
import re
import threading

import pytest
from fastapi.testclient import TestClient

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag import service
from stage2_rag_finetune_deploy.rag.pipeline import LONGEST_QUESTION, Rag
from stage2_rag_finetune_deploy.rag.service import make_app

QUESTION = "After how many days does a parcel count as lost?"


@pytest.fixture
def client(rag):
    with TestClient(make_app(rag)) as client:
        yield client


def events_of(text: str) -> list[tuple[str, dict]]:
    """Server-sent events as (name, data)."""
    found = []
    for block in filter(None, re.split(r"\r?\n\r?\n", text)):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_health_says_what_is_served(client):
    """Catches: a grader or a load balancer that cannot tell whether the index is the right one."""
    assert client.get("/health").json() == {"status": "ready", "documents": 5}


def test_retrieve_gives_ids_texts_and_falling_scores(client, documents):
    """Catches: k ignored, ids that are not the documents', text that is not theirs."""
    hits = client.post("/retrieve", json={"question": QUESTION, "k": 3}).json()["hits"]
    assert len(hits) == 3 and hits[0]["id"] == "parcel"
    assert all(hit["text"] == documents[hit["id"]] for hit in hits)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    only = client.post("/retrieve", json={"question": QUESTION, "where": {"kind": "lamp"}}).json()["hits"]
    assert [hit["id"] for hit in only] == ["lamp"]


def test_ask_answers_with_a_citation_or_refuses(client):
    """Catches: fields that the grader and the page need, gone or renamed."""
    answer = client.post("/ask", json={"question": QUESTION}).json()
    assert not answer["refused"] and answer["citations"][0]["id"] == "parcel" and answer["citations"][0]["quote"]
    nothing = client.post("/ask", json={"question": "Who won the chess tournament in Reykjavik?"}).json()
    assert nothing["refused"] and nothing["citations"] == []


def test_the_stream_tells_the_same_story(client):
    """Catches: events out of order, tokens that do not add up, a stream that does not say that it is over."""
    reply = client.post("/ask/stream", json={"question": QUESTION})
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = events_of(reply.text)
    names = [name for name, _ in events]
    assert names[0] == "passages" and names[-2:] == ["answer", "end"] and set(names[1:-2]) == {"token"}
    whole = client.post("/ask", json={"question": QUESTION}).json()
    assert events[-2][1] == whole
    assert "".join(data["text"] for name, data in events if name == "token") + " [1]" == whole["answer"]


@pytest.mark.parametrize("path", ["/retrieve", "/ask", "/ask/stream"])
@pytest.mark.parametrize(
    "body", [{}, {"question": ""}, {"question": 7}, {"question": "x" * (LONGEST_QUESTION + 1)}, [], "text"]
)
def test_malformed_questions_get_one_clear_line(client, path, body):
    """Catches: a 500, an HTML error page, a list of pydantic's internals."""
    reply = client.post(path, json=body)
    assert reply.status_code == 422
    assert set(reply.json()) == {"error", "try"} and "\n" not in reply.json()["error"]


def test_a_question_without_words(client):
    """Catches: what only the pipeline can refuse turning into a 500, or into a stream without an end."""
    reply = client.post("/ask", json={"question": "?!"})
    assert reply.status_code == 422 and "no words" in reply.json()["error"]
    assert [name for name, _ in events_of(client.post("/ask/stream", json={"question": "?!"}).text)] == ["error", "end"]


def test_an_error_in_the_middle_ends_the_stream(rag):
    """Catches: a broken stream that the reader waits on for ever."""

    class Failing:
        def write(self, question, texts):
            yield "Well "
            raise LabError("the endpoint cannot be reached", "start the server")

    failing = Rag(rag.searcher, rag.weights, Failing(), 0.0, {})
    with TestClient(make_app(failing)) as client:
        events = events_of(client.post("/ask/stream", json={"question": QUESTION}).text)
        assert [name for name, _ in events] == ["passages", "token", "error", "end"]
        assert events[2][1] == {"error": "the endpoint cannot be reached", "try": "start the server"}
        assert client.post("/retrieve", json={"question": QUESTION}).status_code == 200  # its turn was given back


def test_too_many_questions_are_refused(rag, monkeypatch):
    """Catches: a queue without an end; a place that is not given back."""
    monkeypatch.setattr(service, "WAITING", 1)
    inside, go_on = threading.Event(), threading.Event()
    search = rag.searcher.search

    def slow(question, k, where=None):
        inside.set()
        assert go_on.wait(20)
        return search(question, k, where)

    monkeypatch.setattr(rag.searcher, "search", slow)
    with TestClient(make_app(rag)) as client:
        first = threading.Thread(target=client.post, args=("/ask",), kwargs={"json": {"question": QUESTION}})
        first.start()
        assert inside.wait(20)
        second = client.post("/ask", json={"question": QUESTION})
        streamed = events_of(client.post("/ask/stream", json={"question": QUESTION}).text)
        go_on.set()
        first.join(20)
        assert second.status_code == 503 and second.headers["retry-after"]
        assert [name for name, _ in streamed] == ["error", "end"]
        assert client.post("/ask", json={"question": QUESTION}).status_code == 200


def test_metrics_count_what_happened(client):
    """Catches: counters that stand still, refusals counted as answers, figures shared between two services."""
    client.post("/ask", json={"question": QUESTION})
    client.post("/ask", json={"question": "Who won the chess tournament in Reykjavik?"})
    client.post("/ask", json={})
    text = client.get("/metrics").text
    assert 'rag_requests_total{path="/ask",status="200"} 2.0' in text
    assert 'rag_requests_total{path="/ask",status="422"} 1.0' in text
    assert "rag_refused_total 1.0" in text and "rag_waiting 0.0" in text
    assert 'rag_seconds_count{stage="retrieve"} 2.0' in text


def test_the_page_needs_nothing_from_elsewhere(client):
    """Catches: a script or a font from another host, which a filtered network would not load."""
    page = client.get("/").text
    assert "<form" in page and not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)


def test_openapi_describes_the_service(client):
    """Catches: a path without its schema."""
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/health", "/retrieve", "/ask", "/ask/stream"} <= set(paths)
