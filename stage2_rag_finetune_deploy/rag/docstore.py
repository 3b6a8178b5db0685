"""Which documents and chunks an index holds: one SQLite file, beside the vectors.

The order of writing is what makes a kill at any point harmless. A document is first entered as `pending` with the ids
of its chunks, then its vectors go into the store, then it becomes `ready`. Whatever is still pending at the next run
is taken out of the store and done again.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabError

TABLES = """
CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, ready INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (id TEXT PRIMARY KEY, document TEXT NOT NULL, place INTEGER NOT NULL,
    start INTEGER NOT NULL, stop INTEGER NOT NULL, text TEXT NOT NULL, embedded TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS chunks_of ON chunks (document);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: `start` and `stop` in its text; `embedded` is what the encoder reads."""

    id: str
    document: str
    start: int
    stop: int
    text: str
    embedded: str
    metadata: dict[str, Any] = field(default_factory=dict)


class DocStore:
    """The file. Every method is one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Open, with its tables; commits at the end, or rolls back. Raises LabError for a damaged file."""
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                connection.executescript(TABLES)
                yield connection
        except sqlite3.DatabaseError as error:
            raise LabError(f"{self.path.name} cannot be used: {error}", "ingest --rebuild") from None

    def settings(self) -> dict[str, Any]:
        """What the index was made with; empty for a new one."""
        with self.connection() as connection:
            return {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM settings")}

    def set(self, values: dict[str, Any]) -> None:
        """Keep settings."""
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        with self.connection() as connection:
            connection.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", rows)

    def documents(self) -> dict[str, tuple[str, bool]]:
        """id -> (SHA-256 of its text, ready)."""
        with self.connection() as connection:
            rows = connection.execute("SELECT id, sha256, ready FROM documents").fetchall()
        return {id: (sha256, bool(ready)) for id, sha256, ready in rows}

    def chunk_ids(self, documents: Iterable[str]) -> list[str]:
        """Ids of the chunks of these documents, pending or not."""
        found: list[str] = []
        with self.connection() as connection:
            for document in documents:
                rows = connection.execute("SELECT id FROM chunks WHERE document = ?", (document,))
                found += [id for (id,) in rows]
        return found

    def enter(self, document: str, sha256: str, chunks: list[Chunk]) -> None:
        """A document that is about to be written to the store."""
        rows = [
            (c.id, c.document, place, c.start, c.stop, c.text, c.embedded, json.dumps(c.metadata, ensure_ascii=False))
            for place, c in enumerate(chunks)
        ]
        with self.connection() as connection:
            connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, 0)", (document, sha256))
            connection.executemany("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def confirm(self, documents: Iterable[str]) -> None:
        """Their vectors are in the store."""
        with self.connection() as connection:
            connection.executemany("UPDATE documents SET ready = 1 WHERE id = ?", [(d,) for d in documents])

    def remove(self, documents: Iterable[str]) -> None:
        """Forget documents and their chunks."""
        rows = [(document,) for document in documents]
        with self.connection() as connection:
            connection.executemany("DELETE FROM chunks WHERE document = ?", rows)
            connection.executemany("DELETE FROM documents WHERE id = ?", rows)

    def chunks(self) -> list[Chunk]:
        """The chunks of all ready documents, by document and place."""
        query = (
            "SELECT c.id, c.document, c.start, c.stop, c.text, c.embedded, c.metadata FROM chunks c JOIN documents d "
            "ON c.document = d.id WHERE d.ready = 1 ORDER BY c.document, c.place"
        )
        with self.connection() as connection:
            rows = connection.execute(query).fetchall()
        return [Chunk(*row[:6], json.loads(row[6])) for row in rows]
