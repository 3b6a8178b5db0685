"""What changed between two releases: which part, which file, which figure, which origin.

    compare_releases(old, new).changed_parts     ("graph",): the same model and retrieval, another wording

The question before every promotion, and after every bad night. Only manifests are read: content that is equal has an
equal SHA-256, so nothing is downloaded.
"""

from dataclasses import asdict, dataclass

from stage3_agents_llmops.registry.release import PARTS, Manifest, Release, StoredFile


@dataclass(frozen=True)
class FileChange:
    """One file: `old` None where it is new, `new` None where it is gone."""

    path: str
    old: StoredFile | None
    new: StoredFile | None

    @property
    def what(self) -> str:
        """added, removed or changed."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"


@dataclass(frozen=True)
class Differences:
    """Two releases side by side.

    Attributes:
        changed_parts: those of model, rag and graph with another content.
        files: what differs, by path; the evaluation's report is among them.
        metrics: name -> (old, new), for every figure of either; None where one has none.
        lineage: name of the fact -> (old, new), where they differ.
        shared_bytes: of the new release's files, what the old one has as well.
    """

    changed_parts: tuple[str, ...]
    files: tuple[FileChange, ...]
    metrics: dict[str, tuple[float | None, float | None]]
    lineage: dict[str, tuple[str | None, str | None]]
    shared_bytes: int


def compare_releases(old: Release, new: Release) -> Differences:
    """What differs from `old` to `new`."""
    before, after = old.manifest, new.manifest
    mine, theirs = ({file.path: file for file in manifest.files} for manifest in (before, after))
    files = [FileChange(path, mine.get(path), theirs.get(path)) for path in sorted(mine.keys() | theirs.keys())
             if mine.get(path) != theirs.get(path)]  # fmt: skip
    figures = sorted({*before.metrics, *after.metrics})
    known = {file.sha256 for file in before.files}
    return Differences(
        tuple(part for part in PARTS if before.part_sha256(part) != after.part_sha256(part)),
        tuple(files),
        {name: (before.metrics.get(name), after.metrics.get(name)) for name in figures},
        _lineage(before, after),
        sum(file.bytes for file in after.files if file.sha256 in known),
    )


def _lineage(before: Manifest, after: Manifest) -> dict[str, tuple[str | None, str | None]]:
    """Facts that differ; every data set is a fact of its own."""

    def facts(manifest: Manifest) -> dict[str, str | None]:
        plain = asdict(manifest.lineage)
        data = {f"data {name}": sha256 for name, sha256 in plain.pop("data").items()}
        return {"note": manifest.note or None, **data, **plain}

    one, other = facts(before), facts(after)
    return {name: (one.get(name), other.get(name)) for name in dict.fromkeys([*one, *other])
            if one.get(name) != other.get(name)}  # fmt: skip
