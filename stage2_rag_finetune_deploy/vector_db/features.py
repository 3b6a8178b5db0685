"""What each store has beyond the interface, tried on a live one."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from labkit.cli import nearest, option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console, error_console
from labkit.runs import start_run
from stage2_rag_finetune_deploy.vector_db.compare import Places
from stage2_rag_finetune_deploy.vector_db.measure import load_problem
from stage2_rag_finetune_deploy.vector_db.stores import open_store

STORES = ("milvus-lite", "milvus", "weaviate")
INDEXES = ("FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN", "HNSW")


@dataclass(frozen=True)
class FeaturesConfig:
    """Which stores."""

    stores: str = option(",".join(STORES), f"with commas: {', '.join(STORES)}")
    vectors: int = option(5000, "GloVe vectors for the indexes")
    queries: int = option(100, "held-out ones")
    indexes: str = option("HNSW,IVF_FLAT,IVF_PQ", f"Milvus' kinds, with commas: {', '.join(INDEXES)}")
    seed: int = option(1, "which words")


PRESETS = {
    "smoke": FeaturesConfig(stores="milvus-lite", vectors=1200, queries=20, indexes="HNSW,IVF_PQ"),
    "cpu": FeaturesConfig(),
    "study": FeaturesConfig(vectors=50_000, queries=500, indexes=",".join(INDEXES)),
}


def run_features(config: FeaturesConfig, preset: str) -> None:
    """The command: a table for each store."""
    names, indexes = chosen(config.stores, STORES, "store"), chosen(config.indexes, INDEXES, "index")
    with start_run("stage2", "vector_db", "features", config, preset, config.seed) as run:
        problem = load_problem(config.vectors, config.queries, 10, config.seed)
        found: dict[str, dict[str, str]] = {}
        for name in names:
            try:
                with error_console.status(name):
                    found[name] = try_store(name, problem.vectors, problem.queries, indexes, run.dir)
            except LabError as error:
                console.print(f"left out: {name}: {error.message}", markup=False, style="yellow", soft_wrap=True)
                continue
            table = Table("feature", name, title_justify="left")
            for feature, words in found[name].items():
                table.add_row(feature, words.replace("[", "\\["))
            console.print(table)
            there = [feature for feature, words in found[name].items() if not words.startswith("not here")]
            run.metric(f"{name}.there", len(there), "features")
        write_json(run.dir / "features.json", found)
        run.artefact("features.json", "table")
        if "milvus" in found:
            words = {level: found["milvus"][f"consistency {level}"] for level in ("Session", "Bounded")}
            run.learnt(f"A Milvus client that asks right after its write, Session: {words['Session']}; "
                       f"Bounded: {words['Bounded']}.")  # fmt: skip
        run.next("python -m stage2_rag_finetune_deploy.vector_db crash")


def chosen(text: str, known: Iterable[str], what: str) -> list[str]:
    """Names with commas, each a known one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise LabError(f"unknown {what} {name!r}", nearest(name, list(known)) or f"one of: {', '.join(known)}")
    return names


def try_store(
    name: str, vectors: np.ndarray, queries: np.ndarray, indexes: list[str], folder: Path
) -> dict[str, str]:
    """All features of one store, opened in a folder of its own (or named by MILVUS_URI, WEAVIATE_URL)."""
    with ExitStack() as servers, open_store(name, Places(folder / "stores", servers).of(name, name)[0]) as store:
        if name == "weaviate":
            from stage2_rag_finetune_deploy.vector_db import weaviate_features

            return weaviate_features.try_all(store.client, vectors)
        from stage2_rag_finetune_deploy.vector_db import milvus_features

        return milvus_features.try_all(store.client, vectors, queries, indexes)
