"""Word vectors: words and one matrix."""

import bz2
import shutil
from pathlib import Path

import numpy as np

from data.retrieval import fetch_folder
from labkit.cli import nearest
from labkit.errors import LabError
from labkit.files import write_text

GLOVE_DIMENSIONS = 50
VECTORS = {"glove-50d": "glove-tatoeba"}


def build_glove_tatoeba(members: Path, folder: Path) -> None:
    """GloVe's text file as words.txt and vectors.npy, which load in a tenth of a second; Tatoeba as it is."""
    words: list[str] = []
    rows: list[np.ndarray] = []
    with bz2.open(members / "glove.6B.50d.txt.bz2", "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            word, _, numbers = line.partition(" ")
            words.append(word)
            rows.append(np.fromstring(numbers, dtype=np.float32, sep=" "))
    vectors = np.stack(rows)
    if vectors.shape[1] != GLOVE_DIMENSIONS:
        raise LabError(f"GloVe has {vectors.shape[1]} dimensions", "report it to the course")
    write_text(folder / "words.txt", "\n".join(words))
    np.save(folder / "vectors.npy", vectors)
    shutil.copyfile(members / "spa.tsv", folder / "spa.tsv")


def load_vectors(name: str) -> tuple[list[str], np.ndarray]:
    """Words, the most frequent first, and their vectors as they were trained (not normalised).

    Returns:
        400,000 words and a float32 array (400000, 50) for `glove-50d` (Pennington et al. 2014).

    Raises:
        LabError: there are no such vectors.
    """
    if name not in VECTORS:
        advice = nearest(name, list(VECTORS)) or f"one of: {', '.join(VECTORS)}"
        raise LabError(f"no vectors are called {name!r}", advice)
    folder = fetch_folder(VECTORS[name])
    words = (folder / "words.txt").read_text(encoding="utf-8").split("\n")
    return words, np.load(folder / "vectors.npy")
