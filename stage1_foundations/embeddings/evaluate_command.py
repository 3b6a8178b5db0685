"""`evaluate`: models times tasks through mteb, then the leaderboard. `leaderboard`: earlier runs' tables again."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.cli import nearest, option
from labkit.errors import LabError
from labkit.progress import console, error_console
from labkit.runs import Run, latest_run, start_run
from labkit.timing import Timer, human_seconds

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from stage1_foundations.embeddings.leaderboard import Board, Summary

MODELS = "bm25,random,glove,gpt,minilm,e5"
HUB_MODELS = "BAAI/bge-small-en-v1.5,intfloat/e5-small-v2,thenlper/gte-small"


@dataclass(frozen=True)
class EvaluateConfig:
    """Which rows and columns, and how much of every task."""

    models: str = option(MODELS, "rows, separated by commas")
    model: str = option("", "one more row: the folder of a model, or a hub id")
    tasks: str = option("all", "columns by name, separated by commas, or all")
    source: str = option("packages", "hub adds NFCorpus, SciFact, STSBenchmark and NanoBEIR", ("packages", "hub"))
    queries: int | None = option(None, "queries of a retrieval task; none is all of them")
    passages: int | None = option(None, "passages of a retrieval task; none is all of them")
    texts: int | None = option(None, "texts of the other tasks; none is all of them")
    experiments: int = option(10, "mteb's repetitions of a classification; twice as many of a clustering")
    fresh: bool = option(False, "compute again what mteb's result cache has")
    speed: bool = option(True, "measure how fast the models encode")


CPU = EvaluateConfig(queries=80, passages=100, texts=120, experiments=3)
SHORT_PASSAGES = {"construction-faq": 2, "idioms": 4}  # so many times the passages, in the time of SQuAD's paragraphs
PRESETS = {
    "smoke": EvaluateConfig(models="bm25,random,glove", queries=20, passages=30, texts=60, experiments=1),
    "cpu": CPU,
    "study": EvaluateConfig(),
    "gpu": EvaluateConfig(),
}


@dataclass(frozen=True)
class LeaderboardConfig:
    """Which runs of `evaluate`, put together."""

    runs: str = option("", "run folders separated by commas, later ones win; none is the newest")


def run_evaluate(config: EvaluateConfig, preset: str) -> None:
    """Every model on every task that it can do."""
    if config.source == "packages":  # the hub's downloads keep their bars
        os.environ.setdefault("TQDM_DISABLE", "1")
    for name in ("queries", "passages", "texts", "experiments"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise LabError(f"--{name} {value} is no positive number", f"--{name} 100")
    from stage1_foundations.embeddings.leaderboard import summarise
    from stage1_foundations.embeddings.leaderboard_views import write_views
    from stage1_foundations.embeddings.tasks import record_data

    with start_run("stage1", "embeddings", "evaluate", config, preset=preset, seed=1) as run:
        names, makers = chosen_tasks(config)
        record_data(run, [makers[name] for name in names])
        board = measure(config, preset, names, makers)
        for path in board.save(run.dir):
            run.artefact(path, kind="results")
        summary = summarise(board)
        write_views(summary, run.dir)
        show(summary)
        record(run, summary)


def task_makers(config: EvaluateConfig) -> "dict[str, AbsTask]":
    """Every task that the configuration allows, by its short name."""
    from stage1_foundations.embeddings.evaluation import hub_tasks, packaged_tasks
    from stage1_foundations.embeddings.tasks import Size

    sizes = {
        "Retrieval": Size(*retrieval_size(config, "")),
        "ConstructionFAQ": Size(*retrieval_size(config, "construction-faq")),
        "Idioms": Size(*retrieval_size(config, "idioms")),
        "Classification": Size(texts=config.texts, experiments=config.experiments),
        "Clustering": Size(texts=config.texts, experiments=config.experiments),
        "BitextMining": Size(texts=config.texts),
    }
    tasks = {task.short_name: task for task in packaged_tasks(sizes)}
    if config.source == "hub":
        tasks |= {task.metadata.name: task for task in hub_tasks()}
    return tasks


def retrieval_size(config: EvaluateConfig, name: str) -> tuple[int | None, int | None]:
    """Queries and passages of a set. Of the 25,401 idioms' explanations 2,000 are enough for any interval."""
    queries = 2000 if name == "idioms" and config.queries is None else config.queries
    return queries, config.passages and SHORT_PASSAGES.get(name, 1) * config.passages


def chosen_tasks(config: EvaluateConfig) -> "tuple[list[str], dict[str, AbsTask]]":
    """The names asked for, checked."""
    makers = task_makers(config)
    names = list(makers) if config.tasks == "all" else words_of(config.tasks)
    unknown = [name for name in names if name not in makers]
    if unknown or not names:
        best = nearest(unknown[0], list(makers)) if unknown else None
        hub = "" if config.source == "hub" else "; --source hub adds NFCorpus, SciFact, STSBenchmark, NanoBEIR"
        raise LabError(f"no task is called {', '.join(unknown) or 'nothing'}", best or f"{', '.join(makers)}{hub}")
    return names, makers


