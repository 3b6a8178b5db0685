"""The table: scores by task type, intervals, ties with the best, speed; as data that later runs can add to.

`Board` holds what `evaluate` measured and is saved beside its report; `summarise` turns it into rows. How the rows
look on a terminal, in Markdown, in HTML and as a plot is in leaderboard_views.py.
"""

import json
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from labkit.errors import LabError
from labkit.files import atomic_path, write_json
from stage1_foundations.embeddings.bootstrap import Items, interval, replicate_scores, tied_with_best
from stage1_foundations.embeddings.model_registry import seen
from stage1_foundations.embeddings.published import published_score

TYPES = ["Retrieval", "STS", "Classification", "Clustering", "BitextMining"]
EVALUATE = "python -m stage1_foundations.embeddings evaluate"


@dataclass(frozen=True)
class TaskRow:
    """One task: mteb's name (with its sample), its type and languages, and how many items it has."""

    name: str
    type: str
    languages: str
    items: int

    @property
    def short(self) -> str:
        """The name without the sample's size."""
        return self.name.split(".")[0]


@dataclass(frozen=True)
class ModelRow:
    """One model.

    Attributes:
        passages_per_second: None where it was not measured.
        note: what is special.
        trained_on: names of its training data; None where nobody says.
    """

    name: str
    dimensions: int | None
    passages_per_second: float | None
    note: str = ""
    trained_on: list[str] | None = field(default_factory=list)


