"""The templates: both languages say the same things, with the same facts, and no figure stands in them by itself."""

import re
from pathlib import Path

import pytest

from stage3_agents_llmops.agent.guardrails import check_grounding
from stage3_agents_llmops.agent.wording import FIELD, money, numbered, say, templates, tool_title

CODE = Path(__file__).parents[4] / "stage3_agents_llmops/agent"


def test_both_languages_have_the_same_templates_with_the_same_facts():
    english, chinese = templates("en"), templates("zh")
    assert list(english) == list(chinese)
    assert [code for code in english if set(FIELD.findall(english[code])) != set(FIELD.findall(chinese[code]))] == []


def test_every_template_that_the_code_names_exists_and_every_template_is_named():
    code = "".join(path.read_text() for path in [*CODE.glob("*.py"), *CODE.glob("agents/*.py")])
    named = set(re.findall(r'(?:outcome|say)\(\s*f?"(\w+)"', code)) | set(re.findall(r'"(\w+)"', code))
    beginnings = ("status_", "refund_", "refused_", "done_", "word_", "reason_", "propose_")
    missing = {each for each in re.findall(r'(?:outcome|say)\(\s*"(\w+)"', code)} - set(templates("en"))
    assert missing == set()
    assert [each for each in templates("en") if each not in named and not each.startswith(beginnings)] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_figure_stands_in_a_template(language):
    assert [code for code, text in templates(language).items() if re.search(r"\d", FIELD.sub("", text))] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_filled_template_passes_the_check_of_its_own_facts_and_fails_that_of_others(language):
    for code, text in templates(language).items():
        facts = {name: f"{place}7{place}x" for place, name in enumerate(FIELD.findall(text), 1)}
        evidence = ["passage"] * 1000 if "number" in facts else []
        assert check_grounding(say(code, language, **facts), evidence, facts).ok, code
        if facts:
            assert not check_grounding(say(code, language, **facts), [], {}).ok, code


def test_a_missing_fact_or_template_is_a_bug_and_not_an_empty_answer():
    with pytest.raises(KeyError):
        say("status_shipped", "en", order_id="KM204817")
    with pytest.raises(KeyError):
        say("no_such_template", "en")


def test_facts_are_not_read_as_templates():
    assert "{rule}" in say("part_not_understood", "en", part="{rule}")


def test_money_and_lists():
    assert money(3990, "USD") == "$39.90" and money(5, "CNY") == "¥0.05" and money(123456, "CHF") == "1234.56 CHF"
    assert numbered(["a", "b"]) == "1. a\n2. b"
    assert tool_title("cancel_order", "zh") == "取消订单"
