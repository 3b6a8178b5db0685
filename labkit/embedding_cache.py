"""Embeddings on disk, so that every text is encoded once and shared by all labs.

    cache = EmbeddingCache("minilm", revision="53aa51172d14...", dimensions=384)
    vectors = cache.encode(texts, model, prompt="query: ")     # `model` sees only what is not yet there

A vector belongs to (model name, revision of the weights, prompt, text). Name and revision choose the file,
`<cache>/embeddings/<name>-<12 digits>.sqlite`; SHA-256 of prompt and text chooses the row. SQLite does the locking
between processes. Every row carries a checksum: a damaged row counts as absent, a damaged file is started afresh.
"""

import hashlib
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from labkit.assets import cache_root
from labkit.errors import LabError
from labkit.progress import error_console, progress

CHUNK = 256  # texts encoded between two saves: what an interrupted run can lose
BUSY_SECONDS = 120  # how long to wait for another process that is writing
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
TABLE = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL)"
Model = Callable[[list[str]], np.ndarray]  # texts -> float32 (N, dimensions)


def text_key(prompt: str, text: str) -> bytes:
    """The row of a text: 32 bytes. The prompt's length is hashed too, so that ("a", "b") is not ("", "ab")."""
    head = prompt.encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"%d:" % len(head) + head + text.encode("utf-8", "surrogatepass")).digest()


class EmbeddingCache:
    """Vectors of one model.

    Args:
        model: a name for people; any characters.
        revision: what changes when the weights change (a commit, the SHA-256 of the weights, the seed).
        dimensions: width of every vector.
        root: where the files lie; by default `embeddings` in the course's cache (COURSE_LAB_CACHE moves it).
    """

    def __init__(self, model: str, revision: str, dimensions: int, root: Path | None = None) -> None:
        self.model, self.dimensions = model, dimensions
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:60] or "model"
        identity = hashlib.sha256(f"{model}\n{revision}\n{dimensions}".encode()).hexdigest()[:12]
        self.path = (root or cache_root() / "embeddings") / f"{slug}-{identity}.sqlite"

    def encode(self, texts: Sequence[str], model: Model, prompt: str = "") -> np.ndarray:
        """Vectors of the texts, in their order: read where they are known, else made by `model` and kept.

        Equal texts are encoded once. The model gets chunks of texts of similar length, longest first, without the
        prompt. An interrupted call keeps the chunks that were finished.

        Returns:
            float32 (N, dimensions).

        Raises:
            LabError: the model's answer is no float array of the right shape, or holds NaN or infinity.
        """
        keys = [text_key(prompt, text) for text in texts]
        found = self._read(set(keys))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        order = sorted(missing, key=lambda key: -len(missing[key]))
        chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
        if chunks:  # without: no line for a bar that was full from the start
            with progress(total=len(order), description=f"encode with {self.model}") as bar:
                for chunk in chunks:
                    vectors = self._checked(model([missing[key] for key in chunk]), len(chunk))
                    self._write(chunk, vectors)
                    found.update(zip(chunk, vectors, strict=True))
                    bar.advance(len(chunk))
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, self.dimensions), np.float32)

    def count(self, texts: Sequence[str], prompt: str = "") -> int:
        """How many of the texts (each distinct one counted once) are already here."""
        return len(self._read({text_key(prompt, text) for text in texts}))

    def __len__(self) -> int:
        """Vectors in the file."""
        if not self.path.exists():
            return 0
        with self._connection() as connection:
            return connection.execute("SELECT COUNT(*) FROM vectors").fetchone()[0]

    def _read(self, keys: set[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors that are here and whole."""
        if not keys or not self.path.exists():
            return {}
        rows: list[tuple[bytes, bytes, int]] = []
        try:
            with self._connection() as connection:
                wanted = sorted(keys)
                for start in range(0, len(wanted), 500):  # SQLite allows 999 placeholders on old systems
                    part = wanted[start : start + 500]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, vector, crc FROM vectors WHERE key IN ({marks})"
                    rows += connection.execute(query, part).fetchall()
        except DamagedFile:
            self._discard()
            return {}
        size = 4 * self.dimensions
        return {
            key: np.frombuffer(vector, "<f4").astype(np.float32)
            for key, vector, crc in rows
            if len(vector) == size and zlib.crc32(vector) == crc
        }

    def _write(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keep vectors, in one transaction."""
        blobs = [vector.astype("<f4").tobytes() for vector in vectors]
        rows = [(key, blob, zlib.crc32(blob)) for key, blob in zip(keys, blobs, strict=True)]
        for attempt in (1, 2):
            try:
                with self._connection() as connection, connection:  # the second one commits
                    connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
                return
            except DamagedFile:
                if attempt == 2:
                    raise LabError(f"{self.path} is damaged and cannot be replaced", f"rm {self.path}") from None
                self._discard()

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """The model's answer as float32, or an error that says what is wrong with it."""
        vectors = np.asarray(vectors)
        if vectors.shape != (count, self.dimensions):
            raise LabError(
                f"{self.model} gave shape {vectors.shape} for {count} texts of {self.dimensions} dimensions",
                "the dimensions that the model has",
            )
        vectors = vectors.astype(np.float32)
        if not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors)).any(axis=1).sum())
            raise LabError(f"{self.model} gave NaN or infinity for {bad} of {count} texts", "weights in float32")
        return vectors

    def _discard(self) -> None:
        """Remove a damaged file; its vectors are encoded again."""
        error_console.print(f"the embedding cache {self.path.name} is damaged, starting it afresh", markup=False)
        for path in (self.path, self.path.with_name(self.path.name + "-journal")):
            path.unlink(missing_ok=True)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The file, open and with its table. A connection a call: safe in threads and after a fork."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as connection:
                connection.execute(TABLE)
                yield connection
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)  # absent where Python's own module raised
            if code is not None and code & 0xFF in DAMAGED:
                raise DamagedFile from error
            reasons = {sqlite3.SQLITE_FULL: "the disk is full", sqlite3.SQLITE_BUSY: "another process holds it"}
            reason = reasons.get(code, str(error))
            raise LabError(
                f"cannot use the embedding cache {self.path}: {reason}",
                "free some space or the file, or move the cache with COURSE_LAB_CACHE",
            ) from error


class DamagedFile(Exception):
    """SQLite says that the file is not a database, or not a whole one."""
