"""One interface for every encoder: texts in, float32 vectors of length 1 out, kept on disk.

    encoder = load_encoder("e5")
    queries = encoder.encode(["how do plants grow?"], "query")          # (1, 384), with "query: " before the text
    passages = encoder.encode(["Photosynthesis is ..."], "passage")     # (1, 384), with "passage: "
    scores = queries @ passages.T                                       # cosine, because the lengths are 1

A text has a role, its `kind`: a query that looks for passages, a passage that is found, or one half of a symmetric
comparison (similarity, classification, clustering). Some models were trained with another prompt for each role, and
lose quality, silently, when it is missing (README.md, "Prompts").
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labkit.cli import nearest
from labkit.embedding_cache import EmbeddingCache
from labkit.errors import LabError

KINDS = ("query", "passage", "symmetric")
NO_PROMPTS = dict.fromkeys(KINDS, "")
E5_PROMPTS = {"query": "query: ", "passage": "passage: ", "symmetric": "query: "}  # the model card's rule
PACKAGED = {  # name -> asset, prompts, hub id of the weights
    "minilm": ("all-minilm-l6-v2", NO_PROMPTS, "sentence-transformers/all-MiniLM-L6-v2"),
    "e5": ("multilingual-e5-small", E5_PROMPTS, "intfloat/multilingual-e5-small"),
}


class Encoder(ABC):
    """Texts to vectors.

    Attributes:
        name: short, for tables.
        dimensions: width of a vector.
        prompts: what is put before a text of each kind.
        revision: changes whenever the vectors of a text would.
        cached: whether vectors are worth keeping on disk.
        origin: the hub id of the weights, or of those they were fine-tuned from; None where it is not known, ""
            where there are none.
        fine_tuned_on: names of the sets that `train` fine-tuned on.
    """

    name: str
    dimensions: int
    prompts: dict[str, str] = NO_PROMPTS
    revision: str
    cached = True
    origin: str | None = ""
    fine_tuned_on: tuple[str, ...] = ()

    @abstractmethod
    def embed(self, texts: list[str], prompt: str = "") -> np.ndarray:
        """Raw vectors (N, D): always computed, of any length. What `encode` is made of."""

    def encode(self, texts: Sequence[str], kind: str) -> np.ndarray:
        """Vectors of length 1, float32 (N, D), in the order of the texts; equal texts are encoded once.

        Args:
            texts: any number of strings, none too long: what the model cannot read is cut off.
            kind: "query", "passage" or "symmetric".

        Raises:
            ValueError: an unknown kind.
            TypeError: one string instead of a list of them.
            LabError: the model's answer holds NaN or infinity.
        """
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
        if isinstance(texts, str):
            raise TypeError("texts is a list of strings, not one string")
        texts, prompt = list(texts), self.prompts[kind]
        if not self.cached:
            return self.encode_now(texts, kind)
        cache = EmbeddingCache(self.name, self.revision, self.dimensions)
        return cache.encode(texts, lambda chunk: unit_length(self.embed(chunk, prompt)), prompt)

    def encode_now(self, texts: Sequence[str], kind: str) -> np.ndarray:
        """The same without the cache: for a model whose weights are changing."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        return unit_length(self.embed(list(texts), self.prompts[kind]))


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their Euclidean length, so that a dot product is a cosine; float32.

    A row of zeros has no direction: it becomes the diagonal, as far from every axis as from the next, so that no NaN
    enters a ranking.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.where(lengths == 0, np.float32(1.0), vectors)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class RandomEncoder(Encoder):
    """The floor of every table: a normal vector drawn from the text's own hash. Knows nothing, is reproducible."""

    name = "random"
    cached = False

    def __init__(self, dimensions: int = 384, seed: int = 1) -> None:
        self.dimensions, self.seed = dimensions, seed
        self.revision = f"seed-{seed}"

    def embed(self, texts: list[str], prompt: str = "") -> np.ndarray:
        """See `Encoder.embed`."""
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            digest = hashlib.sha256(f"{self.seed}\n{prompt}{text}".encode("utf-8", "surrogatepass")).digest()
            vectors[row] = np.random.default_rng(int.from_bytes(digest[:8], "little")).standard_normal(self.dimensions)
        return vectors


def encoder_names() -> list[str]:
    """The short names that `load_encoder` knows."""
    return ["random", "glove", "gpt", *PACKAGED]


def load_encoder(name: str) -> Encoder:
    """An encoder by its short name, by the folder of a sentence-transformers model, or by its hub id.

    Weights are read when the first text is encoded that is not in the cache.

    Raises:
        LabError: unknown name, no such folder, no checkpoint of the mini-GPT, or the hub cannot be reached.
    """
    import data

    if name == "random":
        return RandomEncoder()
    if name == "glove":
        from stage1_foundations.embeddings.word_vectors import WordVectorEncoder

        return WordVectorEncoder(*data.load_vectors("glove-50d"))
    if name == "gpt":
        from stage1_foundations.embeddings.gpt_encoder import GPTEncoder

        return GPTEncoder.of_latest_run()
    from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder, from_hub

    if name in PACKAGED:
        asset, prompts, origin = PACKAGED[name]
        return TransformerEncoder(data.fetch(asset), name=name, prompts=prompts, origin=origin)
    if Path(name).is_dir():
        return TransformerEncoder(Path(name))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return from_hub(name)
    best = nearest(name, encoder_names())
    raise LabError(f"no encoder is called {name!r}", best or f"one of {', '.join(encoder_names())}, a folder, a hub id")
