"""The file store: SQLite holds the truth, FAISS finds the neighbours, bm25s the words.

    <root>/LOCK                        one process at a time
    <root>/<collection>/data.sqlite    ids, vectors, texts, fields; each upsert is one transaction, fsynced
    <root>/<collection>/index.faiss    a snapshot of the index, thrown away and made again whenever it is in doubt

The index is a cache. Every row of the table gets a number that is never used again, and a replaced record gets a new
row; so the difference between the row numbers in the table and those in a snapshot is exactly what the snapshot
missed, and opening a collection after a crash is one set difference (`reconcile`).
"""

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
from filelock import FileLock, Timeout

from labkit.errors import LabError
from labkit.files import atomic_path, sha256_file
from stage2_rag_finetune_deploy.vector_db.exact import unit_rows
from stage2_rag_finetune_deploy.vector_db.filters import Filter
from stage2_rag_finetune_deploy.vector_db.fusion import rrf_fuse
from stage2_rag_finetune_deploy.vector_db.lexical import LexicalIndex
from stage2_rag_finetune_deploy.vector_db.store import (
    HYBRID_DEPTH,
    Collection,
    CollectionSpec,
    Hit,
    Record,
    VectorStore,
)
from stage2_rag_finetune_deploy.vector_db.translate import to_sql

DATA, INDEX = "data.sqlite", "index.faiss"
SQL_TYPES = {str: "TEXT", int: "INTEGER", float: "REAL", bool: "INTEGER"}
EXACT_BELOW, EXACT_SHARE = 2000, 0.02  # a filter that leaves fewer rows: HNSW would walk past most of them
REBUILD_ABOVE = 0.3  # share of removed nodes in HNSW, which only marks them
PARAMETERS = 30_000  # SQLite's limit for one statement is 32,766


