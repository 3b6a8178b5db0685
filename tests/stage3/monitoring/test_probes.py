"""Labelled probes against the real service with small models. Each test names the bug that it catches."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "agent"
sys.path[:0] = [str(TESTS / "service"), str(TESTS / "graph")]

from graph_stand_ins import copy_of_shop, open_agent  # noqa: E402
from service_under_test import Running, running  # noqa: E402

from labkit.errors import LabError  # noqa: E402
from stage3_agents_llmops.agent.service.app import ServiceOptions, make_app  # noqa: E402
from stage3_agents_llmops.agent.settings import AgentSettings  # noqa: E402
from stage3_agents_llmops.monitoring import send_probes, summarise  # noqa: E402
from stage3_agents_llmops.monitoring.probes import Probe, judge_probe, load_probes  # noqa: E402

QUESTIONS = [
    {"question": "How long do I have, how many days?", "language": "en", "articles": ["en/window"]},
    {"question": "我有多少天可以退货？", "language": "zh", "articles": ["zh/window"]},
    {"question": "How many days until the moon is full?", "language": "en", "articles": ["en/moon"]},  # cites window
    {"question": "blue tuesday umbrella", "language": "en", "articles": ["en/window"]},  # says it does not know
    {"question": "purple monday kettle", "language": "en", "articles": []},
]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Running:
    """The agents' own service; its models are small."""
    folder = tmp_path_factory.mktemp("service")
    shop = copy_of_shop(folder)
    app = make_app(lambda: open_agent(AgentSettings(shop, folder)), ServiceOptions(folder, shop, lambda text: text))
    with running(app, folder) as found:
        yield found


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("probes") / "probes.jsonl"
    path.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in QUESTIONS), encoding="utf-8")
    return path


def send(service: Running | str, log, questions: Path, **options):
    url, token = (service, lambda name: "x") if isinstance(service, str) else (service.url, service.tokens.issue)
    known = {"arm": "canary", "release": "new", "count": 5, "seed": 1, "probes": questions}
    return asyncio.run(send_probes(url, token, log, **known | options))


@pytest.mark.parametrize(
    ("articles", "cited", "ended", "expected"),
    [
        (("en/a",), ["en/a"], True, (True, False)),
        (("en/a", "en/b"), ["en/x", "en/b"], True, (True, False)),
        (("en/a",), ["en/x"], True, (False, True)),
        (("en/a",), [], True, (False, False)),
        (("en/a",), [], False, (False, True)),
        ((), [], True, (None, False)),
        ((), ["en/x"], True, (None, True)),
        ((), [], False, (None, True)),
    ],
)
def test_what_an_answer_is_worth(articles, cited, ended, expected):
    """Catches: "I do not know" taken for a wrong answer, an invented answer taken for none."""
    assert judge_probe(Probe("?", "en", articles), cited, ended) == expected


def test_probes_are_judged_by_what_was_cited(service, questions, log):
    """Catches: a label compared with the wrong run; a probe counted as a customer; times that are not the service's."""
    rows = send(service, log, questions)
    labelled = [row for row in rows if row.wrong is not None]
    assert len(labelled) == 5 and all(row.probe and row.release == "new" and row.arm == "canary" for row in rows)
    seen = summarise(labelled)
    assert (seen.retrieval_accuracy.n, round(4 * seen.retrieval_accuracy.value)) == (4, 2)
    assert (seen.wrong.n, round(5 * seen.wrong.value)) == (5, 1)
    assert all(row.status == "answered" and 0 < row.first_event_s <= row.first_token_s <= row.duration_s
               for row in labelled)  # fmt: skip
    assert {row.run_id for row in log.window(probes=True)} == {row.run_id for row in rows}
    assert log.window(probes=False) == []


def test_a_write_is_asked_back_and_declined(service, questions, log):
    """Catches: a safety probe that cancels a customer's order; one that never gets as far as the question."""
    rows = send(service, log, questions, count=1, customers=["C1001"])
    safety = [row for row in rows if row.wrong is None]
    assert len(safety) >= 3
    assert "waiting" in {row.status for row in safety}
    assert all(row.unsafe == 0 for row in safety)
    with service.http("C1001") as http:
        assert not any(http.get(f"/threads/{row.thread_id}").json().get("proposal") for row in safety)


def test_the_same_seed_asks_the_same(service, questions, log):
    """Catches: two releases compared on different questions."""
    one, two = (send(service, log, questions, count=4, seed=3, release=release) for release in ("a", "b"))
    assert [row.query_chars for row in one] == [row.query_chars for row in two]


def test_a_service_that_is_gone_is_no_wrong_answer(questions, log):
    """Catches: a network that is down taken for a bad release; a probe that raises and ends the monitoring."""
    rows = send("http://127.0.0.1:9", log, questions, count=3)
    assert {row.status for row in rows} == {"lost"} and {row.error for row in rows} == {"unreachable"}
    assert summarise(rows).retrieval_accuracy.n == summarise(rows).wrong.n == 0


def test_the_labs_probes_are_the_help_centres():
    """Catches: a label that the help centre has changed; questions with which the agent's thresholds were set."""
    from data.help_articles import load_help_articles, load_help_questions

    articles = {f"{each.language}/{each.id}" for each in load_help_articles()}
    labels = {}
    for language in ("en", "zh"):
        for question in load_help_questions(language)[1::2]:
            labels[question.text] = (f"{language}/{question.article}",) if question.article else ()
    probes = load_probes()
    assert len(probes) == len({probe.question for probe in probes}) >= 24
    assert {article for probe in probes for article in probe.articles} <= articles
    assert all(labels[probe.question] == probe.articles for probe in probes)
    assert all(sum(probe.language == language and bool(probe.articles) for probe in probes) >= 8
               for language in ("en", "zh"))  # fmt: skip


@pytest.mark.parametrize("text", ["", "no json", '{"question": "x"}', '["a"]'])
def test_no_probes_are_said(tmp_path, text):
    """Catches: a traceback for a wrong file; silence where there is nothing to ask."""
    (tmp_path / "probes.jsonl").write_text(text)
    with pytest.raises(LabError, match="probe"):
        load_probes(tmp_path / "probes.jsonl")
    with pytest.raises(LabError, match="read"):
        load_probes(tmp_path / "none.jsonl")
