"""The course's packaged data as mteb tasks: the same classes, measures and result files as the public benchmark.

A task is a subclass of mteb's AbsTaskRetrieval, AbsTaskSTS, AbsTaskClassification, AbsTaskClustering or
AbsTaskBitextMining with its TaskMetadata; only `load_data` is ours, because the data comes from packages. Everything
that is measured is measured by mteb.

A task made smaller gets another name, such as `Squad.q200.p250`: mteb's result cache goes by name, and the score of a
sample must never be taken for the score of the whole.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTask, AbsTaskClassification, AbsTaskClustering, AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

import data
from data.retrieval import SETS
from labkit.runs import Run, digest

LANGUAGES = {"en": "eng-Latn", "zh": "zho-Hans", "sv": "swe-Latn", "es": "spa-Latn"}
SEED = 1
FULL_EXPERIMENTS = 10  # mteb's own number


@dataclass(frozen=True)
class Size:
    """How much of a task is used; None is all of it. `experiments` are mteb's repetitions."""

    queries: int | None = None
    passages: int | None = None
    texts: int | None = None
    experiments: int = FULL_EXPERIMENTS

    @property
    def suffix(self) -> str:
        """What the task's name gets, empty for the whole."""
        parts = {"q": self.queries, "p": self.passages, "t": self.texts}
        parts["x"] = None if self.experiments == FULL_EXPERIMENTS else self.experiments
        return "".join(f".{letter}{count}" for letter, count in parts.items() if count is not None)


def describe(
    name: str, kind: str, languages: list[str], score: str, asset: str, text: str, subtype: str | None = None
) -> TaskMetadata:
    """A TaskMetadata with the fields that our tasks share."""
    entry = data.get(asset)
    return TaskMetadata(
        name=name, description=text, type=kind, category="t2t", main_score=score,
        dataset={"path": f"{entry.package}/{asset}", "revision": f"{entry.version}-recipe-{entry.recipe}"},
        eval_splits=["test"], eval_langs=[LANGUAGES[language] for language in languages], modalities=["text"],
    )  # fmt: skip


class Packaged:
    """What our tasks share: a size, a name that tells it, and data from packages."""

    metadata: TaskMetadata
    source: str

    def __init__(self, size: Size = Size(), **kwargs: Any) -> None:  # noqa: B008 - frozen
        self.size = size
        self.metadata = self.metadata.model_copy(update={"name": self.metadata.name + size.suffix})
        super().__init__(**kwargs)

    @property
    def short_name(self) -> str:
        """The task's name without its size."""
        return self.metadata.name.split(".")[0]

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Fill `self.dataset`, once."""
        if not self.data_loaded:
            self.dataset = self.read()
            self.data_loaded = True


class PackagedRetrieval(Packaged, AbsTaskRetrieval):
    """Queries that look for passages; nDCG@10."""

    k_values = (1, 3, 5, 10, 20)

    def chosen(self) -> data.RetrievalSet:
        """The set, or its sample."""
        return retrieval_sample(self.source, self.size.queries, self.size.passages)

    def read(self) -> dict[str, Any]:
        """mteb's layout: subset -> split -> corpus, queries, qrels."""
        chosen = self.chosen()
        corpus = [{"id": passage, "text": text, "title": ""} for passage, text in chosen.corpus.items()]
        queries = [{"id": query, "text": text} for query, text in chosen.queries.items()]
        split = {
            "corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries),
            "relevant_docs": {query: dict(passages) for query, passages in chosen.qrels.items()}, "top_ranked": None,
        }  # fmt: skip
        return {"default": {"test": split}}


class Squad(PackagedRetrieval):
    source = "squad"
    metadata = describe("Squad", "Retrieval", ["en"], "ndcg_at_10", "squad-shifts",
                        "SQuAD v1.1 dev: a question finds its Wikipedia paragraph (Rajpurkar et al. 2016)")  # fmt: skip


