"""The options that every command has: which registry, whose releases; and how they are opened."""

import getpass
from dataclasses import dataclass

from labkit.cli import option
from stage3_agents_llmops.registry.file_registry import PATIENCE
from stage3_agents_llmops.registry.interface import Registry
from stage3_agents_llmops.registry.registries import NAME, open_registry, require_registry


@dataclass(frozen=True)
class RegistryOptions:
    """Where the releases are."""

    registry: str | None = option(
        None, "a folder; or sqlite:///FILE, postgresql://..., http://... for MLflow; none is the lab's own"
    )
    name: str = option(NAME, "the service whose releases these are")
    artifacts: str | None = option(None, "where a new MLflow registry keeps files: a folder or s3://BUCKET/PATH")
    patience: float = option(PATIENCE, "seconds to wait while another process has the registry locked")


def opened(options: RegistryOptions) -> Registry:
    """The registry that the options mean, which must be there.

    Raises:
        LabError: there is none.
    """
    require_registry(options.registry)
    return opened_or_new(options)


def opened_or_new(options: RegistryOptions) -> Registry:
    """The same; one that is not there yet begins with the first release."""
    return open_registry(options.registry, options.name, options.artifacts, options.patience)


def actor_of(given: str | None) -> str:
    """Who moves an alias: what was said, or the account's name."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's account without a name
        return ""
