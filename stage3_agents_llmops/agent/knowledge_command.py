"""`knowledge`: how well the help centre's questions find their articles, and when the agents had better say nothing.

python -m stage3_agents_llmops.agent knowledge                    the table, on the half that nothing was fitted on
python -m stage3_agents_llmops.agent knowledge --preset study     every way to search, and the reviews
python -m stage3_agents_llmops.agent knowledge --write            fit the weights and thresholds again
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

import data
from data.help_articles import LANGUAGES, HelpQuestion, load_help_articles, load_help_questions
from labkit.assets import asset_state
from labkit.cli import Command, option
from labkit.files import sha256_file, write_json
from labkit.progress import console
from labkit.runs import Run, start_run

if TYPE_CHECKING:  # brings the search, and with it numba: seconds, for a program that only lists its commands
    from stage3_agents_llmops.agent.help_index import Found

LISTED = 10  # articles of a list that are looked at
RIGHT, SILENT = 0.7, 0.85  # shares that set a threshold: of what is said, right; of what nobody knows, not said
GRID = [round(0.05 * step, 2) for step in range(4, 20)]  # thresholds that are tried
REVIEW_QUESTIONS = 600  # about half of them ask about reviews that the index does not have
FIGURES = ("hit_at_1", "mrr", "answered", "right", "abstained")
QUESTIONS_FILE = Path(data.__file__).parent / "help_centre" / "questions.toml"


@dataclass(frozen=True)
class KnowledgeConfig:
    """What is measured."""

    variants: str = option("", "ways to search, of stage 2's, parted by commas; empty: the agents' own")
    reviews: bool = option(False, "ask the reviews as well, where they are in the cache")
    write: bool = option(False, "keep the fitted weights and thresholds in evidence.json")
    seed: int = option(1, "of the reviews that are left out")


PRESETS = {
    "smoke": KnowledgeConfig(),
    "cpu": KnowledgeConfig(),
    "study": KnowledgeConfig(variants="bm25,dense,windows,rrf,hybrid,late", reviews=True),
}


@dataclass(frozen=True)
class Half:
    """Half of one language's questions with what was found for them."""

    questions: Sequence[HelpQuestion]
    found: Sequence["list[Found]"]

    @property
    def ranks(self) -> np.ndarray:
        """Place of the right article from 0, LISTED where it was not found; of the questions that have one."""
        names = [[each.article.id for each in found] for found in self.found]
        return np.array([row.index(asked.article) if asked.article in row else LISTED
                         for asked, row in zip(self.questions, names, strict=True) if asked.article])  # fmt: skip

    @property
    def signs(self) -> np.ndarray:
        """(N, 3) of the first article of every question."""
        return np.array([found[0].signs for found in self.found])

    @property
    def right(self) -> np.ndarray:
        """(N,) whether the first article is the one that answers."""
        pairs = zip(self.questions, self.found, strict=True)
        return np.array([found[0].article.id == asked.article for asked, found in pairs])

    @property
    def answerable(self) -> np.ndarray:
        """(N,) whether an article answers."""
        return np.array([asked.article is not None for asked in self.questions])


def said_figures(probabilities: np.ndarray, right: np.ndarray, answerable: np.ndarray, threshold: float) -> dict:
    """What a threshold does to the questions.

    Args:
        probabilities: (N,) that the first article answers.
        right: (N,) whether it does.
        answerable: (N,) whether any article does.

    Returns:
        answered: share of the answerable questions at or above the threshold; right: share of all that is said that
        is right (1.0 where nothing is said); abstained: share of the other questions that are below it.
    """
    said = probabilities >= threshold
    return {
        "answered": float(said[answerable].mean()),
        "right": float(right[said].mean()) if said.any() else 1.0,
        "abstained": float((~said[~answerable]).mean()),
    }


def lowest_threshold(probabilities: np.ndarray, right: np.ndarray, answerable: np.ndarray) -> float:
    """The lowest of GRID from which on at least RIGHT of what is said is right, and SILENT of the rest is not said."""
    figures = [said_figures(probabilities, right, answerable, each) for each in GRID]
    good = [each["right"] >= RIGHT and each["abstained"] >= SILENT for each in figures]
    first = max((place + 1 for place, fits in enumerate(good) if not fits), default=0)
    return GRID[min(first, len(GRID) - 1)]


def search_halves(language: str, variant: str, encoder: Any) -> tuple[Half, Half]:
    """Every question searched for: the half that fits, and the half that tests."""
    from stage3_agents_llmops.agent.help_index import HelpIndex

    index = HelpIndex(load_help_articles(language), encoder, variant)
    questions = load_help_questions(language)
    encoder.remember([question.text for question in questions])
    found = [list(index.search(question.text, LISTED)) for question in questions]
    return Half(questions[0::2], found[0::2]), Half(questions[1::2], found[1::2])


def row_of(language: str, variant: str, encoder: Any) -> dict[str, Any]:
    """One way to search in one language: fitted on one half, measured on the other."""
    from stage3_agents_llmops.agent.help_index import fit_weights

    fitting, testing = search_halves(language, variant, encoder)
    weights = fit_weights(fitting.signs, fitting.right)
    threshold = lowest_threshold(likely(fitting, weights), fitting.right, fitting.answerable)
    ranks = testing.ranks
    figures = said_figures(likely(testing, weights), testing.right, testing.answerable, threshold)
    return {
        "language": language, "variant": variant, "hit_at_1": float((ranks == 0).mean()),
        "mrr": float(np.where(ranks < LISTED, 1 / (ranks + 1), 0).mean()), **figures, "weights": weights,
        "threshold": threshold,
    }  # fmt: skip


