"""The data check: what a release learns from and answers from, looked at before an hour goes into it.

A label with a typo, a test sentence among the training data, an article without its translation or somebody's phone
number in it: each of them would train and serve without an error, and be found by customers.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import data
from data.customer_service.schema import INTENTS, REASONS, SLOTS_OF
from data.help_articles import HelpArticle, load_help_articles, load_help_questions
from labkit.errors import LabError
from stage3_agents_llmops.agent.guardrails.pii import mask_pii
from stage3_agents_llmops.agent.understanding.classifier import LANGUAGES, short_requests, utterances

SPLITS = ("train", "validation", "test")
LEAST = 1000  # training utterances; below, something was not read
MORE_FIELDS = ("text", "intent", "language", "slots")


def check_data(more: Path | None = None, articles: Sequence[HelpArticle] | None = None) -> dict[str, float]:
    """Check utterances and articles; the figures for the gates and the event log.

    Args:
        more: labelled utterances from production, one JSON object a line: text, intent, language, slots.
        articles: other ones than the help centre's.

    Raises:
        LabError: something is wrong that no training would notice; the first that was found.
    """
    splits = {split: utterances(split) for split in SPLITS}
    added = read_more(more) if more else []
    for item in [*(item for items in splits.values() for item in items), *added]:
        check_label(item)
    train = [*splits["train"], *short_requests("train"), *added]
    if len(train) < LEAST:
        raise LabError(f"only {len(train)} utterances to learn from", "python -m data verify")
    held_out = {fold(item.text) for split in ("validation", "test") for item in splits[split]}
    leaks = [item for item in added if fold(item.text) in held_out]
    if leaks:
        raise LabError(f"{more}: {leaks[0].text[:60]!r} is a sentence that releases are judged by",
                       "leave it out: it would be judged by what it was taught")  # fmt: skip
    texts = Counter(fold(item.text) for item in train)
    figures = {"utterances": len(train), "utterances_added": len(added),
               "duplicates": sum(count - 1 for count in texts.values()) / len(train),
               "leaks": sum(fold(item.text) in held_out for item in train),
               "intents": len({item.intent for item in train})}  # fmt: skip
    figures |= {f"utterances_{code}": sum(item.language == code for item in train) for code in LANGUAGES}
    return figures | check_articles(load_help_articles() if articles is None else articles)


def check_label(item: data.Utterance) -> None:
    """Refuse a label that the schema does not know. Raises LabError."""
    if item.intent not in INTENTS or not item.text.strip():
        raise LabError(f"{item.id}: the intent {item.intent!r} is unknown, or there is no text",
                       f"one of: {', '.join(INTENTS)}")  # fmt: skip
    wrong = [name for name in item.slots if name not in SLOTS_OF[item.intent]]
    if wrong or item.slots.get("reason", "price") not in REASONS:
        what = f"slot {wrong[0]}" if wrong else f"reason {item.slots['reason']!r}"
        raise LabError(f"{item.id}: {item.intent} has no {what}", "data/customer_service/README.md has the labels")


def check_articles(articles: Sequence[HelpArticle]) -> dict[str, float]:
    """Every article in both languages, none empty, nobody's personal data in one. Raises LabError."""
    by_language = {code: {each.id: each for each in articles if each.language == code} for code in LANGUAGES}
    alone = sorted(set(by_language["en"]) ^ set(by_language["zh"]))
    if alone or not articles:
        what = f"the article {alone[0]} is there in one language only" if alone else "there are no articles"
        raise LabError(what, "data/help_centre/{en,zh}/ID.md, both")
    for article in articles:
        if found := mask_pii(article.text).found:
            raise LabError(f"{article.language}/{article.id} holds personal data ({found[0][0]})",
                           "what everybody reads must not name anybody")  # fmt: skip
    questions = load_help_questions()
    known = set(by_language["en"])
    asked = [question.article for question in questions if question.article]
    return {"articles": len(articles), "questions": len(questions),
            "questions_answered": sum(article in known for article in asked) / max(1, len(asked))}  # fmt: skip


def read_more(path: Path) -> list[data.Utterance]:
    """Labelled utterances of a file.

    Raises:
        LabError: it is not there, or a line is no labelled utterance.
    """
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}", "a file of labelled utterances") from None
    items = []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            unknown = sorted(set(value) - set(MORE_FIELDS))
            if unknown or value["language"] not in LANGUAGES or not isinstance(value.get("slots", {}), Mapping):
                raise ValueError(f"unknown field {unknown[0]}" if unknown else "language or slots")
            item = data.Utterance(f"{Path(path).name}:{number}", value["text"], value["intent"],
                                  value.get("slots", {}), value["language"])  # fmt: skip
            check_label(item)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            example = '{"text": "...", "intent": "order_status", "language": "en", "slots": {}}'
            raise LabError(f"{path}, line {number}: no labelled utterance ({error})", example) from None
        items.append(item)
    return items


def fold(text: str) -> str:
    """A text as it is compared: case and spaces do not count."""
    return " ".join(text.casefold().split())


def data_sha256(more: Path | None = None) -> dict[str, str]:
    """Name of each set that a release is made of -> SHA-256, for its lineage."""
    sums = {}
    for split in ("train", "validation"):
        sums[f"customer-service/{split}"] = digest(f"{item.text}\t{item.label}\n" for item in utterances(split))
    sums["short-requests/train"] = digest(f"{item.text}\t{item.label}\n" for item in short_requests("train"))
    sums["help-centre"] = digest(f"{each.language}/{each.id}\n{each.title}\n{each.text}\n" for each in
                                 load_help_articles())  # fmt: skip
    if more:
        sums["production"] = digest(f"{item.text}\t{item.label}\n" for item in read_more(more))
    return sums


def digest(texts: object) -> str:
    """SHA-256 of texts, one after the other."""
    return hashlib.sha256("".join(texts).encode()).hexdigest()
