"""One pass through the encoder, kept whole: a vector for every token, from which everything dense is made.

    encoder = TokenEncoder(data.fetch("all-minilm-l6-v2"), "minilm")
    passage, = encoder.passages(["Honey bees dance. ..."])
    passage.ids, passage.vectors       # (T,) word pieces, (T, 384) their vectors in context

The mean of all of them is the usual embedding of the passage (dense.py), the means of short stretches are window
vectors with the whole passage as their context (late chunking, Günther et al. 2024), and all of them together are
what late interaction compares (late_interaction.py). Kept on disk as 8-bit numbers, so a text is read once.
"""

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labkit.assets import cache_root
from labkit.embedding_cache import text_key
from labkit.errors import LabError
from labkit.progress import progress
from stage1_foundations.embeddings.transformer_encoder import BATCH, folder_prompts, folder_revision

CHUNK = 256  # texts between two saves: what an interrupted run can lose
LONGEST = 256  # word pieces of one pass; a longer text is read in stretches
REMEMBERED = 20_000  # queries whose vectors are kept in memory, about 100 MB
TABLE = "CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, ids BLOB, scales BLOB, vectors BLOB, crc INTEGER)"


@dataclass(frozen=True)
class TokenVectors:
    """The word pieces of a text and their vectors, special tokens included.

    Attributes:
        ids: (T,) int32.
        codes: (T, D) int8. scales: (T,) float32. `codes * scales` are the vectors, to half a step of 1/127.
    """

    ids: np.ndarray
    codes: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, vectors: np.ndarray) -> "TokenVectors":
        """From float vectors (T, D), each token with its own scale."""
        scales = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / 127
        codes = np.rint(vectors / scales[:, None]).astype(np.int8)
        return cls(np.asarray(ids, np.int32), codes, scales.astype(np.float32))

    @property
    def vectors(self) -> np.ndarray:
        """(T, D) float32."""
        return self.codes * self.scales[:, None]

    @cached_property
    def lengths(self) -> np.ndarray:
        """(T,) the Euclidean lengths of the vectors."""
        return np.sqrt(np.einsum("td,td->t", self.codes, self.codes, dtype=np.float32)) * self.scales

    @property
    def mean(self) -> np.ndarray:
        """(D,) the mean of all tokens, of length 1: the encoder's embedding of the text."""
        mean = self.vectors.mean(axis=0)
        return mean / np.linalg.norm(mean)


