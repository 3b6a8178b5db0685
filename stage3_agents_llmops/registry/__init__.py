"""Releases (model, RAG, prompt with graph) with versions, aliases, lineage and a way back."""

from stage3_agents_llmops.registry.interface import (
    ANY,
    CHAMPION,
    AliasChange,
    Collected,
    Conflict,
    Damaged,
    Locked,
    Problem,
    Refused,
    Registry,
    Unknown,
)
from stage3_agents_llmops.registry.registries import default_registry, open_registry
from stage3_agents_llmops.registry.release import PARTS, Draft, Lineage, Manifest, Release, StoredFile

__all__ = [
    "ANY", "CHAMPION", "PARTS", "AliasChange", "Collected", "Conflict", "Damaged", "Draft", "Lineage", "Locked",
    "Manifest", "Problem", "Refused", "Registry", "Release", "StoredFile", "Unknown", "default_registry",
    "open_registry",
]  # fmt: skip