class AmazonReviews(PackagedRetrieval):
    source = "amazon-reviews"
    metadata = describe("AmazonReviews", "Retrieval", ["en"], "ndcg_at_10", "squad-shifts",
                        "Questions about products find the review that answers (Miller et al. 2020)")  # fmt: skip


class ConstructionFAQ(PackagedRetrieval):
    source = "construction-faq"
    metadata = describe("ConstructionFAQ", "Retrieval", ["en"], "ndcg_at_10", "construction-faq",
                        "Questions find their answers in a builder's FAQ")  # fmt: skip


class Idioms(PackagedRetrieval):
    source = "idioms"
    metadata = describe("Idioms", "Retrieval", ["zh"], "ndcg_at_10", "idioms",
                        "成语: an explanation finds the idiom that it explains")  # fmt: skip


class HeldOut(PackagedRetrieval):
    """The held-out part of a set that is trained on (fine_tuning.py)."""

    metadata = describe("HeldOut", "Retrieval", ["en", "zh", "sv"], "ndcg_at_10", "idioms",
                        "The part of a set that training has not seen")  # fmt: skip

    def __init__(self, held_out: data.RetrievalSet) -> None:
        super().__init__(Size(len(held_out.queries), len(held_out.corpus)))
        self._held_out = held_out

    def chosen(self) -> data.RetrievalSet:
        """The set that was handed over."""
        return self._held_out


class PackagedSTS(Packaged, AbsTaskSTS):
    """Pairs with human ratings; Spearman's correlation of the cosine with them."""

    def read(self) -> DatasetDict:
        """One split with the columns sentence1, sentence2 and score."""
        pairs = data.load_similarity(self.source)
        columns = {"sentence1": pairs.first, "sentence2": pairs.second, "score": pairs.scores}
        return DatasetDict({"test": Dataset.from_dict(columns)})


class Lee(PackagedSTS):
    source, min_score, max_score = "lee", 0, 1
    metadata = describe("Lee", "STS", ["en"], "cosine_spearman", "human-similarity",
                        "50 news texts, every pair rated (Lee, Pincombe and Welsh 2005)")  # fmt: skip


class WordSim(PackagedSTS):
    source, min_score, max_score = "wordsim353", 0, 10
    metadata = describe("WordSim", "STS", ["en"], "cosine_spearman", "human-similarity",
                        "353 pairs of words, rated (Finkelstein et al. 2002)")  # fmt: skip


class PackagedClassification(Packaged, AbsTaskClassification):
    """Logistic regression on the vectors of 8 texts a class; accuracy."""

    def __init__(self, size: Size = Size(), **kwargs: Any) -> None:  # noqa: B008 - frozen
        super().__init__(size, **kwargs)
        self.n_experiments = size.experiments

    def read(self) -> DatasetDict:
        """Half for training, half for testing, or fewer; classes with fewer than 4 texts are left out."""
        train, test = labelled_halves(self.source, self.size.texts)
        names = sorted({label for _, label in train + test})
        number = {label: index for index, label in enumerate(names)}
        split = lambda rows: Dataset.from_dict(  # noqa: E731
            {"text": [text for text, _ in rows], "label": [number[label] for _, label in rows]}
        )
        return DatasetDict({"train": split(train), "test": split(test)})


class QuestionTypes(PackagedClassification):
    source = "question-types"
    metadata = describe("QuestionTypes", "Classification", ["en"], "accuracy", "question-types",
                        "What a question asks for: a person, a place, a number ... (Li and Roth 2002)")  # fmt: skip


class CallIntents(PackagedClassification):
    source = "call-intents"
    metadata = describe("CallIntents", "Classification", ["zh"], "accuracy", "call-intents",
                        "What callers of a collection call centre want, 64 intents")  # fmt: skip