class TokenEncoder:
    """A sentence-transformers folder with mean pooling, opened before its pooling.

    Args:
        folder: of the model.
        name: for the cache and for messages.
        prompts: what is put before a query and a passage; by default what the folder states.
        cache: where passages are kept; None asks the course's cache.

    Raises:
        LabError: the folder holds no model.
    """

    def __init__(
        self, folder: Path, name: str, prompts: dict[str, str] | None = None, cache: Path | None = None
    ) -> None:
        from labkit.device import choose_device, choose_dtype  # brings torch

        self.folder, self.name = Path(folder), name
        if not (self.folder / "config.json").is_file():
            raise LabError(f"{folder} holds no encoder", "minilm, e5, or the folder of a sentence-transformers model")
        self.prompts = prompts or folder_prompts(self.folder)
        self.device = choose_device("auto")
        self.dtype = choose_dtype("auto", self.device)
        # 2 is the recipe of this file: stretches, numbers of 8 bits, dtype
        self.revision = f"{folder_revision(self.folder)}-2-{LONGEST}-{self.dtype}"
        self._cache = TokenCache(self.name, self.revision, cache)
        self._queries: dict[str, TokenVectors] = {}

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, loaded at its first use."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    @property
    def vocabulary(self) -> int:
        """How many word pieces there are."""
        return len(self.tokenizer)

    @cached_property
    def model(self) -> Any:
        """The transformer without its pooling; in bfloat16 where the processor computes in it."""
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # e5 has no pooler weights, and needs none
        # the fused attention kernel is slower in bfloat16 without AMX (stage1_foundations/gpt/NOTES.md)
        fused = self.dtype == torch.float32 or self.device.type != "cpu"
        kernel = "sdpa" if fused else "eager"
        model = AutoModel.from_pretrained(self.folder, dtype=self.dtype, attn_implementation=kernel)
        return model.to(self.device).eval()

    def query(self, text: str) -> TokenVectors:
        """One query. It is remembered, so that the parts of a pipeline read it once between them."""
        if text not in self._queries:
            self.remember([text])
        return self._queries[text]

    def remember(self, texts: Sequence[str]) -> None:
        """Read many queries in batches, which is faster than one by one; the oldest are forgotten."""
        new = sorted(dict.fromkeys(text for text in texts if text not in self._queries), key=len)
        for start in range(0, len(new), CHUNK):
            part = new[start : start + CHUNK]
            self._queries |= dict(zip(part, self._read(part, self.prompts["query"]), strict=True))
        for text in list(self._queries)[: max(0, len(self._queries) - REMEMBERED)]:
            del self._queries[text]

    def forget(self) -> None:
        """Forget the queries: what a measurement of time does first."""
        self._queries.clear()

    def passages(self, texts: Sequence[str]) -> list[TokenVectors]:
        """Passages in their order, from the cache where they are there; equal texts are read once."""
        prompt = self.prompts["passage"]
        keys = [text_key(prompt, text) for text in texts]
        found = self._cache.read(set(keys))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        order = sorted(missing, key=lambda key: -len(missing[key]))
        with progress(total=len(order), description=f"read with {self.name}") as bar:
            for start in range(0, len(order), CHUNK):
                part = order[start : start + CHUNK]
                made = dict(zip(part, self._read([missing[key] for key in part], prompt), strict=True))
                self._cache.write(made)
                found |= made
                bar.advance(len(part))
        return [found[key] for key in keys]

    def _read(self, texts: Sequence[str], prompt: str) -> list[TokenVectors]:
        """Run the model. Texts of similar length share a batch; a long one is read in stretches and put together."""
        import torch

        stretches = [(row, ids) for row, text in enumerate(texts) for ids in self._stretches(prompt + text)]
        parts: list[list[TokenVectors]] = [[] for _ in texts]
        for start in range(0, len(stretches), BATCH):
            batch = stretches[start : start + BATCH]
            padded = self.tokenizer.pad({"input_ids": [ids for _, ids in batch]}, return_tensors="pt").to(self.device)
            with torch.inference_mode():
                states = self.model(**padded).last_hidden_state.float().cpu().numpy()  # (B, T, D)
            for (row, ids), vectors in zip(batch, states, strict=True):
                parts[row].append(TokenVectors.of(ids, vectors[: len(ids)]))
        return [joined(part) for part in parts]

    def _stretches(self, text: str) -> list[list[int]]:
        """Word pieces with special tokens, at most LONGEST at a time."""
        return self.tokenizer(text, truncation=True, max_length=LONGEST, return_overflowing_tokens=True)["input_ids"]


def joined(parts: Sequence[TokenVectors]) -> TokenVectors:
    """The stretches of one text, one after the other."""
    if len(parts) == 1:
        return parts[0]
    names = ("ids", "codes", "scales")
    return TokenVectors(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class TokenCache:
    """Token vectors on disk, `<cache>/token_vectors/<name>-<12 digits>.sqlite`; SQLite does the locking."""

    def __init__(self, name: str, revision: str, root: Path | None = None) -> None:
        identity = hashlib.sha256(f"{name}\n{revision}".encode()).hexdigest()[:12]
        self.path = (root or cache_root() / "token_vectors") / f"{name}-{identity}.sqlite"

    def read(self, keys: set[bytes]) -> dict[bytes, TokenVectors]:
        """Those that are here and whole."""
        if not keys or not self.path.exists():
            return {}
        wanted, rows = sorted(keys), []
        with self._connection() as connection:
            for start in range(0, len(wanted), 500):  # SQLite allows 999 placeholders on old systems
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                rows += connection.execute(f"SELECT * FROM texts WHERE key IN ({marks})", part).fetchall()
        found = {}
        for key, ids, scales, vectors, crc in rows:
            if zlib.crc32(vectors, zlib.crc32(scales, zlib.crc32(ids))) == crc:
                numbers, size = np.frombuffer(ids, "<i4"), np.frombuffer(scales, "<f4")
                found[key] = TokenVectors(numbers, np.frombuffer(vectors, np.int8).reshape(len(numbers), -1), size)
        return found

    def write(self, found: dict[bytes, TokenVectors]) -> None:
        """Keep them, in one transaction."""
        rows = []
        for key, item in found.items():
            ids, scales = item.ids.astype("<i4").tobytes(), item.scales.astype("<f4").tobytes()
            vectors = item.codes.tobytes()
            rows.append((key, ids, scales, vectors, zlib.crc32(vectors, zlib.crc32(scales, zlib.crc32(ids)))))
        with self._connection() as connection, connection:  # the second one commits
            connection.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=120)) as connection:
                connection.execute(TABLE)
                yield connection
        except sqlite3.DatabaseError as error:
            raise LabError(f"cannot use the token vectors in {self.path}: {error}", f"rm {self.path}") from error
