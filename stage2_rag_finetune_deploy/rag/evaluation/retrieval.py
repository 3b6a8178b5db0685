"""How good a ranking is: MRR, nDCG, recall and hit rate at k, per query, and run files in TREC's form.

    run = {"q1": {"p7": 12.3, "p2": 11.0}}            # query -> passage -> score, higher is better
    values = evaluate_run(run, qrels, ["mrr@10", "recall@100"])
    values["mrr@10"].mean(), values["mrr@10"][3]      # the figure of the table, and of the fourth query

Two rules that are easy to get wrong, and that change the figure: every query of the qrels counts (one that the run
does not answer scores 0), and equal scores are ordered by passage id, the larger first, which is what trec_eval
does. The figures equal those of pytrec_eval, the engine under ir-measures (the tests compare them).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from labkit.errors import LabError
from labkit.files import write_text

Run = Mapping[str, Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]
DEFAULT_MEASURES = ("mrr@10", "ndcg@10", "recall@10", "recall@50", "hit@1")


def ranked_ids(scores: Mapping[str, float]) -> list[str]:
    """Passage ids, best first; ties by id, the larger first (trec_eval's rule)."""
    return [passage for passage, _ in sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)]


# exercise: rag.reciprocal_rank
def reciprocal_rank(ranking: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant passage among the first `k`, ranks from 1; 0 when there is none.

    Args:
        ranking: passage ids, best first, each once.
        relevant: passage id -> grade; a grade of 0 is a judged passage that does not answer.
        k: how far one looks.
    """
    for rank, passage in enumerate(ranking[:k], start=1):
        if relevant.get(passage, 0) > 0:
            return 1 / rank
    return 0.0


# end exercise


def ndcg(ranking: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002), with the grade itself as gain.

    The sum of grade / log2(rank + 1) over the first `k`, divided by the same sum for the ideal ranking of all judged
    passages, also cut at `k`. 0 when nothing is relevant.
    """
    gains = [max(relevant.get(passage, 0), 0) for passage in ranking[:k]]
    ideal = sorted((grade for grade in relevant.values() if grade > 0), reverse=True)[:k]
    discounted, best = (
        sum(gain / math.log2(rank + 1) for rank, gain in enumerate(row, start=1)) for row in (gains, ideal)
    )
    return discounted / best if best else 0.0


def recall(ranking: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """Which share of the relevant passages is among the first `k`; 0 when nothing is relevant."""
    wanted = {passage for passage, grade in relevant.items() if grade > 0}
    return len(wanted.intersection(ranking[:k])) / len(wanted) if wanted else 0.0


def hit(ranking: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    """1 when a relevant passage is among the first `k`, else 0: the hit rate of one query."""
    return float(any(relevant.get(passage, 0) > 0 for passage in ranking[:k]))


MEASURES = {"mrr": reciprocal_rank, "ndcg": ndcg, "recall": recall, "hit": hit}


def parse_measure(name: str) -> tuple[str, int]:
    """`mrr@10` as ("mrr", 10).

    Raises:
        LabError: no such measure, or no positive cut-off.
    """
    measure, _, cut = name.partition("@")
    if measure not in MEASURES or not cut.isdigit() or int(cut) < 1:
        raise LabError(f"no measure is called {name!r}", f"one of {', '.join(MEASURES)} with a cut-off, such as mrr@10")
    return measure, int(cut)


def evaluate_run(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES) -> dict[str, np.ndarray]:
    """Values per query, (N,) for each measure, in the order of the qrels.

    Args:
        run: query id -> passage id -> score. A query that is missing scores 0, one without judgements is ignored.
        qrels: query id -> passage id -> grade.

    Raises:
        LabError: no queries, or an unknown measure.
    """
    if not qrels:
        raise LabError("there are no judged queries to evaluate on", "a set with qrels")
    parsed = {name: parse_measure(name) for name in measures}
    rankings = {query: ranked_ids(run.get(query, {})) for query in qrels}
    return {
        name: np.array([MEASURES[measure](rankings[query], qrels[query], k) for query in qrels])
        for name, (measure, k) in parsed.items()
    }


def write_trec_run(path: str | Path, run: Run, tag: str) -> Path:
    """Write a run as TREC does: `query Q0 passage rank score tag`, a line a passage, atomically.

    Raises:
        LabError: an id or the tag holds white space, which the form has no way to quote.
    """
    lines = []
    for query, scores in run.items():
        for rank, passage in enumerate(ranked_ids(scores), start=1):
            fields = (query, passage, tag)
            if any(not field or len(field.split()) != 1 or field != field.strip() for field in fields):
                raise LabError(f"a run file cannot hold the ids {fields}", "ids without spaces")
            lines.append(f"{query} Q0 {passage} {rank} {scores[passage]!r} {tag}\n")
    return write_text(path, "".join(lines))


def read_trec_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a run file. The scores decide the order, as in trec_eval; the column of ranks is not used.

    Raises:
        LabError: no such file, a line without six fields, a score that is no finite number, a passage twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LabError(f"cannot read the run file {path}: {error.strerror}", "the path of a run file") from error
    run: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            query, _, passage, _, score, _ = fields
            value = float(score)
        except ValueError:
            raise LabError(f"{path}, line {number} is no line of a run", "query Q0 passage rank score tag") from None
        if not math.isfinite(value) or passage in run.setdefault(query, {}):
            raise LabError(f"{path}, line {number}: a passage twice, or no finite score", "a run file that was whole")
        run[query][passage] = value
    return run