@dataclass
class Board:
    """Everything that was measured."""

    preset: str
    tasks: list[TaskRow] = field(default_factory=list)
    models: list[ModelRow] = field(default_factory=list)
    scores: dict[tuple[str, str], float] = field(default_factory=dict)  # (model, task)
    items: dict[tuple[str, str], Items] = field(default_factory=dict)

    def save(self, folder: Path) -> list[Path]:
        """Write board.json and items.npz; returns their paths."""
        content = {
            "preset": self.preset,
            "tasks": [asdict(task) for task in self.tasks],
            "models": [asdict(model) for model in self.models],
            "scores": [[*key, score] for key, score in self.scores.items()],
            "kinds": [[*key, items.kind] for key, items in self.items.items()],
        }
        arrays = {}
        for (model, task), items in self.items.items():
            parts = {"values": items.values, "gold": items.gold, "sides": items.sides}
            arrays |= {f"{model}|{task}|{part}": value for part, value in parts.items() if value is not None}
        with atomic_path(folder / "items.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        write_json(folder / "board.json", content)
        return [folder / "board.json", folder / "items.npz"]

    @classmethod
    def load(cls, folder: Path) -> "Board":
        """Read what `save` wrote.

        Raises:
            LabError: there is no board, or it is damaged.
        """
        try:
            content = json.loads((folder / "board.json").read_text(encoding="utf-8"))
            with np.load(folder / "items.npz", allow_pickle=False) as stored:
                arrays = dict(stored)
            items = {
                (model, task): Items(kind, arrays[f"{model}|{task}|values"], arrays.get(f"{model}|{task}|gold"),
                                     arrays.get(f"{model}|{task}|sides"))
                for model, task, kind in content["kinds"]
            }  # fmt: skip
            return cls(
                content["preset"], [TaskRow(**row) for row in content["tasks"]],
                [ModelRow(**row) for row in content["models"]],
                {(model, task): score for model, task, score in content["scores"]}, items,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise LabError(f"no results in {folder}", EVALUATE) from error
        except (ValueError, KeyError, TypeError, OSError, BadZipFile, zlib.error) as error:
            raise LabError(f"the results in {folder} are damaged: {error}", EVALUATE) from error

    def add(self, other: "Board") -> "Board":
        """This board with another one's models in place of its own of the same name, and with its tasks.

        Raises:
            LabError: the two measured different samples of a task.
        """
        mine = {task.short: task.name for task in self.tasks}
        for task in other.tasks:
            if mine.get(task.short, task.name) != task.name:
                raise LabError(
                    f"{task.name} and {mine[task.short]} are different samples: their scores do not compare",
                    f"{EVALUATE} with one --preset for both",
                )
        tasks = self.tasks + [task for task in other.tasks if task.name not in mine.values()]
        models = {model.name: model for model in self.models} | {model.name: model for model in other.models}
        return replace(self, tasks=tasks, models=list(models.values()), scores=self.scores | other.scores,
                       items=self.items | other.items)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One number of the table with its 95 % interval.

    Attributes:
        tied: not distinguishable from the best of its column.
        seen: which of the model's training data are of the task's source.
    """

    score: float
    low: float
    high: float
    tied: bool = False
    seen: str = ""
    published: float | None = None


@dataclass(frozen=True)
class Summary:
    """The rows, best first: by the mean over the task types that the model can do at all."""

    board: Board
    cells: dict[tuple[str, str], Entry]  # (model, task)
    means: dict[tuple[str, str], Entry]  # (model, task type), and (model, "mean") where it did every type
    order: list[str]


def summarise(board: Board) -> Summary:
    """Intervals and ties of every column, and means by task type.

    A type's mean weighs its tasks equally; the interval of the mean comes from resampling every task by itself.
    """
    draws: dict[tuple[str, str], np.ndarray] = {}
    trained_on = {model.name: model.trained_on or [] for model in board.models}
    cells: dict[tuple[str, str], Entry] = {}
    for task in board.tasks:
        seed = zlib.crc32(task.name.encode())  # the same draws for all models, others for every task
        here = [model.name for model in board.models if (model.name, task.name) in board.scores]
        for model in here:
            draws[model, task.name] = replicate_scores(board.items[model, task.name], seed=seed)
        scores = {model: board.scores[model, task.name] for model in here}
        tied = tied_with_best({model: draws[model, task.name] for model in here}, scores) if here else set()
        for model in here:
            cells[model, task.name] = Entry(
                scores[model], *interval(draws[model, task.name]), model in tied,
                seen(trained_on[model], task.short), published_score(model, task.name),
            )  # fmt: skip
    means = _means(board, draws)
    return Summary(board, cells, means, _order(board, means))


def _means(board: Board, draws: dict[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], Entry]:
    """Means by type and over types, where a model did all that they need."""
    types = [kind for kind in TYPES if any(task.type == kind for task in board.tasks)]
    scores: dict[tuple[str, str], float] = {}
    for kind in types:
        names = [task.name for task in board.tasks if task.type == kind]
        for model in (row.name for row in board.models):
            if all((model, name) in draws for name in names):
                scores[model, kind] = float(np.mean([board.scores[model, name] for name in names]))
                draws[model, kind] = np.mean([draws[model, name] for name in names], axis=0)
    for model in (row.name for row in board.models):
        if len(types) > 1 and all((model, kind) in scores for kind in types):
            scores[model, "mean"] = float(np.mean([scores[model, kind] for kind in types]))
            draws[model, "mean"] = np.mean([draws[model, kind] for kind in types], axis=0)
    means = {}
    for kind in [*types, "mean"]:
        here = [model for model, column in scores if column == kind]
        column = {model: scores[model, kind] for model in here}
        tied = tied_with_best({model: draws[model, kind] for model in here}, column) if here else set()
        means |= {(m, kind): Entry(column[m], *interval(draws[m, kind]), m in tied) for m in here}
    return means


def _order(board: Board, means: dict[tuple[str, str], Entry]) -> list[str]:
    """Models by their overall mean; those without one (BM25) by their retrieval mean among the others'."""
    names = [model.name for model in board.models]

    def key(model: str) -> float:
        for column in ("mean", *TYPES):
            if (model, column) in means:
                return means[model, column].score
        return -1.0

    complete = sorted((name for name in names if (name, "mean") in means), key=key, reverse=True)
    for name in sorted(set(names) - set(complete), key=key, reverse=True):
        score = means[name, "Retrieval"].score if (name, "Retrieval") in means else -1.0
        below = [row for row, other in enumerate(complete)
                 if (other, "Retrieval") in means and means[other, "Retrieval"].score < score]  # fmt: skip
        complete.insert(min(below) if below else len(complete), name)
    return complete
