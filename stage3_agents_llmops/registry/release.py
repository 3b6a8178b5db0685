"""What is versioned: not a model but a *release*, the model, the RAG and the prompt with its graph, in one manifest.

A customer gets an answer from all three. Versioned apart, "go back to yesterday" is three decisions, and two of them
are forgotten. The manifest lists every file with its SHA-256 and says where the release comes from; its own SHA-256
therefore names all of its content, on this machine and on any other.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from labkit.errors import LabError
from labkit.files import sha256_file

PARTS = ("model", "rag", "graph")  # tuned checkpoint or adapter; settings and index; prompts and agent graph
EVALUATION = "evaluation.json"
MANIFEST = "release.json"
SCHEMA = 1


@dataclass(frozen=True)
class StoredFile:
    """A file of a release: POSIX path below the release's folder, content hash, size in bytes."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Lineage:
    """Where a release comes from.

    Args:
        data: name of each training set -> its SHA-256.
        commit: git commit of the code.
        run: folder of the training run, relative to runs/.
        evaluation: SHA-256 of the evaluation report, which is a file of the release; None: never evaluated.
        parent: SHA-256 of the manifest of the release that this one is to replace.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    run: str | None = None
    evaluation: str | None = None
    parent: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The content of a release and its origin. Equal content has an equal `sha256`, whoever publishes it and when."""

    name: str
    files: tuple[StoredFile, ...]
    lineage: Lineage = Lineage()
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """Names the release by its content."""
        return manifest_sha256(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"schema": SCHEMA, **asdict(self), "files": [asdict(file) for file in self.files]}

    def part_sha256(self, part: str) -> str:
        """One hash for all files of a part, to tell which part changed between two releases."""
        return manifest_sha256({"files": [asdict(file) for file in self.files if file.path.startswith(f"{part}/")]})


@dataclass(frozen=True)
class Release:
    """A manifest that a registry has accepted, and the number that it got there."""

    version: int
    manifest: Manifest
    sha256: str
    published: str


@dataclass(frozen=True)
class Draft:
    """What to publish: a file or folder for each part, and where it comes from.

    Args:
        evaluation: the report of the evaluation, a JSON file; its SHA-256 goes into the lineage.
        metrics: a few figures to show in lists; those of a labkit report are read by `read_metrics`.
    """

    parts: Mapping[str, Path]
    lineage: Lineage = Lineage()
    evaluation: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


# exercise: registry.manifest_sha256
def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 in hexadecimal of a manifest given as plain JSON values, the same on every machine.

    The order in which files and keys were found must not matter: `files` is sorted by path, keys by name, and there is
    one way to write the rest (no spaces, UTF-8 without \\u escapes). `manifest` itself is left as it was.

    Raises:
        ValueError: NaN or infinity, for which JSON has no word.
    """
    files = sorted(manifest.get("files", ()), key=lambda file: file["path"])
    plain = dict(manifest, files=files)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
# end exercise


def sources(draft: Draft) -> dict[str, Path]:
    """Path in the release -> file on the disk, for every file of a draft.

    Raises:
        LabError: a part is missing, unknown, not there or empty; the evaluation is not there.
    """
    unknown = sorted(set(draft.parts) - set(PARTS))
    missing = [part for part in PARTS if part not in draft.parts]
    if unknown or missing:
        wrong = f"no part called {unknown[0]}" if unknown else f"no {missing[0]}"
        raise LabError(f"a release has {wrong}" if unknown else f"a release without a part: {wrong}",
                       f"one file or folder each for {', '.join(PARTS)}")  # fmt: skip
    found = {}
    for part, place in draft.parts.items():
        found |= {f"{part}/{path}": file for path, file in _files_of(part, Path(place)).items()}
    if draft.evaluation is not None:
        _read_json(draft.evaluation)
        found[EVALUATION] = Path(draft.evaluation)
    return dict(sorted(found.items()))


def describe(name: str, draft: Draft, files: Iterable[StoredFile]) -> Manifest:
    """The manifest of a draft whose files are known.

    Raises:
        LabError: a figure that is no number.
    """
    files = tuple(sorted(files, key=lambda file: file.path))
    report = next((file.sha256 for file in files if file.path == EVALUATION), None)
    for metric, value in draft.metrics.items():
        if not math.isfinite(value):
            raise LabError(f"the metric {metric} of the release is {value}", "leave it out, or evaluate again")
    metrics = {metric: float(value) for metric, value in draft.metrics.items()}
    lineage = Lineage(**{**asdict(draft.lineage), "evaluation": report})
    return Manifest(name, files, lineage, metrics, draft.note)


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """A manifest from JSON, as `as_dict` writes it.

    Raises:
        LabError: something else, or a path that leads out of the release's folder.
    """
    try:
        plain = json.loads(text)
        if plain.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        files = tuple(StoredFile(**file) for file in plain.pop("files"))
        manifest = Manifest(files=files, lineage=Lineage(**plain.pop("lineage")), **plain)
        for file in files:
            check_path(file.path)
            if len(bytes.fromhex(file.sha256)) != 32 or file.bytes < 0:
                raise ValueError(f"{file.path} has no SHA-256")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabError(f"{where} is no manifest of a release: {error}", "publish the release again") from None
    return manifest


def check_path(path: str) -> None:
    """Refuse what does not stay below the folder that a release is unpacked to.

    Raises:
        ValueError: absolute, `..`, a drive or an empty component.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or str(pure) != path or path == ".":
        raise ValueError(f"the path {path!r} does not stay in the release's folder")


def read_metrics(report: Path) -> dict[str, float]:
    """The figures of an evaluation report: labkit's `metrics` (name -> value with unit), or plain numbers.

    Raises:
        LabError: no report.
    """
    metrics = _read_json(report).get("metrics", {})
    values = {name: each.get("value") if isinstance(each, dict) else each for name, each in metrics.items()}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def stored_file(path: str, file: Path) -> StoredFile:
    """Hash and size of a file as it is now."""
    return StoredFile(path, sha256_file(file), file.stat().st_size)


def _files_of(part: str, place: Path) -> dict[str, Path]:
    if place.is_file():
        return {place.name: place}
    if not place.is_dir():
        raise LabError(f"there is no {place} for the part {part}", f"--{part} FILE-OR-FOLDER")
    files = (file for file in sorted(place.rglob("*")) if file.is_file() and not file.name.startswith(".tmp-"))
    found = {file.relative_to(place).as_posix(): file for file in files}
    if not found:
        raise LabError(f"{place} is empty: nothing for the part {part}", f"--{part} FILE-OR-FOLDER")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    advice = "the report.json of an evaluation"
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"there is no evaluation report at {path}", advice) from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise LabError(f"{path} is no evaluation report: not JSON", advice)
    return value
