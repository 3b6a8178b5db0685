"""What must not go wrong, made to go wrong: two writers, damaged files, a killed publisher.

Each drill works on a registry in a folder, with processes of its own where processes are the point, and counts. The
conformance suite asks the same of any registry; here it can be watched.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.interface import Damaged, Refused
from stage3_agents_llmops.registry.release import Draft, StoredFile
from stage3_agents_llmops.registry.unpack import manifest_text

REPOSITORY = Path(__file__).parents[2]
LAB = [sys.executable, "-m", "stage3_agents_llmops.registry"]


@dataclass(frozen=True)
class Race:
    """One round of several processes that wanted the same alias: exit codes, and what the losers were told."""

    wanted: tuple[int, ...]
    codes: tuple[int, ...]
    told: tuple[str, ...]
    version: int  # what the alias points at afterwards

    @property
    def one_won(self) -> bool:
        """Exactly one promoted, the alias is there, and every other was told so."""
        winners = [version for version, code in zip(self.wanted, self.codes, strict=True) if code == 0]
        return winners == [self.version] and len(self.told) == len(self.wanted) - 1 and all(
            "somebody was quicker" in line for line in self.told)  # fmt: skip


def race(folder: Path, alias: str, versions: Sequence[int], reason: str) -> Race:
    """Start a `promote --expected CURRENT` at once for every version that the alias does not point at.

    For the current one it would be no contest: to move it there changes nothing, so everybody's condition still holds.
    """
    registry = FileRegistry(folder)
    current = registry.aliases().get(alias)
    wanted = [version for version in versions if version != current][:2]
    words = [*LAB, "promote", "--registry", str(folder), "--alias", alias, "--expected",
             "none" if current is None else str(current), "--reason", reason]  # fmt: skip
    started = [subprocess.Popen([*words, "--version", str(version), "--actor", f"writer {place}"], cwd=REPOSITORY,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
               for place, version in enumerate(wanted, 1)]  # fmt: skip
    told = [process.communicate(timeout=60)[1] for process in started]
    codes = tuple(process.returncode for process in started)
    losers = tuple(text.splitlines()[0] for text, code in zip(told, codes, strict=True) if code and text)
    return Race(tuple(wanted), codes, losers, registry.aliases()[alias])


def flip_a_bit(path: Path) -> None:
    """Change one bit in the middle: the length stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    _overwrite(path, bytes(content))


def cut_off(path: Path) -> None:
    """Lose the second half."""
    content = path.read_bytes()
    _overwrite(path, content[: len(content) // 2])


def remove(path: Path) -> None:
    """Lose it."""
    path.unlink()


def _overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


@dataclass(frozen=True)
class Tampering:
    """What happened to a file, and what the registry did about it."""

    what: str
    found: bool  # `verify` names the file, and nothing else
    refused: bool  # `load` leaves no target behind
    healed: bool  # publishing the release again puts it right


def tamper(registry: FileRegistry, version: int, file: StoredFile, how: Callable[[Path], None], draft: Draft,
           scratch: Path) -> Tampering:  # fmt: skip
    """Damage a stored file, ask for the release, publish it again."""
    how(registry.store.path(file.sha256))
    found = [(each.version, each.path) for each in registry.verify(version)] == [(version, file.path)]
    target = scratch / f"{how.__name__}-{version}"
    try:
        registry.load(version, target)
        refused = False
    except Damaged:
        refused = not target.exists()
    again = registry.publish(draft).version
    return Tampering(how.__name__.replace("_", " "), found, refused, again == version and not registry.verify(version))


def rewrite_history(folder: Path, copy: Path, old: str, new: str) -> bool:
    """Edit one word of a copy's event log, as somebody with a text editor would; whether it is noticed."""
    shutil.copytree(folder, copy)
    log = copy / "events.jsonl"
    text = log.read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"the history does not say {old!r}")
    log.write_text(text.replace(old, new), encoding="utf-8")
    try:
        FileRegistry(copy).history()
    except Damaged:
        return True
    return False


class KilledPublishers:
    """Publishers that are killed, in a registry of their own.

    Args:
        folder: of that registry.
        parts: of the releases; the model is replaced by `payload`.
        payload: a large file, written anew for each of them, so that nothing is shared.

    Attributes:
        killed: publishers that were ended by the signal before they had a version.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Path], payload: Path) -> None:
        self.registry, self.payload, self.killed = FileRegistry(folder), payload, 0
        self._words = [*LAB, "publish", "--registry", str(folder), "--commit", "0" * 40]
        for part, place in {**parts, "model": payload}.items():
            self._words += [f"--{part}", str(place)]
        subprocess.run(self._words, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)

    def kill(self, shares: Sequence[float]) -> None:
        """Kill -9 a publisher each time that a share of the payload is on the disk."""
        size = self.payload.stat().st_size
        for share in shares:
            self.payload.write_bytes(os.urandom(size))
            before = len(self.registry.versions())
            process = subprocess.Popen(self._words, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
            while process.poll() is None and self._written(process.pid) <= share * size:
                time.sleep(0.002)
            process.kill()
            process.wait()
            self.killed += len(self.registry.versions()) == before

    def _written(self, pid: int) -> int:
        """Bytes that a process has in `incoming/`; its files bear its number."""
        sizes = [0]
        for path in self.registry.store.incoming.glob(f"{pid}-*"):
            with suppress(FileNotFoundError):  # renamed in between: it is done
                sizes.append(path.stat().st_size)
        return max(sizes)

    def half(self) -> int:
        """Versions that are not whole: must be 0."""
        return len({problem.version for problem in self.registry.verify()})

    def collect(self) -> tuple[int, int]:
        """Bytes that the killed ones had left and gc took; bytes on the disk after it that belong to no version."""
        releases = self.registry.versions()
        gone = self.registry.collect_garbage(keep=len(releases))
        owned = {file.sha256: file.bytes for release in releases for file in release.manifest.files}
        manifests = sum(len(manifest_text(release.manifest).encode()) for release in releases)
        folders = (self.registry.store.objects, self.registry.store.incoming)
        stored = [path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()]
        return gone.bytes, sum(stored) - sum(owned.values()) - manifests


def rule_refuses(registry: FileRegistry, version: int) -> str:
    """Promote what was never evaluated; the registry's words, empty if it did not mind."""
    try:
        registry.set_alias("champion", version)
    except Refused as error:
        return error.message
    return ""
