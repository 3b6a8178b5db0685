"""The commands about releases: publish, list, show, diff, load, verify, gc."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from labkit.cli import option, require_at_least
from labkit.environment import git_state
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import shown
from labkit.timing import human_size
from stage3_agents_llmops.registry.common_options import RegistryOptions, opened, opened_or_new
from stage3_agents_llmops.registry.differences import compare_releases
from stage3_agents_llmops.registry.interface import CHAMPION, PROG, Registry
from stage3_agents_llmops.registry.release import EVALUATION, PARTS, Draft, Lineage, Release, read_metrics

LISTED = 3  # metrics of a release that `list` has room for


@dataclass(frozen=True)
class PublishConfig(RegistryOptions):
    """The parts, and where they come from."""

    release: Path | None = option(None, "a folder with model/, rag/, graph/ and, if there is one, evaluation.json")
    model: Path | None = option(None, "file or folder: the tuned checkpoint or adapter")
    rag: Path | None = option(None, "file or folder: settings and index of the retrieval")
    graph: Path | None = option(None, "file or folder: prompts and agent graph")
    evaluation: Path | None = option(None, "report.json of the evaluation; without it, it cannot become champion")
    data: str = option("", "what it was trained on: NAME=SHA256,NAME=SHA256")
    commit: str | None = option(None, "git commit of the code; none is the one that is checked out")
    run: str | None = option(None, "folder of the training run, relative to runs/")
    parent: str | None = option(None, "version or alias of the release that it is to replace")
    note: str = option("", "one line for people")


@dataclass(frozen=True)
class ListConfig(RegistryOptions):
    """Which registry."""


@dataclass(frozen=True)
class ShowConfig(RegistryOptions):
    """Which release."""

    ref: str = option(CHAMPION, "a version or an alias")


@dataclass(frozen=True)
class DiffConfig(RegistryOptions):
    """Which two."""

    old: str = option(CHAMPION, "a version or an alias")
    new: str | None = option(None, "a version or an alias; none is the newest version")


@dataclass(frozen=True)
class LoadConfig(RegistryOptions):
    """What, and where to."""

    ref: str = option(CHAMPION, "a version or an alias")
    target: Path | None = option(None, "a folder that does not exist yet, or that holds this release already")


@dataclass(frozen=True)
class VerifyConfig(RegistryOptions):
    """What to hash."""

    ref: str | None = option(None, "a version or an alias; none is all of them")


@dataclass(frozen=True)
class GcConfig(RegistryOptions):
    """What may stay."""

    keep: int = option(3, "newest versions that stay, whatever points at them")
    dry_run: bool = option(False, "say it, and remove nothing")


def run_publish(config: PublishConfig, preset: str) -> None:
    """Store a release; prints its version."""
    registry = opened_or_new(config)
    known = {release.version for release in registry.versions()}
    release = registry.publish(draft_from(config, registry))
    files = [file for file in release.manifest.files if file.path != EVALUATION]
    word = "is there already as" if release.version in known else "is"
    console.print(f"release {release.sha256[:12]} {word} version {release.version}: {len(files)} files, "
                  f"{human_size(release.manifest.bytes)}, {_evaluated(release)}", soft_wrap=True)  # fmt: skip
    console.print(f"next: {PROG} promote --version {release.version} --alias challenger", markup=False, soft_wrap=True)


def draft_from(config: PublishConfig, registry: Registry) -> Draft:
    """The options as a draft.

    Raises:
        LabError: no part was given, a folder that is no release, data without a hash, an unknown parent.
    """
    parts = {part: place for part in PARTS if (place := getattr(config, part)) is not None}
    evaluation = config.evaluation
    if config.release is not None:
        if not config.release.is_dir():
            raise LabError(f"there is no release's folder {config.release}", f"one with {', '.join(PARTS)} in it")
        parts = {part: config.release / part for part in PARTS} | parts
        report = config.release / EVALUATION
        evaluation = evaluation or (report if report.is_file() else None)
    if not parts:
        raise LabError("publish what?", "--release FOLDER, or --model, --rag and --graph")
    parent = None if config.parent is None else registry.get(config.parent).sha256
    lineage = Lineage(read_data(config.data), config.commit or git_state()["commit"], config.run, None, parent)
    metrics = read_metrics(evaluation) if evaluation is not None else {}
    return Draft(parts, lineage, evaluation, metrics, config.note)


def read_data(text: str) -> dict[str, str]:
    """`NAME=SHA256,...` as a mapping.

    Raises:
        LabError: a name without a hash, or something that is none.
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, sha256 = part.partition("=")
        if len(sha256) != 64 or not all(letter in "0123456789abcdef" for letter in sha256):
            raise LabError(f"--data {part} has no SHA-256", f"--data {name}=<64 hexadecimal digits>: `sha256sum FILE`")
        found[name] = sha256
    return found


def run_list(config: ListConfig, preset: str) -> None:
    """All releases with their aliases."""
    registry = opened(config)
    releases, names = registry.versions(), aliases_of(registry)
    if not releases:
        console.print(f"no releases yet   (next: {PROG} publish, or demo)", markup=False, soft_wrap=True)
        return
    table = _table("version", "aliases", "release", "published (UTC)", "size", "note")
    for release in releases:
        note = release.manifest.note or ""
        if release.manifest.lineage.evaluation is None:
            note = f"{note} (not evaluated)".strip()
        published = release.published[:16].replace("T", " ")
        table.add_row(str(release.version), " ".join(names[release.version]), release.sha256[:12], published,
                      human_size(release.manifest.bytes), note)  # fmt: skip
    console.print(table)


