"""The classifier as files that a release can hold: numbers and words, no pickle.

    model.json            kind, intents, exponent, threshold, and which encoder the vectors come from
    heads.safetensors     weights of the four heads, and the n-grams' weights (idf)
    ngrams.json           the n-grams of the two heads on texts, in the order of their columns

Unpickling runs whatever the pickle says, and a release may come from a hub. Here a stranger's file can at worst be
wrong.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from labkit.errors import LabError
from labkit.files import atomic_path, write_json

FORMAT = 1
HEADS = ("intent", "reason")


def save_classifier(classifier: Any, folder: Path, **more: Any) -> Path:
    """Write an IntentClassifier; the same classifier always gives the same bytes.

    Args:
        more: goes into model.json as well.
    """
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    ngrams: dict[str, list[str]] = {}
    classes: dict[str, list[str]] = {}
    for name, (on_vectors, on_texts) in zip(HEADS, (classifier.heads, classifier.reason_heads), strict=True):
        counter, head = on_texts.steps[0][1], on_texts.steps[-1][1]
        arrays |= weights(f"{name}.vectors", on_vectors) | weights(f"{name}.texts", head)
        arrays[f"{name}.idf"] = np.ascontiguousarray(counter.idf_)
        ngrams[name] = sorted(counter.vocabulary_, key=counter.vocabulary_.get)
        classes[name] = [str(label) for label in on_vectors.classes_]
        if classes[name] != [str(label) for label in head.classes_]:
            raise ValueError(f"the {name} heads know different labels")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "heads.safetensors") as temporary:
        save_file(dict(sorted(arrays.items())), temporary)
    write_json(folder / "ngrams.json", ngrams)
    model = {"kind": "classifier", "format": FORMAT, "encoder": classifier.encoder.revision, "classes": classes}
    calibrated = {name: getattr(classifier, name) for name in ("intents", "exponent", "threshold")}
    return write_json(folder / "model.json", model | calibrated | more)


def weights(name: str, head: Any) -> dict[str, np.ndarray]:
    """Of a logistic regression."""
    arrays = {f"{name}.coef": head.coef_, f"{name}.intercept": head.intercept_}
    return {key: np.ascontiguousarray(array) for key, array in arrays.items()}


def load_stored(folder: Path, encoder: Any) -> Any:
    """The IntentClassifier of a folder.

    Raises:
        LabError: a file is missing or damaged, or the vectors come from another encoder.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from stage3_agents_llmops.agent.understanding.classifier import IntentClassifier

    advice = "another release, or make it again: python -m stage3_agents_llmops.pipeline package"
    try:
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "heads.safetensors")
        ngrams = json.loads((folder / "ngrams.json").read_text(encoding="utf-8"))
        if (model["format"], model["encoder"]) != (FORMAT, encoder.revision):
            wrong = f"format {model['format']}, encoder {str(model['encoder'])[:12]}"
            raise LabError(f"the classifier in {folder} was made for {wrong}", advice)
        if model["intents"] != model["classes"]["intent"]:
            raise ValueError("its intents are not those of its heads")
        heads, reason_heads = (pair(arrays, ngrams[name], model["classes"][name], name) for name in HEADS)
        return IntentClassifier(list(model["intents"]), heads, reason_heads, float(model["exponent"]),
                                float(model["threshold"]), encoder)  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise LabError(f"the classifier in {folder} cannot be read: {error!r}", advice) from None


def pair(arrays: dict[str, np.ndarray], ngrams: list[str], classes: list[str], name: str) -> tuple[Any, Any]:
    """A head on vectors and one on texts, as `fit_pair` gives them."""
    from sklearn.pipeline import make_pipeline

    from stage3_agents_llmops.agent.understanding.classifier import ngram_counter

    counter = ngram_counter()
    counter.vocabulary_ = {ngram: column for column, ngram in enumerate(ngrams)}
    counter.fixed_vocabulary_ = True
    counter.idf_ = checked(arrays[f"{name}.idf"], (len(ngrams),))
    on_vectors = regression(arrays, f"{name}.vectors", classes)
    on_texts = make_pipeline(counter, regression(arrays, f"{name}.texts", classes, len(ngrams)))
    return on_vectors, on_texts


def regression(arrays: dict[str, np.ndarray], name: str, classes: list[str], columns: int | None = None) -> Any:
    """A fitted logistic regression from its weights. Raises ValueError: their shapes do not fit."""
    from sklearn.linear_model import LogisticRegression

    coef = arrays[f"{name}.coef"]
    checked(coef, (len(classes), coef.shape[-1] if columns is None else columns))
    head = LogisticRegression(C=10, max_iter=2000)
    head.classes_ = np.array(classes)
    head.coef_, head.intercept_ = coef, checked(arrays[f"{name}.intercept"], (len(classes),))
    head.n_features_in_ = coef.shape[1]
    return head


def checked(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array, if it has the shape and its numbers are finite. Raises ValueError."""
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"weights of shape {array.shape}, not {shape}, or not finite")
    return array
