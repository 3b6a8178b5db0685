"""Releases to and from a Hugging Face Hub: the public one, a mirror or a server of one's own (`HF_ENDPOINT`).

A hub is a git server with a store for large files (LFS). Pushing is one commit with all files of a release, so a reader
sees all of it or nothing; the commit names the commit that it follows, which is the hub's own compare-and-set. Tags are
named after the release's content. What comes back is checked against the manifest, because a mirror is not trusted.

Large files go by LFS over HTTP. `huggingface_hub` would use Xet as soon as `hf_xet` is installed, without asking the
server, and a mirror that has no Xet refuses with an error about tokens.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars

from labkit.errors import LabError
from labkit.files import write_text
from stage3_agents_llmops.registry.interface import Conflict, Damaged, Registry
from stage3_agents_llmops.registry.model_card import model_card
from stage3_agents_llmops.registry.release import EVALUATION, PARTS, Draft, Manifest, Release
from stage3_agents_llmops.registry.unpack import differences, read_manifest, unpacked

CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """Where a release is on the hub."""

    repo: str
    commit: str
    tag: str


def endpoint_of(endpoint: str | None) -> str:
    """The hub that is meant: the argument, `HF_ENDPOINT`, or the public one."""
    return (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def tag_of(release_sha256: str) -> str:
    """The hub's tag of a release."""
    return f"release-{release_sha256[:12]}"


def push(
    registry: Registry, ref: int | str, repo: str, endpoint: str | None = None, token: str | None = None,
    private: bool = True, licence: str = "apache-2.0", base_model: str | None = None,
) -> Pushed:  # fmt: skip
    """Publish a release of a registry to a hub, with a generated card, as one commit and a tag.

    Args:
        repo: OWNER/NAME; made if it is not there.
        token: of an account that may write; None: `HF_TOKEN`, or the one that is logged in.

    Raises:
        Damaged: the release is not what was published; nothing is sent.
        Conflict: somebody else pushed in between; nothing was changed.
        LabError: no such repository, no right to write, no hub.
    """
    release = registry.get(ref)
    place = endpoint_of(endpoint)
    card = model_card(release, repo, licence, base_model)
    with tempfile.TemporaryDirectory() as scratch, without_xet(), explained(place, repo):
        folder = registry.load(release.version, Path(scratch) / "release")
        write_text(folder / CARD, card)
        api = HfApi(endpoint=place, token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        head = api.repo_info(repo).sha
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=f"Release {release.sha256[:12]}", parent_commit=head,
            delete_patterns=["*"],
        ).oid  # fmt: skip
        api.create_tag(repo, tag=tag_of(release.sha256), revision=commit, exist_ok=True)
    return Pushed(repo, commit, tag_of(release.sha256))


def pull(
    repo: str, target: Path, revision: str | None = None, endpoint: str | None = None, token: str | None = None
) -> Manifest:
    """Fetch a release into `target`, which appears whole and checked or not at all.

    Args:
        revision: a branch, a tag such as `release-0123456789ab`, or a commit; None: the newest.

    Raises:
        Damaged: a file is not what the manifest says.
        LabError: no such repository or revision, no release in it, no hub, or `target` holds something else.
    """
    target, place = Path(target), endpoint_of(endpoint)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".tmp-") as scratch, without_xet():
        with explained(place, repo):
            snapshot_download(repo, revision=revision, local_dir=scratch, endpoint=place, token=token)
        came = Path(scratch)
        manifest = read_manifest(came)
        _check_came(manifest, came, repo, revision)
        with unpacked(Release(0, manifest, manifest.sha256, ""), target) as folder:
            for file in manifest.files if folder else ():
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(came / file.path, folder / file.path)
    return manifest


def draft_of(folder: Path, manifest: Manifest) -> Draft:
    """A pulled release as a draft: published to a registry of the same name it gets the same SHA-256."""
    report = folder / EVALUATION
    return Draft({part: folder / part for part in PARTS}, manifest.lineage, report if report.is_file() else None,
                 manifest.metrics, manifest.note)  # fmt: skip


@contextmanager
def explained(endpoint: str, repo: str) -> Iterator[None]:
    """The hub's errors as one line."""
    try:
        yield
    except RevisionNotFoundError:
        raise LabError(f"{repo} has no such revision", f"look at {endpoint}/{repo}") from None
    except RepositoryNotFoundError:
        raise LabError(f"{endpoint} has no {repo}, or not for you",
                       "--repo OWNER/NAME, and HF_TOKEN where it is private") from None  # fmt: skip
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (409, 412):
            raise Conflict(f"somebody else pushed to {repo} in between", "the same command again") from None
        advice = "HF_TOKEN=... of an account that may write" if status in (401, 403) else "the same command again later"
        raise LabError(f"{endpoint} answered {status}: {_line(error)}", advice) from None
    except (httpx2.TransportError, LocalEntryNotFoundError, IncompleteSnapshotError, OfflineModeIsEnabled) as error:
        raise LabError(f"the hub {endpoint} cannot be reached: {_line(error)}",
                       "HF_ENDPOINT=https://... of a mirror, or check the network") from None  # fmt: skip


@contextmanager
def without_xet() -> Iterator[None]:
    """LFS over HTTP, which every hub speaks; no progress bars."""
    disable_progress_bars()
    before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _check_came(manifest: Manifest, folder: Path, repo: str, revision: str | None) -> None:
    """The files against the manifest, and the manifest against the tag that was asked for."""
    for problem in differences(folder, manifest):
        raise Damaged(f"{problem.path} from {repo} is {problem.what}, compared with its manifest",
                      "another revision, or another HF_ENDPOINT: this mirror is not to be trusted")  # fmt: skip
    if revision and revision.startswith("release-") and revision != tag_of(manifest.sha256):
        raise Damaged(f"{repo} gives {tag_of(manifest.sha256)} for {revision}", "ask whoever pushed it")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