# exercise: vector_db.reconcile
def reconcile(in_table: np.ndarray, in_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What an index must do to agree with the table: row numbers to add, row numbers to forget, both sorted.

    Rows are never changed in place and their numbers are never used again, so equal numbers mean equal vectors.
    """
    return np.setdiff1d(in_table, in_index), np.setdiff1d(in_index, in_table)
# end exercise


class FaissCollection(Collection):
    """One folder. Safe to use from several threads of its process."""

    def __init__(self, spec: CollectionSpec, folder: Path) -> None:
        super().__init__(spec)
        self._folder, self._mutex = folder, threading.RLock()
        self._db = connect(folder / DATA)
        self._lexical: LexicalIndex | None = None
        self._load_index()

    # --- writing: first the table, then the index -------------------------------------------------------------

    def _upsert(self, records: list[Record], vectors: np.ndarray) -> None:
        columns = ["id", "vector", "text", *self.spec.fields]
        names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
        rows = [
            (record.id, vector.tobytes(), record.text, *(record.fields[name] for name in self.spec.fields))
            for record, vector in zip(records, vectors, strict=True)
        ]
        with self._mutex:
            replaced = self._rows_of([record.id for record in records])
            with self._transaction():
                last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
                self._db.executemany(f"INSERT OR REPLACE INTO records ({names}) VALUES ({marks})", rows)
            first = (last[0] if last else 0) + 1
            self._forget(replaced)
            self._index.add_with_ids(unit_rows(vectors), np.arange(first, first + len(rows)))
            self._lexical, self._fresh = None, False
            self._rebuild_if_holed()

    def _delete_ids(self, ids: list[str]) -> None:
        with self._mutex:
            self._remove(self._rows_of(ids))

    def _delete_where(self, where: Filter | None) -> None:
        with self._mutex:
            self._remove(self._rows_where(where))

    def _remove(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        with self._transaction():
            self._db.executemany("DELETE FROM records WHERE row = ?", [(int(row),) for row in rows])
        self._forget(rows)
        self._lexical, self._fresh = None, False
        self._rebuild_if_holed()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Everything or nothing; the fsync of the commit is the acknowledgement."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    # --- the index --------------------------------------------------------------------------------------------

    def _load_index(self) -> None:
        """The snapshot brought up to date, or a new index over the whole table."""
        snapshot = self._read_snapshot()
        self._index = snapshot or new_index(self.spec)
        in_table = np.array([row for (row,) in self._db.execute("SELECT row FROM records")], np.int64)
        missing, dead = reconcile(in_table, faiss.vector_to_array(self._index.id_map))
        for start in range(0, len(missing), PARAMETERS):
            part = missing[start : start + PARAMETERS]
            self._index.add_with_ids(unit_rows(self._vectors(part)), part)
        self._dead = np.zeros(0, np.int64)
        self._forget(dead)
        self._fresh = snapshot is not None and not len(missing) and not len(dead)  # as it is on the disk

    def _read_snapshot(self) -> faiss.IndexIDMap2 | None:
        """The index on disk; None when there is none, or when it is not the file that the table vouches for."""
        path, known = self._folder / INDEX, self._db.execute("SELECT value FROM about WHERE key = 'index'").fetchone()
        if not known or not path.is_file() or sha256_file(path) != known[0]:
            return None
        return faiss.read_index(str(path))

    def persist(self) -> None:
        with self._mutex:
            if not self._fresh:
                with atomic_path(self._folder / INDEX) as temporary:
                    faiss.write_index(self._index, str(temporary))
                with self._transaction():
                    self._db.execute("INSERT OR REPLACE INTO about VALUES ('index', ?)",
                                     (sha256_file(self._folder / INDEX),))  # fmt: skip
                self._fresh = True
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Keep the index for the next start, then let the file go."""
        with self._mutex:
            self.persist()
            self._db.close()

    def _forget(self, rows: np.ndarray) -> None:
        """Flat indexes drop rows; HNSW's graph would tear, so its rows are only marked and passed over."""
        if self.spec.index == "flat" and len(rows):
            self._index.remove_ids(rows)
        elif self.spec.index == "hnsw":
            self._dead = np.concatenate([self._dead, rows])
            self._removed = faiss.IDSelectorBatch(self._dead)
            self._alive = faiss.IDSelectorNot(self._removed) if len(self._dead) else None

    def _rebuild_if_holed(self) -> None:
        if len(self._dead) > max(EXACT_BELOW, REBUILD_ABOVE * self._index.ntotal):
            (self._folder / INDEX).unlink(missing_ok=True)
            self._load_index()

    # --- reading ----------------------------------------------------------------------------------------------

    def _search(self, vector: np.ndarray, k: int, where: Filter | None) -> list[Hit]:
        with self._mutex:
            found = self._nearest(unit_rows(vector), k, where)
            return self._hits(found, "row")

    def _nearest(self, query: np.ndarray, k: int, where: Filter | None) -> list[tuple[int, float]]:
        """(row, cosine), best first."""
        rows = None if where is None else self._rows_where(where)
        if rows is not None and len(rows) <= max(EXACT_BELOW, EXACT_SHARE * self._index.ntotal):
            scores = unit_rows(self._vectors(rows)) @ query if len(rows) else np.zeros(0, np.float32)
            order = np.argsort(-scores, kind="stable")[:k]
            return [(int(rows[i]), float(scores[i])) for i in order]
        chosen = faiss.IDSelectorBatch(rows) if rows is not None else None
        if self.spec.index == "hnsw":
            passing = len(rows) if rows is not None else self._index.ntotal - len(self._dead)
            effort = max(self.spec.effort, k) * self._index.ntotal // max(passing, 1)  # it counts what it walks past
            settings = faiss.SearchParametersHNSW(sel=chosen or self._alive, efSearch=effort)
        else:
            settings = faiss.SearchParameters(sel=chosen)
        with one_thread():
            scores, found = self._index.search(query[None], k, params=settings)
        return [(int(row), float(score)) for row, score in zip(found[0], scores[0], strict=True) if row >= 0]

    def _search_text(self, text: str, k: int, where: Filter | None) -> list[Hit]:
        with self._mutex:
            return self._hits(self._words(text, k, where), "id")

    def _words(self, text: str, k: int, where: Filter | None) -> list[tuple[str, float]]:
        """(id, BM25). The word index is made anew at the first question after a write."""
        if self._lexical is None:
            pairs = self._db.execute("SELECT id, text FROM records ORDER BY row").fetchall()
            self._lexical = LexicalIndex([name for name, _ in pairs], [text for _, text in pairs])
        allowed = None
        if where is not None:
            clause, values = to_sql(where)
            allowed = {name for (name,) in self._db.execute(f"SELECT id FROM records WHERE {clause}", values)}
        return self._lexical.search(text, k, allowed)

    def _hybrid(self, vector: np.ndarray, text: str, k: int, where: Filter | None, alpha: float) -> list[Hit]:
        with self._mutex:
            depth = max(k, HYBRID_DEPTH)
            rows = [row for row, _ in self._nearest(unit_rows(vector), depth, where)]
            ids = dict(self._select("row", rows, ["row", "id"]))
            dense = [ids[row] for row in rows]
            words = [name for name, _ in self._words(text, depth, where)]
            return self._hits(rrf_fuse([dense, words], [alpha, 1 - alpha])[:k], "id")

    def _get(self, ids: list[str]) -> list[Record]:
        with self._mutex:
            rows = self._select("id", ids, ["id", "vector", "text", *self.spec.fields])
            return [
                Record(name, np.frombuffer(vector, np.float32), text, self._fields(values))
                for name, vector, text, *values in rows
            ]

    def _count(self, where: Filter | None) -> int:
        clause, values = ("1", []) if where is None else to_sql(where)
        with self._mutex:
            return self._db.execute(f"SELECT count(*) FROM records WHERE {clause}", values).fetchone()[0]

    def _hits(self, found: Sequence[tuple[int | str, float]], key: str) -> list[Hit]:
        """(row or id, score) with what the table knows about them, in the given order."""
        rows = self._select(key, [name for name, _ in found], [key, "id", "text", *self.spec.fields])
        known = {first: (name, text, self._fields(values)) for first, name, text, *values in rows}
        return [Hit(known[key][0], score, *known[key][1:]) for key, score in found]

    def _fields(self, values: Sequence) -> dict:
        return {name: kind(value) for (name, kind), value in zip(self.spec.fields.items(), values, strict=True)}

    def _rows_of(self, ids: list[str]) -> np.ndarray:
        return np.array([row for (row,) in self._select("id", ids, ["row"])], np.int64)

    def _rows_where(self, where: Filter | None) -> np.ndarray:
        clause, values = ("1", []) if where is None else to_sql(where)
        rows = self._db.execute(f"SELECT row FROM records WHERE {clause} ORDER BY row", values)
        return np.array([row for (row,) in rows], np.int64)

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), D), in the order of the sorted rows."""
        found = sorted(self._select("row", rows.tolist(), ["row", "vector"]))
        return np.frombuffer(b"".join(vector for _, vector in found), np.float32).reshape(-1, self.spec.dimensions)

    def _select(self, key: str, values: list, columns: list[str]) -> list[tuple]:
        """Columns of the rows whose `key` is among the values, in no order."""
        names, found = ", ".join(f'"{name}"' for name in columns), []
        for start in range(0, len(values), PARAMETERS):
            part = values[start : start + PARAMETERS]
            marks = ", ".join("?" * len(part))
            found += self._db.execute(f'SELECT {names} FROM records WHERE "{key}" IN ({marks})', part).fetchall()
        return found


@contextmanager
def one_thread() -> Iterator[None]:
    """One query gains nothing from OpenMP's threads, and on a busy machine waits 20 ms for them."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def new_index(spec: CollectionSpec) -> faiss.IndexIDMap2:
    """An empty index of unit vectors by inner product, which is their cosine."""
    if spec.index == "flat":
        return faiss.IndexIDMap2(faiss.IndexFlatIP(spec.dimensions))
    graph = faiss.IndexHNSWFlat(spec.dimensions, spec.links, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = spec.build_effort
    return faiss.IndexIDMap2(graph)


def connect(path: Path) -> sqlite3.Connection:
    """A database whose commits survive a killed process and a power cut (write-ahead log, fsync at each commit)."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


class FaissStore(VectorStore):
    """A folder of collections, for one process at a time."""

    name = "faiss"

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        if self._root.exists() and not self._root.is_dir():
            raise LabError(f"{root} is a file, the FAISS store wants a folder", "another path")
        self._root.mkdir(parents=True, exist_ok=True)
        self._opened: dict[str, FaissCollection] = {}
        self._lock = FileLock(self._root / "LOCK")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise LabError(
                f"{root} is open already, here or in another process",
                "close it there; for several processes at once use a server (milvus)",
            ) from None

    @property
    def where(self) -> str:
        return str(self._root)

    def collections(self) -> list[str]:
        return sorted(path.parent.name for path in self._root.glob(f"[!.]*/{DATA}"))

    def _create(self, spec: CollectionSpec) -> Collection:
        building = self._root / f".new-{spec.name}"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        db = connect(building / DATA)
        columns = "".join(f', "{name}" {SQL_TYPES[kind]} NOT NULL' for name, kind in spec.fields.items())
        db.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("INSERT INTO about VALUES ('spec', ?)", (spec.to_json(),))
        db.execute("CREATE TABLE records (row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
                   f" vector BLOB NOT NULL, text TEXT NOT NULL{columns})")  # fmt: skip
        db.close()
        building.rename(self._root / spec.name)
        return self._open(spec.name)

    def _open(self, name: str) -> Collection:
        if name not in self._opened:
            folder = self._root / name
            try:
                db = connect(folder / DATA)
                spec = CollectionSpec.from_json(db.execute("SELECT value FROM about WHERE key = 'spec'").fetchone()[0])
                db.close()
            except (sqlite3.DatabaseError, ValueError, TypeError) as error:
                raise LabError(f"{folder / DATA} is damaged: {error}", f"drop({name!r}) and fill it again") from error
            self._opened[name] = FaissCollection(spec, folder)
        return self._opened[name]

    def _drop(self, name: str) -> None:
        if name in self._opened:
            self._opened.pop(name)._db.close()
        doomed = self._root / f".dropped-{name}"
        shutil.rmtree(doomed, ignore_errors=True)
        (self._root / name).rename(doomed)
        shutil.rmtree(doomed)

    def close(self) -> None:
        for collection in self._opened.values():
            collection.close()
        self._opened = {}
        self._lock.release()
