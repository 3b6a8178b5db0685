"""Releases made of the course's own files: a small intent model, the shop's rules to look things up in, the wording.

    model/  weights.safetensors, model.json    n-gram hashes and logistic regression, trained here on customer-service
    rag/    rag.json, articles/{en,zh}/policy.md
    graph/  graph.json, answers/{en,zh}.toml
    evaluation.json                            figures on the test split, computed with the files above

The pipeline lab packs the whole service; this is the part of it that is made in seconds. No pickle is in a release:
unpickling runs code, and a release is loaded by a process that serves customers.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import data
from labkit.files import write_json
from stage3_agents_llmops.registry.release import PARTS, Draft, Lineage, read_metrics

SHOP = Path(data.__file__).parent / "shop"
ANSWERS = Path(__file__).parents[1] / "agent" / "answers"
LANGUAGES = ("en", "zh")
FEATURES, NGRAMS = 4096, (1, 3)


@dataclass(frozen=True)
class Recipe:
    """What one release is made with.

    Args:
        share: of the training utterances.
        abstain_below: confidence under which the agent asks again in place of guessing.
        k: passages that the retrieval hands on.
        max_handoffs: from agent to agent, in one run.
        evaluated: whether its figures are measured.
    """

    note: str
    share: float = 1.0
    abstain_below: float = 0.3
    k: int = 4
    max_handoffs: int = 4
    evaluated: bool = True


RECIPES = (
    Recipe("first release, a quarter of the utterances", share=0.25),
    Recipe("all utterances"),
    Recipe("guesses more often", abstain_below=0.1),
    Recipe("fewer handoffs, not evaluated", max_handoffs=2, evaluated=False),
    Recipe("asks again more often, more passages", abstain_below=0.35, k=6),
)


@cache
def utterances(split: str) -> tuple[data.Utterance, ...]:
    """Both languages, mixed."""
    lists = [data.load_understanding(f"customer-service-{language}", split) for language in LANGUAGES]
    return tuple(sorted((item for items in lists for item in items), key=lambda item: _sha256(item.text)))


@cache
def train_weights(share: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """(intents, FEATURES + 1) weights, the bias last; and the intents. Trained on a share of the utterances."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    items = utterances("train")[: round(share * len(utterances("train")))]
    vectors = _hashed([item.text for item in items])
    with threadpool_limits(1):  # small products: threads that wait for one another cost ten times the work
        head = LogisticRegression(C=10, max_iter=500).fit(vectors, [item.intent for item in items])
    weights = np.hstack([head.coef_, head.intercept_[:, None]]).astype(np.float32)
    return np.ascontiguousarray(weights), tuple(str(intent) for intent in head.classes_)


def build_release(recipe: Recipe, folder: Path) -> Path:
    """Write the folder of a release; its evaluation reads what was written."""
    from safetensors.numpy import save_file

    weights, intents = train_weights(recipe.share)
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    save_file({"weights": weights}, folder / "model" / "weights.safetensors")
    write_json(folder / "model" / "model.json",
               {"kind": "ngram-classifier", "intents": intents, "features": FEATURES, "ngrams": NGRAMS})  # fmt: skip
    write_json(folder / "rag" / "rag.json", {"variant": "hybrid", "k": recipe.k})
    overrides = {"abstain_below": recipe.abstain_below, "max_handoffs": recipe.max_handoffs}
    write_json(folder / "graph" / "graph.json", overrides)
    for language in LANGUAGES:
        _copy(SHOP / f"policy.{language}.md", folder / "rag" / "articles" / language / "policy.md")
        _copy(ANSWERS / f"{language}.toml", folder / "graph" / "answers" / f"{language}.toml")
    if recipe.evaluated:
        write_json(folder / "evaluation.json", {"metrics": evaluate(folder), "split": "test"})
    return folder


def evaluate(folder: Path) -> dict[str, Any]:
    """Figures of a release's folder on the test split: intents right, asked again, and wrong answers given."""
    from safetensors.numpy import load_file

    weights = load_file(folder / "model" / "weights.safetensors")["weights"]
    intents = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))["intents"]
    threshold = json.loads((folder / "graph" / "graph.json").read_text(encoding="utf-8"))["abstain_below"]
    items = utterances("test")
    scores = _hashed([item.text for item in items]) @ weights[:, :-1].T + weights[:, -1]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    confidence = odds.max(axis=1) / odds.sum(axis=1)
    right = np.array([intents[place] for place in scores.argmax(axis=1)]) == [item.intent for item in items]
    answered = confidence >= threshold
    return {"intents_right": float(right.mean()), "asked_again": float(1 - answered.mean()),
            "wrong_answers": float((answered & ~right).mean())}  # fmt: skip


def draft_of_folder(folder: Path, recipe: Recipe, parent: str | None = None, commit: str | None = None) -> Draft:
    """A folder that `build_release` wrote, with its origin."""
    report = folder / "evaluation.json"
    sums = {f"customer-service-train-{recipe.share:g}": data_sha256(recipe.share)}
    lineage = Lineage(sums, commit, None, None, parent)
    parts = {part: folder / part for part in PARTS}
    if not recipe.evaluated:
        return Draft(parts, lineage, note=recipe.note)
    return Draft(parts, lineage, report, read_metrics(report), recipe.note)


def data_sha256(share: float) -> str:
    """SHA-256 of the utterances that a model was trained on."""
    items = utterances("train")[: round(share * len(utterances("train")))]
    return _sha256("".join(f"{item.text}\t{item.intent}\n" for item in items))


def _hashed(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(analyzer="char_wb", ngram_range=NGRAMS, n_features=FEATURES).transform(texts)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
