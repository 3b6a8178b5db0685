"""Every variant on the same questions: values per query, differences with their intervals, milliseconds.

The variants share their parts, so each part answers a question once and the others get the same list. Time is taken
apart from that, on a few questions that nothing remembers.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labkit.progress import progress
from stage1_foundations.embeddings.bootstrap import Comparison, paired_bootstrap
from stage2_rag_finetune_deploy.rag.evaluation.retrieval import Qrels, evaluate_run
from stage2_rag_finetune_deploy.rag.retriever import Hit, Retriever
from stage2_rag_finetune_deploy.rag.variants import VARIANTS, Parts, make_variant
from stage2_rag_finetune_deploy.vector_db.filters import Filter

MEASURES = ("mrr@10", "ndcg@10", "recall@10", "hit@1")
DEPTH = 10  # passages that the user would see
SLICE = 256  # questions whose lists are held in memory together
WARM_UP = 3
DRAWS = 2000  # of the bootstrap: p is known to about 0.005, and 10,000 queries are a lot to draw


class Remembering:
    """A retriever that answers an equal question from memory, for a slice of questions at a time."""

    def __init__(self, inner: Retriever, memory: dict) -> None:
        self.inner, self.name, self._memory = inner, inner.name, memory

    def retrieve(self, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
        """See `Retriever`. A shorter list is the beginning of a longer one."""
        key = (self.name, query)
        if key not in self._memory or self._memory[key][0] < k:
            self._memory[key] = k, self.inner.retrieve(query, k, filter)
        return self._memory[key][1][:k]


@dataclass(frozen=True)
class Scored:
    """What a variant did: `values[measure]` (N,) for the first N queries, and its first passages a query."""

    values: dict[str, np.ndarray]
    run: dict[str, dict[str, float]]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def slices(items: Sequence, size: int) -> Iterator[Sequence]:
    """Pieces of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def score_variants(
    parts: Parts, queries: Mapping[str, str], qrels: Qrels, names: Sequence[str],
    limits: Mapping[str, int] | None = None,
) -> dict[str, Scored]:  # fmt: skip
    """Run variants over all queries.

    Args:
        parts: of the corpus.
        queries: query id -> text.
        names: of variants.
        limits: variant -> how many queries it gets, for the dear ones; the others get all.
    """
    limits = limits or {}
    memory: dict = {}
    shared = replace(parts, wrap=lambda part: Remembering(part, memory))
    retrievers = {name: make_variant(name, shared) for name in names}
    runs: dict[str, dict[str, dict[str, float]]] = {name: {} for name in names}
    ids = list(queries)
    parts.encoder.remember(list(queries.values()))
    with progress(total=len(ids), description="search") as bar:
        for part in slices(ids, SLICE):
            memory.clear()
            for query in part:
                for name, retriever in retrievers.items():
                    if len(runs[name]) < limits.get(name, len(ids)):
                        hits = retriever.retrieve(queries[query], DEPTH)
                        runs[name][query] = {hit.id: float(len(hits) - place) for place, hit in enumerate(hits)}
                bar.advance()
    return {
        name: Scored(evaluate_run(run, {query: qrels[query] for query in run}, MEASURES), run)
        for name, run in runs.items()
    }


def differences(scored: Mapping[str, Scored], measure: str) -> dict[str, Comparison]:
    """Every variant against the row above it, on the queries that both had; the first has none."""
    found = {}
    for name in scored:
        against = row_above(name, list(scored))
        if against is not None:
            count = min(len(scored[name]), len(scored[against]))
            before, after = (scored[row].values[measure][:count] for row in (against, name))
            found[name] = paired_bootstrap(before, after, DRAWS)
    return found


def row_above(name: str, names: Sequence[str]) -> str | None:
    """Which of `names` a variant is compared with: its own choice, or that one's where it was left out."""
    against = VARIANTS[name].against
    while against is not None and against not in names:
        against = VARIANTS[against].against
    return against


def milliseconds(parts: Parts, name: str, queries: Sequence[str]) -> np.ndarray:
    """How long a warm variant takes for each query, (N,), nothing remembered, one query at a time."""
    retriever = make_variant(name, parts)
    for query in queries[:WARM_UP]:
        retriever.retrieve(query, DEPTH)
    parts.encoder.forget()
    times = []
    for query in queries[WARM_UP:] or queries:
        start = time.perf_counter()
        retriever.retrieve(query, DEPTH)
        times.append(1000 * (time.perf_counter() - start))
    return np.array(times)


def with_typo(text: str, rng: np.random.Generator) -> str:
    """The text with two neighbouring letters of its longest word swapped."""
    words = text.split(" ")
    place = max(range(len(words)), key=lambda number: len(words[number]))
    word = words[place]
    if len(word) < 5:
        return text
    cut = int(rng.integers(1, len(word) - 3))
    words[place] = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return " ".join(words)
