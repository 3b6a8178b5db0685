"""A loaded release on the disk: it appears whole or not at all, and says itself what it must contain."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import LabError
from labkit.files import sha256_file, write_text
from stage3_agents_llmops.registry.interface import Damaged, Problem
from stage3_agents_llmops.registry.release import MANIFEST, Manifest, Release, parse_manifest


@contextmanager
def unpacked(release: Release, target: Path) -> Iterator[Path | None]:
    """Yield a temporary folder to fill, which becomes `target`; None where `target` holds the release already.

    Raises:
        Damaged: `target` holds the release, but not as it was published.
        LabError: `target` holds something else.
    """
    if target.exists() and (target.is_file() or any(target.iterdir())):
        if not (target / MANIFEST).is_file() or read_manifest(target).sha256 != release.sha256:
            raise LabError(f"{target} holds something else", "--target with a folder that does not exist yet")
        require_intact(target, release.manifest)
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}")
    try:
        temporary.mkdir()
        yield temporary
        write_manifest(release.manifest, temporary)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write a release's manifest into its folder."""
    return write_text(folder / MANIFEST, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """A manifest as it lies on the disk, in every kind of registry."""
    return json.dumps(manifest.as_dict(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a release's folder.

    Raises:
        LabError: there is none, or it is not one.
    """
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    except FileNotFoundError:
        message = f"{folder} is no release: it has no {MANIFEST}"
        raise LabError(message, "the folder that `load` or `pull` wrote") from None


def differences(folder: Path, manifest: Manifest, version: int = 0) -> list[Problem]:
    """Every file of a folder that is not what the manifest says."""
    problems = []
    for file in manifest.files:
        place = folder / file.path
        if not place.is_file():
            problems.append(Problem(version, file.path, "missing"))
        elif place.stat().st_size != file.bytes:
            problems.append(Problem(version, file.path, "truncated" if place.stat().st_size < file.bytes else "longer"))
        elif sha256_file(place) != file.sha256:
            problems.append(Problem(version, file.path, "changed"))
    return problems


def require_intact(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder that is not what the manifest says.

    Raises:
        Damaged: the first file that differs.
    """
    for problem in differences(folder, manifest):
        raise Damaged(f"{folder / problem.path} is {problem.what}, compared with what was published",
                      "remove the folder and load the release again")  # fmt: skip
