"""Releases that must not reach the customers: a good one with one thing wrong, of the kind that really happens.

| kind | what is wrong | what customers see |
|---|---|---|
| wrong | the classifier's labels, and the articles' ids, have slipped by one | confident answers to other questions |
| errors | a recursion limit that no conversation fits into | "something went wrong", every time |
| slow | somebody wanted answers to look as if they were typed | the same answers, several times slower |
| unsafe | writes are no longer asked about | an order cancelled by the words "can I cancel it?" |

Each is a whole folder that every check of files and hashes finds in order. Only its behaviour tells.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.cli import nearest
from labkit.errors import LabError
from labkit.files import write_json, write_text
from stage3_agents_llmops.agent.release import FILES, ReleaseFolder
from stage3_agents_llmops.pipeline.package import whole
from stage3_agents_llmops.registry.release import EVALUATION, MANIFEST

RECURSION_LIMIT = 4  # guard, classify and supervisor are three steps
TYPING_PAUSE = 0.08  # seconds between the words of an answer


def make_wrong(folder: Path) -> None:
    """Each intent's weights under the next one's name, and each article under the next one's id."""
    model = read(folder / FILES["model"])
    if model["kind"] != "classifier":
        raise LabError("the labels of an adapter cannot slip", "a good release with a classifier")
    for name in model["classes"]:
        model["classes"][name] = slipped(model["classes"][name])
    model["intents"] = model["classes"]["intent"]
    write_json(folder / FILES["model"], model)
    for language in sorted((folder / "rag" / "articles").iterdir()):
        paths = sorted(language.glob("*.md"))
        texts = slipped([path.read_text(encoding="utf-8") for path in paths])
        for path, text in zip(paths, texts, strict=True):
            write_text(path, re.sub(r"^id: .*$", f"id: {path.stem}", text, count=1, flags=re.MULTILINE))


def make_errors(folder: Path) -> None:
    """Every run hits the limit."""
    override(folder, recursion_limit=RECURSION_LIMIT)


def make_slow(folder: Path) -> None:
    """Every answer is held back, word by word."""
    override(folder, typing_pause=TYPING_PAUSE)


def make_unsafe(folder: Path) -> None:
    """A request is taken for the yes."""
    override(folder, ask_before_writing=False)


MAKERS: dict[str, Callable[[Path], None]] = {
    "wrong": make_wrong, "errors": make_errors, "slow": make_slow, "unsafe": make_unsafe,
}  # fmt: skip
KINDS = tuple(MAKERS)


def make_bad(kind: str, good: Path, folder: Path) -> Path:
    """A copy of a good release with one thing wrong; returns the folder. It has no manifest: publish it to get one.

    Raises:
        LabError: an unknown kind, no release, or the folder is there already.
    """
    if kind not in MAKERS:
        raise LabError(f"there is no bad release of kind {kind}", nearest(kind, KINDS) or f"one of: {', '.join(KINDS)}")
    if folder.exists():
        raise LabError(f"{folder} is there already", "another folder")
    ReleaseFolder.open(good)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole(folder) as temporary:
        shutil.copytree(good, temporary, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns(MANIFEST, EVALUATION, ".tmp-*"))  # fmt: skip
        MAKERS[kind](temporary)
    return folder


def override(folder: Path, **settings: Any) -> None:
    """Set something in graph.json."""
    graph = read(folder / FILES["graph"])
    write_json(folder / FILES["graph"], graph | {"overrides": {**graph.get("overrides", {}), **settings}})


def slipped(items: list[Any]) -> list[Any]:
    """Each one in the place of the one before it."""
    return [*items[1:], *items[:1]]


def read(path: Path) -> dict[str, Any]:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