def run_show(config: ShowConfig, preset: str) -> None:
    """One release: parts, files, figures, origin."""
    registry = opened(config)
    release = registry.get(config.ref)
    manifest, lineage = release.manifest, release.manifest.lineage
    facts = {"release": release.sha256, "version": release.version, "service": manifest.name,
             "published": release.published, "aliases": " ".join(aliases_of(registry)[release.version]),
             "note": manifest.note, "commit": lineage.commit, "run": lineage.run, "parent": lineage.parent,
             "evaluation": lineage.evaluation or "none: it cannot become champion"}  # fmt: skip
    facts |= {f"data {name}": sha256 for name, sha256 in lineage.data.items()}
    facts |= {name: f"{value:g}" for name, value in sorted(manifest.metrics.items())}
    for name, value in facts.items():
        if value not in (None, ""):
            console.print(f"{name:<12} {value}", markup=False, soft_wrap=True)
    table = _table("part", "SHA-256", "size", "file")
    for part in (*PARTS, ""):
        for file in manifest.files:
            if file.path.startswith(f"{part}/") if part else file.path == EVALUATION:
                table.add_row(part or "-", file.sha256[:12], human_size(file.bytes), file.path)
    console.print(table)


def run_diff(config: DiffConfig, preset: str) -> None:
    """What changed from one release to another."""
    registry = opened(config)
    old = registry.get(config.old)
    new = registry.get(config.new) if config.new is not None else registry.versions()[-1]
    found = compare_releases(old, new)
    console.print(f"version {old.version} ({old.sha256[:12]}) -> version {new.version} ({new.sha256[:12]})")
    table = _table("part", "", "files")
    for part in PARTS:
        count = sum(change.path.startswith(f"{part}/") for change in found.files)
        table.add_row(part, "changed" if part in found.changed_parts else "the same", str(count or ""))
    console.print(table)
    for change in found.files:
        sizes = " -> ".join(human_size(file.bytes) for file in (change.old, change.new) if file)
        console.print(f"{change.what:<8} {change.path}   {sizes}", markup=False, soft_wrap=True)
    for name, (before, after) in found.metrics.items():
        step = "" if None in (before, after) else f"   ({after - before:+.4g})"
        console.print(f"metric   {name}: {_figure(before)} -> {_figure(after)}{step}", markup=False, soft_wrap=True)
    for name, (before, after) in found.lineage.items():
        console.print(f"origin   {name}: {_short(before)} -> {_short(after)}", markup=False, soft_wrap=True)
    share = found.shared_bytes / max(1, new.manifest.bytes)
    console.print(f"{share:.0%} of version {new.version} is content that version {old.version} has as well")


def run_load(config: LoadConfig, preset: str) -> None:
    """Write a release's files, each one checked."""
    if config.target is None:
        raise LabError("where to?", "--target FOLDER, one that does not exist yet")
    registry = opened(config)
    release = registry.get(config.ref)
    folder = registry.load(release.version, config.target)
    what = f"version {release.version}, release {release.sha256[:12]}, {len(release.manifest.files)} files"
    console.print(f"{shown(folder.absolute())}: {what}, each as it was published", markup=False, soft_wrap=True)


def run_verify(config: VerifyConfig, preset: str) -> int:
    """Hash what is stored; exit code 2 where something is wrong."""
    registry = opened(config)
    releases = registry.versions() if config.ref is None else [registry.get(config.ref)]
    problems = registry.verify(config.ref)
    for problem in problems:
        console.print(f"version {problem.version}: {problem.path} is {problem.what}", markup=False, soft_wrap=True)
    if problems:
        console.print("next: publish the release again from its run: what is damaged is replaced")
        return 2
    size = human_size(sum(release.manifest.bytes for release in releases))
    console.print(f"{len(releases)} release{'s' * (len(releases) != 1)}, {size}: every file is as it was published")
    return 0


def run_gc(config: GcConfig, preset: str) -> None:
    """Remove old versions and what killed publishers left."""
    require_at_least(config, 1, "keep")
    gone = opened(config).collect_garbage(config.keep, config.dry_run)
    what = f"versions {', '.join(map(str, gone.versions))}" if gone.versions else "no version"
    verb = "would go" if config.dry_run else "removed"
    console.print(f"{verb}: {what}; {gone.files} files, {human_size(gone.bytes)}")


def aliases_of(registry: Registry) -> dict[int, list[str]]:
    """Version -> its aliases."""
    names: dict[int, list[str]] = defaultdict(list)
    for alias, version in registry.aliases().items():
        names[version].append(alias)
    return names


def _evaluated(release: Release) -> str:
    if release.manifest.lineage.evaluation is None:
        return "not evaluated"
    shown_ = [f"{name} {value:.4g}" for name, value in sorted(release.manifest.metrics.items())]
    more = f" and {len(shown_) - LISTED} more" if len(shown_) > LISTED else ""
    return ", ".join(shown_[:LISTED]) + more or "evaluated"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _short(value: str | None) -> str:
    return "none" if value is None else value[:12] if len(value) in (40, 64) and " " not in value else value


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        justify = "right" if title in ("version", "size") else "left"
        table.add_column(title, justify=justify, no_wrap=title != "note")
    return table