def words_of(text: str) -> list[str]:
    """The words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def chosen_models(config: EvaluateConfig) -> list[str]:
    """The rows asked for."""
    text = f"{config.models},{HUB_MODELS}" if config.source == "hub" and config.models == MODELS else config.models
    names = words_of(f"{text},{config.model}")
    if not names:
        raise LabError("no model to evaluate", f"--models {MODELS}")
    return list(dict.fromkeys(names))


def measure(config: EvaluateConfig, preset: str, names: list[str], tasks: "dict[str, AbsTask]") -> "Board":
    """Fill a board, with a line on the terminal for every number."""
    from stage1_foundations.embeddings.evaluation import load_model
    from stage1_foundations.embeddings.leaderboard import Board, ModelRow

    board, models = Board(preset), []
    for name in chosen_models(config):  # all before the first is measured: a wrong name must not cost minutes
        try:
            models.append(load_model(name))
        except LabError as error:
            if name != "gpt" or config.model == "gpt":
                raise
            error_console.print(f"gpt: {error.message}; its row stays empty", style="yellow")
            board.models.append(ModelRow("gpt", None, None, f"{error.message}: {error.try_next}"))
    for model in models:
        board.models.append(measure_model(config, board, model, names, tasks))
    return board


def measure_model(config: EvaluateConfig, board: "Board", model, names: list[str], tasks: "dict[str, AbsTask]"):
    """One row: its speed, then every task that it can do."""
    from stage1_foundations.embeddings.encoders import Encoder
    from stage1_foundations.embeddings.evaluation import encode_speed, run_task, supports
    from stage1_foundations.embeddings.item_scores import item_count
    from stage1_foundations.embeddings.leaderboard import ModelRow, TaskRow
    from stage1_foundations.embeddings.model_registry import training_data

    speed = encode_speed(model) if config.speed else None
    for number, name in enumerate(names, start=1):
        if not supports(model, tasks[name]):
            continue
        with Timer() as timer:
            task = fresh_copy(tasks[name])
            cell = run_task(model, task, config.fresh)
        key = task.metadata.name
        board.scores[model.name, key], board.items[model.name, key] = cell.score, cell.items
        if all(row.name != key for row in board.tasks):
            spoken = "-".join(language.partition("-")[0] for language in task.metadata.languages)
            board.tasks.append(TaskRow(key, task.metadata.type, spoken, item_count(task)))
        took = "from the result cache" if cell.cached else human_seconds(timer.seconds)
        error_console.print(f"{model.name:8} {number:2} of {len(names)}  {key:28} {100 * cell.score:5.1f}  {took}",
                            markup=False, highlight=False)  # fmt: skip
    trained_on = training_data(model) if isinstance(model, Encoder) else set()
    return ModelRow(model.name, getattr(model, "dimensions", None), speed,
                    trained_on=None if trained_on is None else sorted(trained_on))  # fmt: skip


def fresh_copy(task: "AbsTask") -> "AbsTask":
    """The task as new: a clustering task's random state moves on with every evaluation, and models must be paired."""
    if not hasattr(task, "size"):
        return task
    return type(task)(task.size)


def show(summary: "Summary") -> None:
    """The tables on the terminal."""
    from stage1_foundations.embeddings.leaderboard_views import LEGEND, notes, terminal_tables

    for title, table in terminal_tables(summary):
        console.print(f"[bold]{title}[/bold]")
        console.print(table)
        console.print()
    console.print(LEGEND, style="dim")
    for note in notes(summary):
        console.print(note, style="dim", markup=False)


def record(run: Run, summary: "Summary") -> None:
    """Figures, bands and sentences for the table at the end of the stage."""
    run.figure("leaderboard.png", "quality against speed, and every task's scores")
    for name in ("leaderboard.md", "leaderboard.html"):
        run.artefact(name, kind="table")
    bands = METRIC_BANDS if run.report["preset"] == "cpu" else {}
    for (model, column), entry in summary.means.items():
        if column == "Retrieval":
            meaning = "mean nDCG@10 of the retrieval tasks, × 100"
            run.metric(f"retrieval_{model}", 100 * entry.score, band=bands.get(model), meaning=meaning)
    for sentence in sentences(summary):
        run.learnt(sentence)
    run.next("python -m stage1_foundations.embeddings train")


METRIC_BANDS: dict[str, tuple[float | None, float | None]] = {  # of the cpu preset, on its sample
    "bm25": (66.0, 86.0), "random": (0.0, 7.0), "glove": (15.0, 35.0), "minilm": (55.0, 76.0), "e5": (67.0, 87.0),
}  # fmt: skip


def sentences(summary: "Summary") -> list[str]:
    """What the table says, in words."""
    winners: dict[str, list[str]] = {}
    for task in summary.board.tasks:
        scores = {model: entry.score for (model, name), entry in summary.cells.items() if name == task.name}
        if len(scores) > 1:
            winners.setdefault(max(scores, key=lambda model: scores[model]), []).append(task.short)
    if len(winners) < 2:
        return []
    parts = [f"{model} on {', '.join(tasks)}" for model, tasks in winners.items()]
    return [f"No encoder wins everywhere: {'; '.join(parts)}."]


def run_leaderboard(config: LeaderboardConfig, preset: str) -> None:
    """Read the boards of earlier runs, put them together, show and write them."""
    from stage1_foundations.embeddings.leaderboard import EVALUATE, Board, summarise
    from stage1_foundations.embeddings.leaderboard_views import write_views

    folders = [Path(text) for text in words_of(config.runs)]
    if not folders:
        newest = latest_run("stage1", "embeddings", "evaluate")
        if newest is None:
            raise LabError("there is no evaluation yet", EVALUATE)
        folders = [newest]
    board = Board.load(folders[0])
    for folder in folders[1:]:
        board = board.add(Board.load(folder))
    with start_run("stage1", "embeddings", "leaderboard", replace(config, runs=",".join(map(str, folders)))) as run:
        summary = summarise(board)
        write_views(summary, run.dir)
        run.figure("leaderboard.png", "quality against speed, and every task's scores")
        for name in ("leaderboard.md", "leaderboard.html"):
            run.artefact(name, kind="table")
    show(summary)
    for name in ("leaderboard.md", "leaderboard.html", "leaderboard.png"):
        console.print(f"  {run.dir / name}", markup=False, soft_wrap=True)
