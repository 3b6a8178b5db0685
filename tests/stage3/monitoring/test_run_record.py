"""Each test names the bug that it catches."""

import pytest

from stage3_agents_llmops.agent.events import Event
from stage3_agents_llmops.monitoring import Prices, RunRecord, Seen, record_from_events
from stage3_agents_llmops.monitoring.run_record import count_words

INTENT = {"intent": "return_item", "confidence": 0.83, "abstain": False, "source": "classifier", "request": 1, "of": 1}
WRITE = {"name": "cancel_order", "arguments": {"order_id": "KM204817"}, "phase": "result", "sensitive": True,
         "write": True, "ok": True, "message_code": "cancelled", "result": {}}  # fmt: skip
ASKED = {"proposal_id": "p1", "tool": "cancel_order", "arguments": {"order_id": "KM204817"}, "summary": "", "title": ""}


def seen(*told: tuple[str, dict], step: float = 0.1, resumed: bool = False) -> list[Seen]:
    """Events, one every tenth of a second; each is one that the agents may tell."""
    start = {"thread_id": "th", "turn": 1, "run_id": "r", "understander": "classifier", "wording": "templates",
             "resumed": resumed, "schema": 1}  # fmt: skip
    events = [Event("start", start), *(Event(type, data) for type, data in told)]
    return [Seen(event.type, event.data, step * (place + 1)) for place, event in enumerate(events)]


def end(reason: str = "answered") -> tuple[str, dict]:
    return "end", {"reason": reason, "text": ""}


def token(text: str) -> tuple[str, dict]:
    return "token", {"text": text}


def record(events: list[Seen], **fields) -> RunRecord:
    return record_from_events(events, run_id="r", started=1000.0, **fields)


def test_a_run_as_a_row():
    """Catches: a time taken at the wrong event, a count that misses or doubles."""
    found = {"name": "search_help", "arguments": {}, "phase": "result", "sensitive": False, "write": False,
             "ok": True, "result": {"passages": ["en/a"], "confident": True, "score": 0.71}}  # fmt: skip
    cited = {"number": 1, "id": "en/a", "title": "", "text": "", "kind": "help"}
    events = seen(("intent", INTENT), ("tool", found), ("citation", cited), token("Thirty "), token("days."), end())
    row = record(events, query="How long do I have?", trace_id="t", release="ab", arm="canary", unit="C1")
    assert (row.first_event_s, row.first_token_s, row.duration_s) == pytest.approx((0.1, 0.5, 0.7))
    assert (row.status, row.intent, row.confidence, row.language) == ("answered", "return_item", 0.83, "en")
    assert (row.query_chars, row.citations, row.retrieval_score) == (19, 1, 0.71)
    assert (row.trace_id, row.release, row.arm, row.unit) == ("t", "ab", "canary", "C1")
    assert (row.input_tokens, row.output_tokens, row.unsafe, row.guardrails) == (5, 2, 0, 0)


def test_no_text_is_kept():
    """Catches: a question or an answer in the table, where it does not belong."""
    row = record(seen(("intent", INTENT), token("SECRETANSWER"), end()), query="SECRETQUESTION")
    assert "SECRET" not in repr(row)


def test_tokens_are_the_models_where_one_took_part():
    """Catches: counted words added to billed tokens, only the last model call billed, a lost cost."""
    usage = [("usage", {"input_tokens": 100, "output_tokens": 20, "model": "m", "ms": 5.0}),
             ("usage", {"input_tokens": 50, "output_tokens": None, "model": "m", "ms": 5.0})]  # fmt: skip
    row = record(seen(*usage, token("a"), token("b"), end()), query="one two", prices=Prices(2.0, 10.0))
    assert (row.input_tokens, row.output_tokens) == (150, 20)
    assert row.cost == pytest.approx((150 * 2 + 20 * 10) / 1e6)
    assert count_words("Where is my order?") == 4
    assert count_words("我的订单到哪里了") == 3  # three characters at a time


