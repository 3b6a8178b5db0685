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
from stage3_agents_llmops.agent.understanding.linear_heads import TextHead, VectorHead

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
        arrays |= weights(f"{name}.vectors", on_vectors) | weights(f"{name}.texts", on_texts.head)
        arrays[f"{name}.idf"] = np.ascontiguousarray(on_texts.idf)
        ngrams[name] = sorted(on_texts.ngrams, key=on_texts.ngrams.get)
        classes[name] = on_vectors.classes
        if classes[name] != on_texts.classes:
            raise ValueError(f"the {name} heads know different labels")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "heads.safetensors") as temporary:
        save_file(dict(sorted(arrays.items())), temporary)
    write_json(folder / "ngrams.json", ngrams)
    model = {"kind": "classifier", "format": FORMAT, "encoder": classifier.encoder.revision, "classes": classes}
    calibrated = {name: getattr(classifier, name) for name in ("intents", "exponent", "threshold")}
    return write_json(folder / "model.json", model | calibrated | more)


def weights(name: str, head: VectorHead) -> dict[str, np.ndarray]:
    """Of a logistic regression."""
    arrays = {f"{name}.coef": head.coef, f"{name}.intercept": head.intercept}
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


def pair(
    arrays: dict[str, np.ndarray], ngrams: list[str], classes: list[str], name: str
) -> tuple[VectorHead, TextHead]:
    """A head on vectors and one on texts, as `fit_pair` gives them."""
    columns = {ngram: column for column, ngram in enumerate(ngrams)}
    idf = checked(arrays[f"{name}.idf"], (len(ngrams),))
    on_vectors = regression(arrays, f"{name}.vectors", classes)
    return on_vectors, TextHead(columns, idf, regression(arrays, f"{name}.texts", classes, len(ngrams)))


def regression(
    arrays: dict[str, np.ndarray], name: str, classes: list[str], columns: int | None = None
) -> VectorHead:
    """A logistic regression from its weights. Raises ValueError: their shapes do not fit."""
    coef = arrays[f"{name}.coef"]
    checked(coef, (len(classes), coef.shape[-1] if columns is None else columns))
    return VectorHead(classes, coef, checked(arrays[f"{name}.intercept"], (len(classes),)))


def checked(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array, if it has the shape and its numbers are finite. Raises ValueError."""
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"weights of shape {array.shape}, not {shape}, or not finite")
    return array
