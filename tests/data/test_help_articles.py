"""The help centre: articles in both languages that agree with the policy and with each other, and their questions."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import data
from data.help_articles import FOLDER, LANGUAGES, TOPICS, parse_article
from data.shop.seeding import products
from labkit.errors import LabError

POLICY = Path(data.__file__).parent / "shop"
ARTICLES = {(article.language, article.id): article for article in data.load_help_articles()}
NAMES = sorted({name for _, name in ARTICLES})
NUMBER = re.compile(r"(?<![A-Z\d])\d+(?:[.:]\d+)*")
MONTHS = {"delivery-times": {"11", "12"}}  # names in English
# how the articles write what the policy writes with a figure
PERIODS = {"en": re.compile(r"(\d+) days (?:of|from) delivery"), "zh": re.compile(r"签收后 ?(\d+) ?天")}
LIMITS = {"en": re.compile(r"(\d+\.\d\d)(?: dollars)?"), "zh": re.compile(r"(\d+\.\d\d)(?: ?美元)?")}


def policy_figures(language: str) -> tuple[set[str], set[str]]:
    """The days and the amounts of the policy, which sets them in bold."""
    bold = re.findall(r"\*\*(\d[\d.]*)", (POLICY / f"policy.{language}.md").read_text(encoding="utf-8"))
    days, amounts = {each for each in bold if "." not in each}, {each for each in bold if "." in each}
    assert days == {"30", "60"} and amounts == {"200.00"}  # else the patterns above look at something else
    return days, amounts


def test_both_languages_cover_the_same_topics():
    """Catches: an article that was written in one language only, or under another topic."""
    assert len(NAMES) >= 32
    for name in NAMES:
        assert {code for code, other in ARTICLES if other == name} == set(LANGUAGES), name
        assert ARTICLES["en", name].topic == ARTICLES["zh", name].topic
    assert {article.topic for article in ARTICLES.values()} == set(TOPICS)


@pytest.mark.parametrize("name", NAMES)
def test_an_article_is_neither_a_stub_nor_a_book_and_has_sections(name):
    """Catches: an empty article, one line a topic, a paragraph without a heading to find it by."""
    english, chinese = ARTICLES["en", name], ARTICLES["zh", name]
    assert 120 <= len(english.text.split()) <= 350
    assert 200 <= len(re.sub(r"\s", "", chinese.text)) <= 600
    for article in (english, chinese):
        assert 3 <= len(re.findall(r"^## \S", article.text, re.MULTILINE)) <= 7
        prose = [line and not line.startswith("#") for line in article.text.splitlines()]
        assert not any(map(all, zip(prose, prose[1:], strict=False)))  # one line a paragraph: quotes cut at line ends


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_state_the_same_figures(name):
    """Catches: a translation that promises 15 days where the original says 14."""
    english, chinese = (set(NUMBER.findall(ARTICLES[code, name].text)) for code in LANGUAGES)
    assert english == chinese - MONTHS.get(name, set())


@pytest.mark.parametrize("key", sorted(ARTICLES), ids="/".join)
def test_what_the_policy_also_states_agrees_with_it(key):
    """Catches: a return period or a limit of refunds that the agents do not keep to."""
    assert contradictions(key[0], ARTICLES[key].text) == []


def contradictions(language: str, text: str) -> list[str]:
    """Return periods that the policy does not have, a longer one without a fault, and other limits than its own."""
    days, amounts = policy_figures(language)
    wrong = [f"{each} days" for each in PERIODS[language].findall(text) if each not in days]
    wrong += [each for each in LIMITS[language].findall(text) if each not in amounts]
    fault = {"en": r"damaged|wrong|missing", "zh": r"损坏|发错|缺少|有问题"}[language]
    for paragraph in text.split("\n\n"):
        if re.search(r"\b60\b (?:days|天)", paragraph) and not re.search(fault, paragraph):
            wrong.append(f"60 days without a fault: {paragraph[:60]}")
    return wrong


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "You may return it within 45 days of delivery."), ("zh", "签收后 45 天内可以退。"),
     ("en", "You may return anything within 60 days of delivery."), ("zh", "签收后 60 天内可以退换，不限原因。"),
     ("en", "A person decides above 150.00 dollars."), ("zh", "超过 500.00 美元的由人工决定。")],
)  # fmt: skip
def test_a_contradiction_would_be_seen(language, text):
    """The control of the test above."""
    assert contradictions(language, text)


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        ("hygiene-goods", [each["en"] for each in products() if not each.get("returnable", True)],
         [each["zh"] for each in products() if not each.get("returnable", True)]),
        ("order-number", ["two capital letters and six digits"], ["两个大写字母加六位数字"]),
        ("delivery-times", ["Brightway", "Postline", "Swiftparcel", "4 days"], ["Brightway", "Postline", "4 天"]),
        ("exchange-an-item", ["the same product only", "in stock", "once"], ["只换同款", "须有库存", "一次"]),
        ("where-refunds-go", ["no other card, no other account, no cash"], ["不退到别的卡或账户，也不退现金"]),
        ("large-refunds", ["200.00", "a person"], ["200.00", "人工"]),
        ("cancel-an-order", ["placed or packed"], ["“已下单”或“已打包”"]),
        ("change-address", ["placed or packed"], ["“已下单”或“已打包”"]),
        ("invoices", ["not cancelled"], ["没有取消"]),
        ("privacy", ["30 days"], ["30 天"]),
    ],
)  # fmt: skip
def test_an_article_says_what_the_shop_does(name, english, chinese):
    """Catches: articles that drift away from the policy, the products and the seeds of the shop."""
    for code, words in (("en", english), ("zh", chinese)):
        text = ARTICLES[code, name].text.casefold()
        assert [word for word in words if word.casefold() not in text] == []


def test_questions_ask_for_articles_that_exist_and_every_article_is_asked_for():
    """Catches: a question that no answer can satisfy, and an article that nobody would ever be shown."""
    for code in LANGUAGES:
        counts = Counter(question.article for question in data.load_help_questions(code))
        assert counts.pop(None) >= 15
        assert set(counts) == set(NAMES)
        assert sum(counts.values()) >= 50 and min(counts.values()) >= 2
    texts = [question.text for question in data.load_help_questions()]
    assert len(texts) == len(set(texts)) >= 130


def test_questions_are_worded_like_customers_not_like_the_articles():
    """Catches: questions that were made by turning a title round, which any search finds."""
    for question in data.load_help_questions():
        if not question.article:
            continue
        article = ARTICLES[question.language, question.article]
        said, text = question.text.casefold().strip("?？"), article.text.casefold()
        assert said not in text and said != article.title.casefold()
        if question.language == "en":
            words, title = set(re.findall(r"[a-z]{4,}", said)), set(re.findall(r"[a-z]{4,}", article.title.casefold()))
            assert not words or len(words & title) / len(words) < 0.7, question.text


def test_both_halves_of_the_questions_have_everything():
    """Catches: a list whose order puts all of one sort into the half that sets thresholds (every other question)."""
    for code in LANGUAGES:
        questions = data.load_help_questions(code)
        for half in (questions[0::2], questions[1::2]):
            assert sum(each.article is None for each in half) >= 10
            assert len({each.article for each in half}) == len(NAMES) + 1


def test_the_questions_file_has_no_lists_that_are_not_read():
    """Catches: a third language, or a misspelt one, that nobody notices."""
    assert set(tomllib.loads((FOLDER / "questions.toml").read_text(encoding="utf-8"))) == set(LANGUAGES)


GOOD = "---\nid: gifts\ntitle: A gift\ntopic: orders\n---\n\nText.\n"


def test_an_article_is_parsed():
    """The control of the errors below."""
    article = parse_article(GOOD, "gifts", "en", "gifts.md")
    assert (article.id, article.language, article.title, article.topic) == ("gifts", "en", "A gift", "orders")
    assert article.text == "Text."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Text without front matter.", "states no id"),
        ("", "states no id"),
        (GOOD.replace("title: A gift\n", ""), "states no title"),
        (GOOD.replace("topic: orders", "topic:"), "states no topic"),
        (GOOD.replace("topic: orders", "topic: weather"), "'weather'"),
        (GOOD.replace("id: gifts", "id: presents"), "'presents'"),
        (GOOD.replace("Text.", " "), "no text"),
    ],
)
def test_a_file_that_is_no_article_is_named(text, said):
    """Catches: an article under another name, which citations would point at, and a silent empty one."""
    with pytest.raises(LabError, match=said) as caught:
        parse_article(text, "gifts", "en", "gifts.md")
    assert "gifts.md (en)" in str(caught.value)


def test_an_unknown_language_is_refused():
    """Catches: a misspelt language that yields nothing, and a test that passes on nothing."""
    for load in (data.load_help_articles, data.load_help_questions):
        with pytest.raises(LabError, match="'de'"):
            load("de")
