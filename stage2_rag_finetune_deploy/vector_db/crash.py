"""kill -9 in the middle of writing: is everything that was acknowledged still there?

A child process writes batches and notes each one in a file once the store has acknowledged it. Then the process that
holds the data is killed: the child itself for the file stores, the server for Milvus, which is then started again
while the child waits. Last, the store is opened afresh and asked for every id in the notes.
"""

import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from labkit.cli import nearest, option
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import Run, start_run
from stage2_rag_finetune_deploy.vector_db.milvus_server import MilvusServer
from stage2_rag_finetune_deploy.vector_db.store import CollectionSpec, Record
from stage2_rag_finetune_deploy.vector_db.stores import open_store

DIMENSIONS = 32
NAME = "written"
WAIT_SECONDS = 60
KILLED = ("faiss", "milvus-lite", "milvus")  # the stores whose process is ours to kill
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class WriteConfig:
    """What the child does; `crash` calls it."""

    store: str = option("faiss", "faiss, milvus-lite, milvus or weaviate")
    location: str = option("", "folder, .db path or URI")
    notes: Path = option(Path("notes.txt"), "file that gets a line for each acknowledged batch")
    batches: int = option(1000, "how many")
    batch: int = option(20, "records in each")


@dataclass(frozen=True)
class CrashConfig:
    """Which stores, and when to kill."""

    stores: str = option("faiss,milvus-lite,milvus", "names, with commas")
    after: int = option(30, "acknowledged batches before the kill")
    batch: int = option(20, "records in a batch")


PRESETS = {
    "smoke": CrashConfig(stores="faiss,milvus-lite", after=5),
    "cpu": CrashConfig(),
    "study": CrashConfig(after=200),
}


def run_write(config: WriteConfig, preset: str) -> None:
    """Write until done or killed. A batch is in the notes only after `upsert` returned."""
    draw = np.random.default_rng(1)
    with open_store(config.store, config.location) as store, open(config.notes, "a", encoding="utf-8") as notes:
        names = store.collections()
        collection = store.open(NAME) if NAME in names else store.create(CollectionSpec(NAME, DIMENSIONS))
        for number in range(config.batches):
            ids = [f"{number}-{i}" for i in range(config.batch)]
            vectors = draw.normal(size=(config.batch, DIMENSIONS))
            pairs = zip(ids, vectors, strict=True)
            collection.upsert([Record(name, vector, f"batch {number}") for name, vector in pairs])
            notes.write(" ".join(ids) + "\n")
            notes.flush()


class Writer:
    """The child process and its notes."""

    def __init__(self, store: str, location: str, notes: Path, batches: int, batch: int) -> None:
        self.notes = notes
        words = [sys.executable, "-m", __package__, "write", "--store", store, "--location", location]
        words += ["--notes", str(notes), "--batches", str(batches), "--batch", str(batch)]
        self.process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)

    def acknowledged(self) -> list[str]:
        """Ids in the notes; a half-written last line counts as not acknowledged."""
        text = self.notes.read_text(encoding="utf-8") if self.notes.exists() else ""
        return text[: text.rfind("\n") + 1].split()

    def wait_for(self, records: int) -> None:
        """Until so many records are acknowledged."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.acknowledged()) < records:
            if self.process.poll() is not None:
                raise LabError(f"the writer ended early: {self.process.stderr.read()[-300:]}", "--debug")
            if time.monotonic() > deadline:
                raise LabError(f"the writer needed more than {WAIT_SECONDS} s", "a smaller --after")
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.process.stderr.closed:  # it may have ended by itself; its pipe is closed all the same
            self.kill()


def crash_file_store(store: str, folder: Path, after: int, batch: int) -> dict[str, float]:
    """Kill the process that has the store open, then open it here."""
    location = str(folder / f"{store}.db")
    with Writer(store, location, folder / f"{store}.txt", 100_000, batch) as writer:
        writer.wait_for(after * batch)
        writer.kill()
        started = time.perf_counter()
        return judge(store, location, writer.acknowledged(), started) | {"writer": "killed with it"}


def crash_server(folder: Path, after: int, batch: int) -> dict[str, float]:
    """Kill the server under a writing client, start it again, and let the client go on by itself."""
    with MilvusServer(folder / "milvus") as server:
        with Writer("milvus", server.uri, folder / "milvus.txt", 2 * after, batch) as writer:
            writer.wait_for(after * batch)
            server.kill()
            before, started = writer.acknowledged(), time.perf_counter()
            server.start()
            facts = judge("milvus", server.uri, before, started)
            _, words = writer.process.communicate(timeout=WAIT_SECONDS)
            went_on = writer.process.returncode == 0
            final = judge("milvus", server.uri, writer.acknowledged(), started) if went_on else facts
        return {**facts, **{key: final[key] for key in ("acknowledged", "lost", "extra")},
                "writer": "reconnected and finished" if went_on else words.strip().splitlines()[0]}  # fmt: skip


def judge(store: str, location: str, ids: list[str], started: float) -> dict[str, float]:
    """How many of the acknowledged records are missing, and how long it took from the crash to know."""
    with open_store(store, location) as opened:
        collection = opened.open(NAME)
        lost = len(ids) - len(collection.get(ids))
        seconds = time.perf_counter() - started
        return {"acknowledged": len(ids), "lost": lost, "extra": collection.count() - (len(ids) - lost),
                "seconds": seconds}  # fmt: skip


def run_crash(config: CrashConfig, preset: str) -> None:
    """The command: a row for each store."""
    stores = [name.strip() for name in config.stores.split(",") if name.strip()]
    for name in stores:
        if name not in KILLED:
            raise LabError(f"unknown store {name!r}", nearest(name, KILLED) or f"one of: {', '.join(KILLED)}")
    with start_run("stage2", "vector_db", "crash", config, preset) as run, ExitStack() as stack:
        table = Table("store", "acknowledged", "lost", "written, not acknowledged", "back after", "the writer")
        stack.callback(console.print, table)
        for store in stores:
            crash = crash_server if store == "milvus" else lambda *words, store=store: crash_file_store(store, *words)
            facts = crash(run.dir, config.after, config.batch)
            table.add_row(store, f"{facts['acknowledged']:,}", str(facts["lost"]), str(facts["extra"]),
                          f"{facts['seconds']:.1f} s", str(facts["writer"]))  # fmt: skip
            record(run, store, facts)
        run.learnt("A write counts once it is acknowledged: after kill -9 none of those was lost.")
        run.next("python -m stage2_rag_finetune_deploy.vector_db compare")


def record(run: Run, store: str, facts: dict[str, float]) -> None:
    """The figures of one store."""
    run.metric(f"{store}.acknowledged", facts["acknowledged"], "records")
    run.metric(f"{store}.lost", facts["lost"], "records", (0, 0), "acknowledged before kill -9, gone after it")
    run.metric(f"{store}.back_seconds", facts["seconds"], "s", meaning="from the crash to the first answer")