def likely(half: Half, weights: Sequence[float]) -> np.ndarray:
    """(N,) the evidence of every question's first article."""
    from stage3_agents_llmops.agent.help_index import evidence

    return np.array([evidence(signs, weights) for signs in half.signs])


def review_row(seed: int) -> dict[str, Any]:
    """The reviews at their threshold: half of them are left out, and questions about those should find nothing.

    Nothing is fitted here: these questions are only for measuring (data/README.md, the canary rule).
    """
    from stage3_agents_llmops.agent.knowledge import REVIEWS, THRESHOLDS, ReviewIndex

    reviews = data.load_retrieval(REVIEWS)
    rng = Random(seed)
    kept = set(rng.sample(sorted(reviews.corpus), len(reviews.corpus) // 2))
    index = ReviewIndex({name: reviews.corpus[name] for name in sorted(kept)})
    rows = []
    for name in rng.sample(sorted(reviews.queries), REVIEW_QUESTIONS):
        gold = set(reviews.qrels[name])
        found = next(iter(index.search(reviews.queries[name], 1)), None)
        right = found is not None and found.id.split("/", 1)[1] in gold
        rows.append((found.evidence if found else 0.0, right, bool(gold & kept)))
    probabilities, right, answerable = (np.array(column) for column in zip(*rows, strict=True))
    threshold = THRESHOLDS["product", "en"]
    figures = said_figures(probabilities, right, answerable, threshold)
    hit = float(right[answerable].mean())
    return {"language": "en", "variant": "reviews", "hit_at_1": hit, **figures, "threshold": threshold}


def run_knowledge(config: KnowledgeConfig, preset: str) -> int:
    """Search, fit, measure, report."""
    from stage3_agents_llmops.agent.knowledge import FITTED, VARIANT
    from stage3_agents_llmops.agent.text_encoder import load_e5_tokens

    names = [name.strip() for name in config.variants.split(",") if name.strip()] or [VARIANT]
    with start_run("stage3", "agent", "knowledge", config, preset, config.seed) as run:
        encoder = load_e5_tokens()
        rows = [row_of(language, name, encoder) for name in names for language in LANGUAGES]
        with_reviews = config.reviews and asset_state(data.get("squad-shifts")) == "ready"
        rows += [review_row(config.seed)] if with_reviews else []
        report(run, rows)
        show_table(rows)
        if config.write:
            write_json(FITTED, fitted(rows, names[-1]))
            console.print(f"written: {FITTED.name}")
        run.next("python -m stage3_agents_llmops.agent evaluate")
    return 0


def fitted(rows: Sequence[dict[str, Any]], variant: str) -> dict[str, Any]:
    """The content of evidence.json; what was not measured stays as it is."""
    from stage3_agents_llmops.agent.knowledge import THRESHOLDS, WEIGHTS

    chosen = {row["language"]: row for row in rows if row["variant"] == variant}
    product = {language: value for (kind, language), value in THRESHOLDS.items() if kind == "product"}
    return {
        "variant": variant,
        "weights": WEIGHTS | {language: row["weights"] for language, row in chosen.items()},
        "thresholds": {"help": {language: row["threshold"] for language, row in chosen.items()}, "product": product},
    }


def report(run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Metrics of the way that the agents use, and all rows as an artefact."""
    from stage3_agents_llmops.agent.knowledge import VARIANT

    run.data("help centre questions", sha256_file(QUESTIONS_FILE), QUESTIONS_FILE.stat().st_size)
    write_json(run.dir / "knowledge.json", {"rows": list(rows)})
    run.artefact("knowledge.json", kind="evaluation")
    for row in rows:
        if row["variant"] != VARIANT:
            continue
        code = row["language"]
        run.metric(f"hit_at_1_{code}", row["hit_at_1"], band=(0.6, None), meaning="the right article comes first")
        run.metric(f"mrr_{code}", row["mrr"], band=(0.7, None), meaning="mean of 1 / place of the right article")
        run.metric(f"answered_{code}", row["answered"], meaning="of the questions that an article answers")
        run.metric(f"right_{code}", row["right"], band=(0.7, None), meaning="of what is said")
        run.metric(f"abstained_{code}", row["abstained"], band=(0.8, None), meaning="of questions without an article")


def show_table(rows: Sequence[dict[str, Any]]) -> None:
    """One way to search and language a row."""
    table = Table(title="questions to the help centre, the half that nothing was fitted on", title_justify="left")
    for column in ("way", "in", "hit@1", "MRR", "answered", "right", "abstained", "from"):
        table.add_column(column, justify="left" if column in ("way", "in") else "right", no_wrap=True)
    for row in rows:
        figures = [
            f"{row[name]:.2f}" if name in row else "-" for name in ("hit_at_1", "mrr", "answered", "right", "abstained")
        ]
        table.add_row(row["variant"], row["language"], *figures, f"{row['threshold']:.2f}")
    console.print(table)


COMMANDS = [
    Command("knowledge", "how well questions find their articles, and when the agents abstain", KnowledgeConfig,
            run_knowledge, PRESETS)
]  # fmt: skip