class SquadArticles(Packaged, AbsTaskClustering):
    """Questions about the same Wikipedia article belong together; k-means against the articles, V-measure."""

    max_fraction_of_documents_to_embed = None
    metadata = describe("SquadArticles", "Clustering", ["en"], "v_measure", "squad-shifts",
                        "SQuAD's questions, clustered by the article that they are about")  # fmt: skip

    def __init__(self, size: Size = Size(), **kwargs: Any) -> None:  # noqa: B008 - frozen
        super().__init__(size, **kwargs)
        self.n_clusters = 2 * size.experiments  # mteb's word for its bootstrap resamples

    def read(self) -> DatasetDict:
        """20 articles; as many questions as the size says."""
        loaded = data.load_retrieval("squad")
        article = {query: next(iter(passages)).rpartition("/")[0] for query, passages in loaded.qrels.items()}
        rng = random.Random(SEED)
        chosen = set(rng.sample(sorted(set(article.values())), 20))
        queries = [query for query in loaded.queries if article[query] in chosen]
        queries = sample(queries, self.size.texts)
        self.max_documents_per_cluster = len(queries)  # a resample as large as the sample: its spread is the error
        columns = {"sentences": [loaded.queries[query] for query in queries],
                   "labels": [article[query] for query in queries]}  # fmt: skip
        return DatasetDict({"test": Dataset.from_dict(columns)})


class Tatoeba(Packaged, AbsTaskBitextMining):
    """An English sentence finds its Spanish translation among all of them; accuracy."""

    metadata = describe("Tatoeba", "BitextMining", ["en", "es"], "accuracy", "glove-tatoeba",
                        "English sentences find their Spanish translations (Tatoeba)")  # fmt: skip

    def read(self) -> DatasetDict:
        """Pairs of at least six English words: shorter ones are found by their names and marks."""
        pairs = data.load_bitext("tatoeba-en-es")
        rows = [(a, b) for a, b in zip(pairs.first, pairs.second, strict=True) if len(a.split()) >= 6]
        rows = sample(rows, self.size.texts or 1000)
        return DatasetDict({"test": Dataset.from_dict(
            {"sentence1": [first for first, _ in rows], "sentence2": [second for _, second in rows]})})  # fmt: skip


TASKS: list[type[AbsTask]] = [
    Squad, AmazonReviews, ConstructionFAQ, Idioms, Lee, WordSim, QuestionTypes, CallIntents, SquadArticles, Tatoeba,
]  # fmt: skip


def record_data(run: Run, tasks: Iterable[AbsTask] = (), sets: Iterable[str] = ()) -> None:
    """Write down which assets a run reads, with their sums.

    Args:
        tasks: those that are ours; the others' data are identified by mteb.
        sets: names of retrieval sets.
    """
    names = {task.metadata.dataset["path"].rpartition("/")[2] for task in tasks if isinstance(task, Packaged)}
    for name in sorted(names | {SETS[name][0] for name in sets if name in SETS}):
        run.data(name, *digest(data.fetch(name)))


@cache
def retrieval_sample(name: str, queries: int | None, passages: int | None) -> data.RetrievalSet:
    """A retrieval set or its sample, loaded once."""
    loaded = data.load_retrieval(name)
    if queries is None and passages is None:
        return loaded
    return loaded.sample(queries or len(loaded.queries), passages, seed=SEED)


def sample(items: list, count: int | None) -> list:
    """`count` items drawn with the course's seed, in their order; all where there are not more."""
    if count is None or count >= len(items):
        return items
    return [items[index] for index in sorted(random.Random(SEED).sample(range(len(items)), count))]


@cache
def labelled_halves(name: str, count: int | None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Texts with labels, every second one of each class for testing; at most `count` for each half."""
    loaded = data.load_labelled(name)
    by_label: dict[str, list[str]] = {}
    for text, label in zip(loaded.texts, loaded.labels, strict=True):
        by_label.setdefault(label, []).append(text)
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    for label, texts in by_label.items():
        if len(texts) >= 4:
            texts = random.Random(SEED).sample(texts, len(texts))
            train += [(text, label) for text in texts[0::2][:12 if count else None]]  # mteb draws 8 of them
            test += [(text, label) for text in texts[1::2]]
    return train, sample(test, count)