def test_a_resumed_run_is_told_anew():
    """Catches: citations of the telling that is void; and a first token that moves to the second telling."""
    cited = ("citation", {"number": 1, "id": "en/a", "title": "", "text": "", "kind": "help"})
    usage = ("usage", {"input_tokens": 10, "output_tokens": 5, "model": "m", "ms": 1.0})
    first = seen(cited, usage, token("void"), ("guardrail", {"stage": "pii", "finding": "phone", "action": "masked"}))
    again = [Seen(each.type, each.data, each.seconds + 2) for each in seen(cited, usage, token("good"), end(),
                                                                           resumed=True)]  # fmt: skip
    row = record(first + again)
    assert (row.citations, row.guardrails) == (1, 0)
    assert (row.input_tokens, row.output_tokens) == (20, 10)  # both were billed
    assert row.first_token_s == pytest.approx(0.4)
    assert row.duration_s == pytest.approx(2.5)


def test_a_stream_without_an_end_is_lost():
    """Catches: a run that nobody saw end counted as answered; a refusal that costs tokens."""
    lost = record(seen(("intent", INTENT), token("half an")))
    assert (lost.status, lost.duration_s) == ("lost", pytest.approx(0.3))
    refused = record([], query="a b c", status="refused", error="429")
    assert (refused.status, refused.error, refused.input_tokens, refused.duration_s) == ("refused", "429", 0, None)


def test_a_failed_run_names_its_error():
    """Catches: an error that is not seen because the run has an end."""
    failed = seen(("error", {"code": "internal", "message": "", "retryable": True}), end("failed"))
    assert (record(failed).status, record(failed).error) == ("failed", "internal")


@pytest.mark.parametrize(
    ("approved", "unsafe"),
    [(None, 1), (ASKED, 0), ({**ASKED, "arguments": {"order_id": "KM999999"}}, 1), ({**ASKED, "tool": "refund"}, 1)],
)
def test_a_write_nobody_agreed_to_is_unsafe(approved, unsafe):
    """Catches: a yes to one thing that counts for another; a write without any yes that passes."""
    assert record(seen(("tool", WRITE), end()), approved=approved).unsafe == unsafe


@pytest.mark.parametrize("change", [{"ok": False}, {"sensitive": False}, {"phase": "call"}, {"write": False}])
def test_what_is_no_sensitive_write_is_safe(change):
    """Catches: every tool call counted as unsafe."""
    assert record(seen(("tool", {**WRITE, **change}), end())).unsafe == 0


def test_personal_data_in_an_answer_is_unsafe():
    """Catches: data that is cut over two tokens and so is not seen."""
    assert record(seen(token("call 138 12"), token("34 5678, mail ann@example.com"), end())).unsafe == 2
    assert record(seen(token("order KM204817 costs 34.56"), end())).unsafe == 0


def test_what_is_not_understood_has_an_intent_of_its_own():
    """Catches: a guess that was not trusted counted as the customer's intent; the last of several requests."""
    first = {**INTENT, "abstain": True}
    assert record(seen(("intent", first), ("intent", INTENT), end())).intent == "not_understood"


def test_a_person_is_counted_however_the_run_ends():
    """Catches: a handover that is seen only where the run's end says so."""
    human = ("human", {"ticket_id": "T", "position": 1})
    assert record(seen(human, end("answered"))).handed_to_human
    assert record(seen(end("human"))).handed_to_human
    assert not record(seen(end())).handed_to_human


@pytest.mark.parametrize("wrong", [{"status": "fine"}, {"feedback": 2}, {"duration_s": -1.0}, {"cost": float("nan")},
                                   {"run_id": ""}])  # fmt: skip
def test_impossible_rows_are_refused(wrong):
    """Catches: a clock that was set back written as a run of minus three seconds."""
    with pytest.raises(ValueError):
        RunRecord(**{"run_id": "r", **wrong})
