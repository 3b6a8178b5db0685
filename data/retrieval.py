"""Labelled retrieval sets: passages, questions, and which passage answers which question.

Every set comes as one `RetrievalSet`, whatever its file looked like, so that an encoder, an index or a whole RAG is
measured on all of them by the same code. The words are those of the field: `corpus`, `queries`, `qrels`.
"""

import csv
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.catalog import fetch, get
from labkit.cli import nearest
from labkit.errors import LabError


@dataclass(frozen=True)
class RetrievalSet:
    """A corpus with judged questions.

    Attributes:
        name: the name it was loaded by.
        language: of the texts, an ISO 639-1 code.
        corpus: passage id -> text; every text occurs once.
        queries: query id -> text.
        qrels: query id -> {passage id: 1} for the passages that answer it, never empty.
        answers: query id -> the strings that count as its answer; empty for sets without answer spans.
        canary: evaluate on it, never train on it (data/README.md, "The canary rule").
    """

    name: str
    language: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    answers: dict[str, list[str]] = field(default_factory=dict)
    canary: bool = False

    def sample(self, queries: int = 300, passages: int | None = None, seed: int = 1) -> "RetrievalSet":
        """A smaller set: some queries, all their gold passages, and other passages as distractors.

        Args:
            queries: how many to keep; all of them when there are not as many.
            passages: size of the smaller corpus, gold passages included; None keeps the whole corpus.
            seed: the same seed gives the same set on every machine.

        Raises:
            LabError: `passages` is smaller than the number of gold passages, or a count is not positive.
        """
        if queries < 1 or (passages is not None and passages < 1):
            raise LabError(f"a sample of {min(queries, passages or queries)}", "at least 1")
        rng = random.Random(seed)
        drawn = set(rng.sample(sorted(self.queries), min(queries, len(self.queries))))
        kept = {query: text for query, text in self.queries.items() if query in drawn}
        corpus = self.corpus
        if passages is not None:
            gold = {passage for query in kept for passage in self.qrels[query]}
            if len(gold) > passages:
                message = f"{len(kept)} queries of {self.name} have {len(gold)} gold passages, more than {passages}"
                raise LabError(message, f"passages={len(gold)}, or fewer queries")
            others = sorted(self.corpus.keys() - gold)
            gold |= set(rng.sample(others, min(passages - len(gold), len(others))))
            corpus = {passage: text for passage, text in self.corpus.items() if passage in gold}
        qrels = {query: self.qrels[query] for query in kept}
        answers = {query: self.answers[query] for query in kept if query in self.answers}
        return RetrievalSet(self.name, self.language, corpus, kept, qrels, answers, self.canary)


def corpus_sha256(corpus: Mapping[str, str]) -> str:
    """What identifies a corpus, whatever its order: SHA-256 of its sorted lines `id  sha256 of the text`."""
    lines = (f"{id}  {hashlib.sha256(text.encode()).hexdigest()}\n" for id, text in sorted(corpus.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


Question = tuple[str, str, str, list[str]]  # query id, text, id of its passage, answers


def make_retrieval_set(
    name: str, language: str, passages: Iterable[tuple[str, str]], questions: Iterable[Question], canary: bool = False
) -> RetrievalSet:
    """Passages and questions as a `RetrievalSet`, with duplicates handled once and for all sets.

    Passages with the same text become one, under the first id. Questions with the same text ("What size is it?" of
    five products) stay apart, but each counts all the passages that any of them was written for: a retriever that
    sees only the text cannot tell them apart.
    """
    corpus: dict[str, str] = {}
    first_id: dict[str, str] = {}
    merged: dict[str, str] = {}
    for passage_id, text in passages:
        text = text.strip()
        merged[passage_id] = first_id.setdefault(text, passage_id)
        corpus.setdefault(merged[passage_id], text)
    queries: dict[str, str] = {}
    answers: dict[str, list[str]] = {}
    gold_by_text: dict[str, dict[str, int]] = {}
    for query_id, text, passage_id, spans in questions:
        queries[query_id] = text.strip()
        gold_by_text.setdefault(queries[query_id], {})[merged[passage_id]] = 1
        if spans:
            answers[query_id] = list(dict.fromkeys(spans))
    qrels = {query_id: dict(gold_by_text[text]) for query_id, text in queries.items()}
    return RetrievalSet(name, language, corpus, queries, qrels, answers, canary)


def read_squad(path: Path, name: str) -> RetrievalSet:
    """A file in SQuAD's form (Rajpurkar et al. 2016). A passage's id is its article and its place in it."""
    passages: list[tuple[str, str]] = []
    questions: list[Question] = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            passage_id = f"{article['title']}/{number}"
            passages.append((passage_id, paragraph["context"]))
            for question in paragraph["qas"]:
                spans = [answer["text"] for answer in question["answers"]]
                questions.append((question["id"], question["question"], passage_id, spans))
    return make_retrieval_set(name, "en", passages, questions, canary=True)


def read_faq(path: Path, name: str, language: str) -> RetrievalSet:
    """One question and one answer a line: the questions find the answers. Ids are the same in both languages."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    passages = ((entry["id"], entry["a"]) for entry in entries)
    questions: list[Question] = [(entry["id"], entry["q"], entry["id"], []) for entry in entries]
    return make_retrieval_set(name, language, passages, questions)


def read_idioms(path: Path, name: str) -> RetrievalSet:
    """Chinese idioms: an explanation finds the idiom it explains.

    Explanations of up to 8 characters, and those that name their idiom, are left out as queries; their idioms
    stay in the corpus. An explanation that several idioms share is one query with several gold idioms.
    """
    with open(path, encoding="utf-8", newline="") as file:
        explanations = {row["word"]: row["explanation"].strip() for row in csv.DictReader(file)}
    words_of: dict[str, list[str]] = {}
    for word, explanation in explanations.items():
        if len(explanation) > 8 and word not in explanation:
            words_of.setdefault(explanation, []).append(word)
    queries = {f"explains-{words[0]}": explanation for explanation, words in words_of.items()}
    qrels = {f"explains-{words[0]}": dict.fromkeys(words, 1) for words in words_of.values()}
    return RetrievalSet(name, "zh", {word: word for word in explanations}, queries, qrels)


# name -> (asset, file in it, reader)
SETS: dict[str, tuple[str, str, Callable[[Path, str], RetrievalSet]]] = {
    "squad": ("squad-shifts", "squaddev_v1.1.json", read_squad),
    "amazon-reviews": ("squad-shifts", "amazon_reviews_v1.0.json", read_squad),
    "construction-faq": ("construction-faq", "faq-en.jsonl", lambda path, name: read_faq(path, name, "en")),
    "construction-faq-sv": ("construction-faq", "faq.jsonl", lambda path, name: read_faq(path, name, "sv")),
    "idioms": ("idioms", "idiom.csv", read_idioms),
}


def retrieval_names() -> list[str]:
    """Names that `load_retrieval` knows."""
    return list(SETS)


def load_retrieval(name: str) -> RetrievalSet:
    """A labelled retrieval set, fetched when it is absent.

    Raises:
        LabError: there is no such set; the advice names the nearest one.
    """
    if name not in SETS:
        advice = nearest(name, list(SETS)) or f"one of: {', '.join(SETS)}"
        raise LabError(f"no retrieval set is called {name!r}", advice)
    asset, file, read = SETS[name]
    loaded = read(fetch_folder(asset) / file, name)
    assert loaded.canary == get(asset).canary
    return loaded


def fetch_folder(asset: str) -> Path:
    """The asset's folder, also when its entry is a file."""
    path = fetch(asset)
    return path if path.is_dir() else path.parent
