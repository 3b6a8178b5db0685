"""What the hand-in's platform does not know: which of two releases is the bad one, what it does wrong, and the figures.

Both are the hand-in's own release with another note in its manifest, and so with another hash: nothing in the files
says which is which. Labels of some questions are wrong on purpose, so that no platform can know the share of right
answers without asking; how long answers take and how many tokens they cost is drawn as well.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.help_articles import LANGUAGES, load_help_articles, load_help_questions
from milestones.customer_traffic import Question
from milestones.grade import Context
from milestones.learner_model import LearnerFault
from milestones.service_faults import KINDS
from milestones.watch_log import WatchLog

STABLE, GOOD, BAD = "stable", "good", "bad"


@dataclass(frozen=True)
class Drawn:
    """What the seed decides."""

    order: tuple[str, ...]
    fault: str
    share: float  # of the bad release's runs that go wrong
    likes: float
    notes: Mapping[str, str]  # role -> note in the release's manifest
    questions: tuple[Question, ...]
    truth: Mapping[str, str]  # question -> the article that answers it, where the label may be wrong


def draw(context: Context) -> Drawn:
    """What is hidden from the hand-in."""
    settings, rng = context.month.settings, context.random("plan")
    order, fault = tuple(rng.sample((GOOD, BAD), 2)), rng.choice(KINDS)
    share, likes = rng.uniform(*settings["fault_share"]), rng.uniform(*settings["likes"])
    notes = {role: f"release {rng.randrange(16**8):08x}" for role in (STABLE, GOOD, BAD)}
    answered = [question for question in load_help_questions() if question.article]
    articles = sorted({question.article for question in answered})
    questions, truth = [], {}
    mislabelled = rng.uniform(*settings["mislabelled"])
    for language in LANGUAGES:
        pool = [question for question in answered if question.language == language]
        for question in rng.sample(pool, settings["questions"] // 2):
            right = label = str(question.article)
            if rng.random() < mislabelled:
                label = rng.choice([id for id in articles if id != right])
            questions.append(Question(question.text, language, f"{language}/{label}"))
            truth[question.text] = f"{language}/{right}"
    return Drawn(order, fault, share, likes, notes, tuple(questions), truth)


def watch_settings(context: Context, log: WatchLog, scratch: Path, leaks: list[str]) -> dict[str, Any]:
    """For watched_service.py."""
    rng, settings = context.random("watch"), context.month.settings
    articles = {
        language: [
            {"id": f"{language}/{one.id}", "title": one.title, "text": one.text} for one in load_help_articles(language)
        ]
        for language in LANGUAGES
    }
    return {
        "seed": rng.randrange(2**32), "delay": rng.uniform(*settings["delay"]), "leaks": leaks, "articles": articles,
        "tokens": [rng.randint(*settings["tokens"]), rng.randint(*settings["tokens"])],
        "log": str(log.folder), "switch": str(scratch / "switch.json"),
    }  # fmt: skip


def probe_line(question: Question) -> str:
    """A labelled question for the hand-in."""
    probe = {"question": question.text, "language": question.language, "articles": [question.article]}
    return json.dumps(probe, ensure_ascii=False) + "\n"


def copy_of(release: Path, target: Path, note: str) -> Path:
    """The hand-in's release under another note, and therefore another hash."""
    shutil.copytree(release, target)
    path = target / "release.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8")) | {"note": note}
    except (ValueError, TypeError):
        raise LearnerFault("release/release.json is no JSON object") from None
    path.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    return target
