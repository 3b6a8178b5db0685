"""The shop's help centre: articles in English and Chinese, and questions that say which article answers them.

Every topic has an article in both languages, under the same id; help_centre/README.md says how they were written.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from labkit.cli import nearest
from labkit.errors import LabError

FOLDER = Path(__file__).with_name("help_centre")
LANGUAGES = ("en", "zh")
TOPICS = ("orders", "delivery", "returns", "money", "account", "products", "safety", "service")
FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n+(.*)", re.DOTALL)
FIELD = re.compile(r"(id|title|topic): (\S.*)")


@dataclass(frozen=True)
class HelpArticle:
    """One article.

    Attributes:
        id: the same in both languages.
        topic: one of TOPICS.
        text: Markdown without the front matter and without the title; sections begin with `## `.
    """

    id: str
    language: str
    title: str
    topic: str
    text: str


@dataclass(frozen=True)
class HelpQuestion:
    """A customer's question. `article` is the id of the one that answers it, or None where none does."""

    text: str
    language: str
    article: str | None


def load_help_articles(language: str | None = None) -> list[HelpArticle]:
    """The articles of one language, or of both, in the order of their ids.

    Raises:
        LabError: an unknown language, or a file that is not an article.
    """
    return [
        parse_article(path.read_text(encoding="utf-8"), path.stem, code, path.name)
        for code in chosen_languages(language)
        for path in sorted((FOLDER / code).glob("*.md"))
    ]


def load_help_questions(language: str | None = None) -> list[HelpQuestion]:
    """The labelled questions of one language, or of both. Raises LabError for an unknown language."""
    wanted = chosen_languages(language)
    return [question for question in all_questions() if question.language in wanted]


@cache
def all_questions() -> tuple[HelpQuestion, ...]:
    """questions.toml: language -> id of an article (or "none") -> questions."""
    lists = tomllib.loads((FOLDER / "questions.toml").read_text(encoding="utf-8"))
    return tuple(
        HelpQuestion(text, language, None if article == "none" else article)
        for language in LANGUAGES
        for article, texts in lists[language].items()
        for text in texts
    )


def parse_article(text: str, expected_id: str, language: str, name: str) -> HelpArticle:
    """An article from its file.

    Raises:
        LabError: the front matter is missing or incomplete, or the id is not the file's name.
    """
    match = FRONT_MATTER.fullmatch(text)
    fields = dict(found.groups() for line in match[1].splitlines() if (found := FIELD.fullmatch(line))) if match else {}
    missing = [field for field in ("id", "title", "topic") if field not in fields]
    if missing:
        raise LabError(f"{name} ({language}) states no {missing[0]}", "front matter with id, title and topic")
    if fields["id"] != expected_id or fields["topic"] not in TOPICS or not match[2].strip():
        wrong = f"id {fields['id']!r}, topic {fields['topic']!r}"
        raise LabError(f"{name} ({language}) has {wrong}, or no text", f"its name as id; topics: {', '.join(TOPICS)}")
    return HelpArticle(fields["id"], language, fields["title"], fields["topic"], match[2].strip())


def chosen_languages(language: str | None) -> tuple[str, ...]:
    if language is not None and language not in LANGUAGES:
        raise LabError(f"the help centre has no language {language!r}", nearest(language, LANGUAGES) or "en, or zh")
    return (language,) if language else LANGUAGES
