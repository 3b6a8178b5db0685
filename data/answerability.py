"""Questions with a text that answers them, and questions with a text that only looks as if it did.

The 300 pairs are SQuAD 2.0's (Rajpurkar, Jia and Liang 2018), where people wrote the unanswerable questions on purpose
so that they read like answerable ones: the hardest test of whether a RAG knows when to refuse. Evaluate on them only.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from data.retrieval import RetrievalSet, fetch_folder, make_retrieval_set

ASSET = "unsolvable-parables"
PAIR = re.compile(r"Question: (?P<question>.*?)\n Context: (?P<context>.*)", re.DOTALL)
PARABLE = re.compile(r"(?P<story>.*)\nWhich moral is .*?\n(?P<options>A\) .*)\nThe output should", re.DOTALL)


@dataclass(frozen=True)
class AnswerabilitySet:
    """`answerable[i]` says whether `contexts[i]` answers `questions[i]`."""

    name: str
    questions: list[str]
    contexts: list[str]
    answerable: list[bool]


def load_answerability() -> AnswerabilitySet:
    """150 answerable and 150 unanswerable questions of SQuAD 2.0, each with its passage."""
    return read_unsolvable(fetch_folder(ASSET) / "unsolvable_questions" / "samples.jsonl")


def read_unsolvable(path: Path) -> AnswerabilitySet:
    """The package's form: a chat whose second message holds question and context; the label is one word."""
    questions, contexts, answerable = [], [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pair = PAIR.fullmatch(row["input"][1]["content"])
        questions.append(pair["question"].strip())
        contexts.append(pair["context"].strip())
        answerable.append({"Solveable": True, "Unsolveable": False}[row["ideal"]])
    return AnswerabilitySet("unsolvable-questions", questions, contexts, answerable)


def load_parables(language: str) -> RetrievalSet:
    """A moral looks for its story, `language` "en" or "zh": abstract matching, and pairs that may be trained on."""
    folder = fetch_folder(ASSET) / "parable-to-moral-match"
    return read_parables(folder / f"parable-to-moral-match-{language}.jsonl", f"parables-{language}", language)


def read_parables(path: Path, name: str, language: str) -> RetrievalSet:
    """The package's form: a story with five morals to choose from, and the right letter at the end of `ideal`."""
    stories, morals = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        parable = PARABLE.fullmatch(row["input"][1]["content"].partition("The output should")[0] + "The output should")
        letter = row["ideal"][0].strip()[-1]
        moral = re.search(rf"(?:^| ){letter}\) (.*?)(?= [A-E]\) |$)", parable["options"], re.DOTALL)
        stories.append((f"story-{number}", parable["story"]))
        morals.append((f"moral-{number}", moral[1], f"story-{number}", []))
    return make_retrieval_set(name, language, stories, morals)
