"""MLflow's model registry behind the same interface: the database and the artifact store are MLflow's, by URL.

A release is a model version whose artifacts are the release's folder; its tags name the manifest's SHA-256. MLflow
gives versions, aliases, a page to look at, S3 and PostgreSQL. It does not check what it hands out, does not share files
between versions, and does not remember where an alias was. The first is added here (a manifest among the artifacts,
checked at `load`), the last in alias_table.py, the second is left as it is: see `capabilities`.

Upload first, then one call that makes the version with its tags: a publisher that is killed leaves a run without a
version, which `collect_garbage` removes.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stage3_agents_llmops.registry.mlflow_places import (
    artifact_place,
    check_database,
    quiet,
    set_defaults,
    without_password,
)

set_defaults()

from mlflow.entities.model_registry import ModelVersion  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402

from labkit.errors import LabError  # noqa: E402
from stage3_agents_llmops.registry.alias_table import AliasTable  # noqa: E402
from stage3_agents_llmops.registry.interface import (  # noqa: E402
    ANY,
    PROG,
    AliasChange,
    Collected,
    Conflict,
    Damaged,
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
from stage3_agents_llmops.registry.release import (  # noqa: E402
    MANIFEST,
    Draft,
    Manifest,
    Release,
    describe,
    parse_manifest,
    sources,
    stored_file,
)
from stage3_agents_llmops.registry.unpack import differences, unpacked, write_manifest  # noqa: E402

TAG = "release.sha256"
FOLDER = "release"  # of a run's artifacts
ORPHAN_AGE = 3600.0  # seconds after which a run without a version counts as left behind


class MlflowRegistry:
    """A registry in MLflow (interface.Registry).

    Args:
        url: sqlite:///FILE, postgresql://... or the http:// address of a server. Behind a server the database cannot be
            reached: then there is no compare-and-set, no history and no rollback, and `capabilities` says so.
        artifacts: a folder or s3://BUCKET/PATH for the files of a new registry.
        patience: seconds to wait for a database that another process has locked.
        orphan_age: seconds after which an upload without a version counts as left behind.
    """

    def __init__(
        self, url: str, name: str = "customer-service", artifacts: str | None = None, patience: float = 10.0,
        orphan_age: float = ORPHAN_AGE,
    ) -> None:  # fmt: skip
        quiet()
        self.url, self.name, self._orphan_age = check_database(url), name, orphan_age
        self.client = MlflowClient(tracking_uri=self.url, registry_uri=self.url)
        with explained(url):
            self._experiment = self._find_experiment(artifacts)
            self._find_model()
            self._table = None if url.startswith("http") else AliasTable(self.url, name, patience)
        self._manifests: dict[str, Manifest] = {}
        ours = {"compare_and_set", "history", "rollback"}
        self.capabilities = frozenset(ours if self._table else ())

    def publish(self, draft: Draft) -> Release:
        """See `Registry.publish`."""
        files = sources(draft)
        manifest = describe(self.name, draft, [stored_file(path, file) for path, file in files.items()])
        with explained(self.url):
            if known := self._search(f"name = '{self.name}' and tags.`{TAG}` = '{manifest.sha256}'"):
                return self._release(known[0])
            run = self._start_run(manifest)
            with tempfile.TemporaryDirectory() as scratch:
                self.client.log_artifacts(run.info.run_id, _links(files, manifest, Path(scratch)), FOLDER)
            version = self.client.create_model_version(
                self.name, f"{run.info.artifact_uri}/{FOLDER}", run.info.run_id, {TAG: manifest.sha256},
                description=manifest.note, await_creation_for=None,
            )  # fmt: skip
            self.client.set_terminated(run.info.run_id)
        self._manifests[manifest.sha256] = manifest
        return self._release(version)

    def versions(self) -> list[Release]:
        """See `Registry.versions`."""
        with explained(self.url):
            found = self._search(f"name = '{self.name}'")
            return [self._release(version) for version in sorted(found, key=lambda one: int(one.version))]

    def get(self, ref: int | str) -> Release:
        """See `Registry.get`."""
        with explained(self.url):
            return self._release(self._find(ref))

    def load(self, ref: int | str, target: Path) -> Path:
        """See `Registry.load`. MLflow downloads, this checks."""
        release = self.get(ref)
        with unpacked(release, Path(target)) as folder:
            if folder is not None:
                self._download(release, folder)
        return Path(target)

    def aliases(self) -> dict[str, int]:
        """See `Registry.aliases`."""
        with explained(self.url):
            found = self.client.get_registered_model(self.name).aliases
        return {alias: int(version) for alias, version in sorted(found.items())}

    def set_alias(
        self, alias: str, version: int, *, expected: Any = ANY, actor: str = "", reason: str = ""
    ) -> AliasChange:
        """See `Registry.set_alias`."""
        check_alias(alias)
        release = self.get(version)
        check_promotion(release, alias)
        if self._table is None:
            return self._set_unchecked(alias, release, expected)
        self._check_present(release)
        return self._move(alias, version, expected, "set", actor, reason)

    def rollback(self, alias: str, *, expected: Any = ANY, actor: str = "", reason: str = "") -> AliasChange:
        """See `Registry.rollback`."""
        current = self.aliases().get(alias)
        if current is None:
            raise self._unknown(alias)
        check_expected(alias, current, expected)
        target = rollback_target(self.history(alias))
        if target is None:
            raise Refused(f"{alias} was never anything but version {current}", f"{PROG} history")
        self._check_present(self.get(target))
        return self._move(alias, target, current, "rollback", actor, reason)

    def history(self, alias: str | None = None) -> list[AliasChange]:
        """See `Registry.history`."""
        if self._table is None:
            raise LabError("MLflow behind a server keeps no history of its aliases", "its database as --registry URL")
        return [change for change in self._table.history(self.aliases()) if alias in (None, change.alias)]

    def verify(self, ref: int | str | None = None) -> list[Problem]:
        """See `Registry.verify`. Every file is downloaded for it."""
        problems = []
        for release in self.versions() if ref is None else [self.get(ref)]:
            with tempfile.TemporaryDirectory() as scratch:
                folder = self._artifacts(release.version, Path(scratch))
                problems += differences(folder, release.manifest, release.version)
        return problems

    def collect_garbage(self, keep: int = 3, dry_run: bool = False) -> Collected:
        """See `Registry.collect_garbage`. A version goes first, then its run and its files."""
        moves = self.history() if self._table else []  # without a history there is no rollback to keep files for
        with explained(self.url):
            found = {int(version.version): version for version in self._search(f"name = '{self.name}'")}
            kept = set(sorted(found)[-max(keep, 1) :]) | protected(moves, self.aliases())
            going = sorted(set(found) - kept)
            runs = [found[version].run_id for version in going]
            runs += self._orphans({version.run_id for version in found.values()})
            sizes = [size for run in runs for size in self._sizes(self._repository(run)).values()]
            if not dry_run:
                for version in going:
                    self.client.delete_model_version(self.name, str(version))
                for run in runs:
                    self._repository(run).delete_artifacts()
                    self.client.delete_run(run)
        return Collected(tuple(going), len(sizes), sum(sizes))

    def _find_experiment(self, artifacts: str | None) -> str:
        """The experiment that the releases' runs are in. It knows where their files go, so that is asked for once."""
        name = f"releases of {self.name}"
        if known := self.client.get_experiment_by_name(name):
            return known.experiment_id
        return self.client.create_experiment(name, artifact_location=artifact_place(self.url, artifacts))

    def _find_model(self) -> None:
        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _start_run(self, manifest: Manifest) -> Any:
        """A run that carries the lineage where MLflow's page shows it."""
        lineage = manifest.lineage
        facts = {"mlflow.source.git.commit": lineage.commit, "release.run": lineage.run,
                 "release.parent": lineage.parent, "release.evaluation": lineage.evaluation,
                 **{f"release.data.{name}": sha256 for name, sha256 in lineage.data.items()}}  # fmt: skip
        tags = {name: value for name, value in facts.items() if value} | {TAG: manifest.sha256}
        run = self.client.create_run(self._experiment, tags=tags, run_name=f"release {manifest.sha256[:12]}")
        for metric, value in manifest.metrics.items():
            self.client.log_metric(run.info.run_id, metric, value)
        return run

    def _search(self, text: str) -> list[ModelVersion]:
        found, token = [], None
        while True:
            page = self.client.search_model_versions(text, max_results=1000, page_token=token)
            found += [version for version in page if TAG in version.tags]
            if not (token := page.token):
                return found

    def _find(self, ref: int | str) -> ModelVersion:
        ref = parse_ref(ref)
        version = self.aliases().get(ref) if isinstance(ref, str) else ref
        if version is None:
            raise self._unknown(ref)
        try:
            found = self.client.get_model_version(self.name, str(version))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise self._unknown(version) from None
            raise
        if TAG not in found.tags:
            raise Unknown(f"MLflow's version {version} is no release: it has no tag {TAG}", f"{PROG} list")
        return found

    def _release(self, version: ModelVersion) -> Release:
        sha256 = version.tags[TAG]
        if sha256 not in self._manifests:
            what = f"the manifest of version {version.version}"
            with tempfile.TemporaryDirectory() as scratch:
                place = _downloaded(get_artifact_repository(version.source, self.url), MANIFEST, scratch, what)
                manifest = parse_manifest(place.read_bytes(), what)
            if manifest.sha256 != sha256:
                raise Damaged(f"{what} was changed after it was published", "publish the release again")
            self._manifests[sha256] = manifest
        published = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="milliseconds")
        return Release(int(version.version), self._manifests[sha256], sha256, published)

    def _artifacts(self, version: int, scratch: Path) -> Path:
        """Everything of a version, downloaded."""
        repository = get_artifact_repository(self._find(version).source, self.url)
        return _downloaded(repository, "", str(scratch), f"version {version}")

    def _download(self, release: Release, folder: Path) -> None:
        """The files that the manifest lists, checked; what else lies beside them stays behind."""
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-") as scratch:
            came = self._artifacts(release.version, Path(scratch))
            for problem in differences(came, release.manifest):
                raise Damaged(f"{problem.path} of version {release.version} is {problem.what}, compared with what was "
                              "published", "publish the release again from its run")  # fmt: skip
            for file in release.manifest.files:
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(came / file.path, folder / file.path)

    def _check_present(self, release: Release) -> None:
        """Refuse to point at files that are not there, without downloading them."""
        there = self._sizes(get_artifact_repository(self._find(release.version).source, self.url))
        lost = [file.path for file in release.manifest.files if there.get(file.path) != file.bytes]
        if lost:
            raise Refused(f"version {release.version} is damaged: {lost[0]} is missing or truncated",
                          f"{PROG} verify --ref {release.version}")  # fmt: skip

    def _move(self, alias: str, version: int, expected: Any, kind: str, actor: str, reason: str) -> AliasChange:
        with explained(self.url):
            while True:
                previous = self._table.current(alias) if expected is ANY else expected
                try:
                    return self._table.move(alias, version, previous, kind, actor, reason)
                except Conflict:
                    if expected is not ANY:
                        raise

    def _set_unchecked(self, alias: str, release: Release, expected: Any) -> AliasChange:
        """All that a server offers: whoever comes last wins."""
        if expected is not ANY:
            raise LabError("MLflow behind a server has no compare-and-set", "its database as --registry URL")
        before = self.aliases().get(alias)
        with explained(self.url):
            self.client.set_registered_model_alias(self.name, alias, str(release.version))
        return AliasChange(0, alias, release.version, before, "set", datetime.now(UTC).isoformat())

    def _unknown(self, ref: int | str) -> Unknown:
        what = f"version {ref}" if isinstance(ref, int) else f"alias {ref}"
        known = [str(release.version) for release in self.versions()] + list(self.aliases())
        return Unknown(f"the registry has no {what}", f"one of: {', '.join(known)}" if known else f"{PROG} publish")

    def _orphans(self, owned: set[str]) -> list[str]:
        """Runs whose publisher never came to make a version of them."""
        before = datetime.now(UTC).timestamp() - self._orphan_age
        runs = self.client.search_runs([self._experiment], max_results=1000)
        return [run.info.run_id for run in runs
                if run.info.run_id not in owned and run.info.start_time / 1000 < before]  # fmt: skip

    def _repository(self, run: str) -> Any:
        return get_artifact_repository(self.client.get_run(run).info.artifact_uri, self.url)

    def _sizes(self, repository: Any, folder: str | None = None) -> dict[str, int]:
        """Path -> bytes of everything that is stored there."""
        sizes = {}
        for entry in repository.list_artifacts(folder):
            sizes |= self._sizes(repository, entry.path) if entry.is_dir else {entry.path: entry.file_size}
        return sizes


@contextmanager
def explained(url: str) -> Iterator[None]:
    """MLflow's errors as one line."""
    try:
        yield
    except MlflowException as error:
        text = " ".join(str(error).split())
        raise LabError(f"MLflow at {without_password(url)}: {text[:300]}",
                       "the address of the registry, and whether it runs") from error  # fmt: skip


def _links(files: dict[str, Path], manifest: Manifest, scratch: Path) -> str:
    """The release's folder made of symlinks: nothing is copied twice, and `evaluation.json` has its name."""
    for path, source in files.items():
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
        (scratch / path).symlink_to(source.resolve())
    write_manifest(manifest, scratch)
    return str(scratch)


def _downloaded(repository: Any, path: str, scratch: str, what: str) -> Path:
    try:
        return Path(repository.download_artifacts(path, scratch))
    except (OSError, MlflowException) as error:
        text = " ".join(str(error).split())[:200]
        raise Damaged(f"{what} is missing from MLflow's artifacts: {text}", "publish the release again") from None
