"""The commands that talk to a Hugging Face Hub: push, pull."""

from dataclasses import dataclass
from pathlib import Path

from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import shown
from stage3_agents_llmops.registry.common_options import RegistryOptions, opened, opened_or_new
from stage3_agents_llmops.registry.interface import CHAMPION

ENDPOINT = "address of the hub; none is HF_ENDPOINT, or the public one"


@dataclass(frozen=True)
class PushConfig(RegistryOptions):
    """What, and where to. The token is HF_TOKEN, or of the account that is logged in."""

    ref: str = option(CHAMPION, "a version or an alias")
    repo: str | None = option(None, "OWNER/NAME; made, and private, if it is not there")
    endpoint: str | None = option(None, ENDPOINT)
    public: bool = option(False, "make a new repository that everybody can read")
    licence: str = option("apache-2.0", "of the model, for its card")
    base_model: str | None = option(None, "OWNER/NAME of the model that was tuned, for its card")


@dataclass(frozen=True)
class PullConfig(RegistryOptions):
    """From where; into a folder, a registry, or both."""

    repo: str | None = option(None, "OWNER/NAME")
    revision: str | None = option(None, "branch, commit, or a tag such as release-0123456789ab; none is the newest")
    target: Path | None = option(None, "a folder that does not exist yet, or that holds this release already")
    publish: bool = option(False, "publish it to --registry as well")
    endpoint: str | None = option(None, ENDPOINT)


def run_push(config: PushConfig, preset: str) -> None:
    """Send a release with a generated card."""
    from stage3_agents_llmops.registry.hub import endpoint_of, push  # a second: huggingface_hub

    if config.repo is None:
        raise LabError("where to?", "--repo OWNER/NAME")
    done = push(opened(config), config.ref, config.repo, config.endpoint, private=not config.public,
                licence=config.licence, base_model=config.base_model)  # fmt: skip
    console.print(f"{endpoint_of(config.endpoint)}/{done.repo}: commit {done.commit[:12]}, tag {done.tag}",
                  markup=False, soft_wrap=True)  # fmt: skip


def run_pull(config: PullConfig, preset: str) -> None:
    """Fetch a release, every file checked against its manifest."""
    from stage3_agents_llmops.registry.hub import draft_of, pull

    if config.repo is None:
        raise LabError("which one?", "--repo OWNER/NAME")
    if config.target is None:
        raise LabError("where to?", "--target FOLDER, one that does not exist yet")
    registry = opened_or_new(config) if config.publish else None
    manifest = pull(config.repo, config.target, config.revision, config.endpoint)
    console.print(f"{shown(config.target.absolute())}: release {manifest.sha256[:12]}, {len(manifest.files)} files, "
                  "each as it was published", markup=False, soft_wrap=True)  # fmt: skip
    if registry is not None:
        release = registry.publish(draft_of(config.target, manifest))
        console.print(f"version {release.version} of this registry")
