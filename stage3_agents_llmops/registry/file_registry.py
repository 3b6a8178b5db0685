"""The course's own registry, in a folder: content-addressed files, and one event log that says what they mean.

    objects/   every file and every manifest, under its SHA-256       (content_store.py)
    events.jsonl, events.head   published, alias, rollback, collected (event_log.py)
    lock       held while an event is appended, and for nothing else

The log is the truth; all the rest can be dropped and is derived from it (`State`). Publishing writes files that nobody
points at, then appends one line. That line is the moment when a version begins to exist, so there is no half version.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit.errors import LabError
from labkit.files import write_text
from stage3_agents_llmops.registry.content_store import ContentStore
from stage3_agents_llmops.registry.event_log import Event, EventLog
from stage3_agents_llmops.registry.interface import (
    ANY,
    CAPABILITIES,
    PROG,
    AliasChange,
    Collected,
    Locked,
    Problem,
    Refused,
    Unknown,
    check_alias,
    check_expected,
    check_promotion,
    parse_ref,
    protected,
    rollback_target,
)
from stage3_agents_llmops.registry.release import (
    Draft,
    Manifest,
    Release,
    StoredFile,
    describe,
    parse_manifest,
    sources,
)
from stage3_agents_llmops.registry.unpack import manifest_text, unpacked

PATIENCE = 10.0  # seconds to wait for the lock
OURS = {"objects", "incoming", "events.jsonl", "events.head", "lock", "lock.owner"}


@dataclass
class State:
    """What the events add up to."""

    manifests: dict[int, tuple[str, str]] = field(default_factory=dict)  # version -> manifest's SHA-256, time
    collected: dict[int, str] = field(default_factory=dict)  # version -> time
    aliases: dict[str, int] = field(default_factory=dict)
    changes: list[AliasChange] = field(default_factory=list)

    @property
    def next_version(self) -> int:
        """Numbers of collected versions are not used again."""
        return max([0, *self.manifests, *self.collected]) + 1


def replay(events: Iterable[Event]) -> State:
    """Fold the log into the state that it leads to."""
    state = State()
    for event in events:
        if event.kind == "published":
            state.manifests[event.data["version"]] = event.data["manifest"], event.time
        elif event.kind == "collected":
            for version in event.data["versions"]:
                state.manifests.pop(version, None)
                state.collected[version] = event.time
        else:
            state.changes.append(AliasChange(event.number, kind=event.kind, time=event.time, **event.data))
            state.aliases[event.data["alias"]] = event.data["version"]
    return state


# exercise: registry.reachable
def reachable(manifests: dict[str, Manifest]) -> set[str]:
    """Hashes of all objects that must stay: the manifests themselves and every file that one of them lists.

    Args:
        manifests: SHA-256 of a manifest's object -> the manifest, for every version that is kept.
    """
    return set(manifests) | {file.sha256 for manifest in manifests.values() for file in manifest.files}
# end exercise


class FileRegistry:
    """A registry in a folder (interface.Registry). Any number of processes may use it; none stays open.

    Args:
        name: the service whose releases these are.
        patience: seconds to wait for another process that is writing.
    """

    capabilities = frozenset(CAPABILITIES)

    def __init__(self, folder: Path | str, name: str = "customer-service", patience: float = PATIENCE) -> None:
        self.folder = Path(folder).absolute()
        self.name = name
        self.store = ContentStore(self.folder)
        self.log = EventLog(self.folder / "events.jsonl")
        self._patience = patience

    @staticmethod
    def check_folder(folder: Path) -> None:
        """Refuse a folder with something else in it: a registry would spread its files among somebody's own.

        Raises:
            LabError: it is a file, or holds what no registry has made.
        """
        advice = "--registry with the folder of a registry, or with one that does not exist yet"
        if folder.exists() and not folder.is_dir():
            raise LabError(f"{folder} is a file, not the folder of a registry", advice)
        if folder.is_dir() and not (folder / "events.jsonl").exists():
            strange = [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".tmp-")
                       and path.name not in OURS]  # fmt: skip
            if strange:
                raise LabError(f"{folder} is no registry: it holds {strange[0]}", advice)

    def publish(self, draft: Draft) -> Release:
        """See `Registry.publish`. The files are written without the lock: a rollback never waits for an upload."""
        files = sources(draft)
        stored = [self.store.add(path, source) for path, source in files.items()]
        manifest = describe(self.name, draft, stored)
        content = manifest_text(manifest).encode()
        key = self.store.add_bytes(content)
        with self._locked():
            state = self._state()
            self._check_name(state)
            for version, (known, _) in state.manifests.items():
                if known == key:
                    return self._release(version, state)
            for file in stored:  # a collection that ran in between took them for garbage
                if not self.store.present(file) and self.store.add(file.path, files[file.path]) != file:
                    raise LabError(f"{files[file.path]} changed while it was being published", "publish again")
            self.store.add_bytes(content)
            version = state.next_version
            event = self.log.append("published", {"version": version, "manifest": key, "release": manifest.sha256})
        return Release(version, manifest, manifest.sha256, event.time)

    def versions(self) -> list[Release]:
        """See `Registry.versions`."""
        state = self._state()
        return [self._release(version, state) for version in sorted(state.manifests)]

    def get(self, ref: int | str) -> Release:
        """See `Registry.get`."""
        return self._find(ref, self._state())

    def load(self, ref: int | str, target: Path) -> Path:
        """See `Registry.load`."""
        release = self.get(ref)
        with unpacked(release, Path(target)) as folder:
            for file in release.manifest.files if folder else ():
                self.store.copy_to(file, folder / file.path)
        return Path(target)

    def aliases(self) -> dict[str, int]:
        """See `Registry.aliases`."""
        return dict(sorted(self._state().aliases.items()))

    def set_alias(
        self, alias: str, version: int, *, expected: Any = ANY, actor: str = "", reason: str = ""
    ) -> AliasChange:
        """See `Registry.set_alias`."""
        check_alias(alias)
        with self._locked():
            state = self._state()
            check_expected(alias, state.aliases.get(alias), expected)
            release = self._find(version, state)
            check_promotion(release, alias)
            return self._move("set", alias, release, state, actor, reason)

    def rollback(self, alias: str, *, expected: Any = ANY, actor: str = "", reason: str = "") -> AliasChange:
        """See `Registry.rollback`."""
        with self._locked():
            state = self._state()
            if alias not in state.aliases:
                raise self._unknown(alias, state)
            check_expected(alias, state.aliases[alias], expected)
            target = rollback_target([change for change in state.changes if change.alias == alias])
            if target is None:
                raise Refused(f"{alias} was never anything but version {state.aliases[alias]}", f"{PROG} history")
            return self._move("rollback", alias, self._find(target, state), state, actor, reason)

    def history(self, alias: str | None = None) -> list[AliasChange]:
        """See `Registry.history`."""
        return [change for change in self._state().changes if alias in (None, change.alias)]

    def verify(self, ref: int | str | None = None) -> list[Problem]:
        """See `Registry.verify`. A file that several releases share is hashed once."""
        releases = self.versions() if ref is None else [self.get(ref)]
        verdicts: dict[StoredFile, str] = {}
        problems = []
        for release in releases:
            for file in release.manifest.files:
                key = StoredFile("", file.sha256, file.bytes)
                if key not in verdicts:
                    verdicts[key] = self._verdict(file)
                if verdicts[key]:
                    problems.append(Problem(release.version, file.path, verdicts[key]))
        return problems

    def collect_garbage(self, keep: int = 3, dry_run: bool = False) -> Collected:
        """See `Registry.collect_garbage`. The versions are struck off in the log first, then their files go."""
        with self._locked():
            state = self._state()
            kept = set(sorted(state.manifests)[-max(keep, 1) :]) | protected(state.changes, state.aliases)
            going = tuple(sorted(set(state.manifests) - kept))
            manifests = {state.manifests[version][0]: self._release(version, state).manifest
                         for version in state.manifests if version in kept}  # fmt: skip
            live = reachable(manifests)
            dead = [place for sha256, place in self.store.stored() if sha256 not in live] + self.store.orphans()
            collected = Collected(going, len(dead), sum(place.stat().st_size for place in dead))
            if not dry_run:
                if going:
                    self.log.append("collected", {"versions": list(going)})
                for place in dead:
                    place.unlink(missing_ok=True)
        return collected

    def _move(self, kind: str, alias: str, release: Release, state: State, actor: str, reason: str) -> AliasChange:
        """Append a move of an alias; only to a version whose files are there."""
        lost = [file.path for file in release.manifest.files if not self.store.present(file)]
        if lost:
            raise Refused(f"version {release.version} is damaged: {lost[0]} is missing or truncated",
                          f"{PROG} verify --ref {release.version}")  # fmt: skip
        data = {"alias": alias, "version": release.version, "previous": state.aliases.get(alias), "actor": actor,
                "reason": reason}  # fmt: skip
        event = self.log.append(kind, data)
        return AliasChange(event.number, kind=event.kind, time=event.time, **data)

    def _check_name(self, state: State) -> None:
        """One folder, one service: two would share the numbers of their versions, and the alias of one another."""
        newest = max(state.manifests, default=None)
        if newest is not None and (there := self._release(newest, state).manifest.name) != self.name:
            raise Refused(f"the registry {self.folder} has the releases of {there}, not of {self.name}",
                          f"--name {there}, or another --registry")  # fmt: skip

    def _state(self) -> State:
        return replay(self.log.read())

    def _find(self, ref: int | str, state: State) -> Release:
        ref = parse_ref(ref)
        version = state.aliases.get(ref) if isinstance(ref, str) else ref
        if version in state.manifests:
            return self._release(version, state)
        if version in state.collected:
            raise Refused(f"version {version} was removed by garbage collection", f"{PROG} list")
        raise self._unknown(ref, state)

    def _release(self, version: int, state: State) -> Release:
        key, published = state.manifests[version]
        content = self.store.read_bytes(key, f"the manifest of version {version}")
        manifest = parse_manifest(content, f"the manifest of version {version}")
        return Release(version, manifest, manifest.sha256, published)

    def _unknown(self, ref: int | str, state: State) -> Unknown:
        what = f"version {ref}" if isinstance(ref, int) else f"alias {ref}"
        known = [*map(str, sorted(state.manifests)), *state.aliases]
        return Unknown(f"the registry has no {what}", f"one of: {', '.join(known)}" if known else f"{PROG} publish")

    def _verdict(self, file: StoredFile) -> str:
        if not self.store.path(file.sha256).is_file():
            return "missing"
        if not self.store.present(file):
            return "truncated"
        return "" if self.store.intact(file.sha256) else "changed"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time. The system frees the lock of a process that was killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock, owner = FileLock(self.folder / "lock"), self.folder / "lock.owner"
        try:
            lock.acquire(timeout=self._patience, poll_interval=0.01)
        except Timeout:
            holder = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "another process"
            raise Locked(f"the registry {self.folder} is locked by {holder}, after {self._patience:g} s of waiting",
                         "the same command again, or end that process") from None  # fmt: skip
        try:
            write_text(owner, f"process {os.getpid()} since {time.strftime('%H:%M:%S')}\n")
            yield
        finally:
            lock.release()
