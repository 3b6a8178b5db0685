"""The recipe: from the checkout's data to the parts of a release, trained, copied and written down.

    build(folder, seed=1)        -> folder/model, folder/rag, folder/graph
    draft(folder, evaluation)    -> what the registry publishes

A part appears whole or not at all, and one that is there is kept: a build that was killed goes on where it was. Another
recipe in the same folder is refused, because half of one release and half of another is neither.
"""

import json
import os
import random
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import data
from labkit.assets import asset_path
from labkit.environment import git_state
from labkit.errors import LabError
from labkit.files import sync_folder, write_json
from stage3_agents_llmops.agent.release import OVERRIDES, ReleaseFolder
from stage3_agents_llmops.pipeline.training_data import check_data, data_sha256, read_more
from stage3_agents_llmops.registry.release import Draft, Lineage, read_metrics

KEPT = 0.97  # share of the frames that a run learns from; which ones is what its seed decides
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
__all__ = ["Recipe", "build", "check_data", "data_sha256", "draft"]


@dataclass(frozen=True)
class Recipe:
    """What a release is made with.

    Args:
        seed: of the frames that are learnt from: two seeds give two releases of the same quality.
        overrides: settings of the agent that the release brings with it.
        search: what differs in rag.json.
        more: labelled utterances from production (training_data.read_more).
        adapter: folder of stage 2's LoRA adapter, in place of the classifier that is trained here.
    """

    seed: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    more: Path | None = None
    adapter: Path | None = None


def build(
    folder: Path, *, seed: int = 1, overrides: Mapping[str, Any] | None = None, search: Mapping[str, Any] | None = None,
    more: Path | None = None, adapter: Path | None = None,
) -> Path:  # fmt: skip
    """Make the parts of a release, see Recipe; returns the folder. Training takes half a minute.

    Raises:
        LabError: the data is broken, the adapter is none, an override is unknown, or the folder has another recipe.
    """
    recipe = Recipe(seed, dict(overrides or {}), dict(search or {}), more, adapter)
    unknown = [name for name in recipe.overrides if name not in OVERRIDES]
    if unknown:
        raise LabError(f"a release cannot set {unknown[0]}", f"one of: {', '.join(OVERRIDES)}")
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".tmp-*"):
        shutil.rmtree(left)
    makers: dict[str, Callable[[Path, Recipe], None]] = {"model": make_model, "rag": make_rag, "graph": make_graph}
    for part, make in makers.items():
        if not (folder / part).exists():
            with whole(folder / part) as temporary:
                make(temporary, recipe)
    release = ReleaseFolder.open(folder)
    if release.model.get("recipe") != described(recipe) or release.overrides != dict(recipe.overrides):
        raise LabError(f"{folder} holds a release with another recipe", "another folder, or remove that one")
    release.search_settings()
    return folder


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well."""
    temporary = folder.with_name(f".tmp-{secrets.token_hex(4)}-{folder.name}")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_model(folder: Path, recipe: Recipe) -> None:
    """Train the classifier, or take the adapter."""
    if recipe.adapter:
        take_adapter(folder, recipe)
        return
    from stage3_agents_llmops.agent.text_encoder import load_e5
    from stage3_agents_llmops.agent.understanding.classifier import train
    from stage3_agents_llmops.agent.understanding.stored_classifier import save_classifier

    more = read_more(recipe.more) if recipe.more else []
    encoder = load_e5()
    classifier = train(encoder, more, learnt_from(recipe.seed))
    classifier.encoder = encoder
    save_classifier(classifier, folder, recipe=described(recipe), data=data_sha256(recipe.more))


def learnt_from(seed: int) -> Callable[[Any], bool]:
    """Which utterances a run learns from: whole frames, with all their fillings, by the seed."""

    def kept(item: Any) -> bool:
        frame = item.id.rsplit("#", 1)[0]
        return random.Random(f"{seed} {frame}").random() < KEPT

    return kept


def take_adapter(folder: Path, recipe: Recipe) -> None:
    """Stage 2's adapter, and what it belongs to by a name that other machines know. Raises LabError: it is none."""
    for name in ADAPTER_FILES:
        if not (recipe.adapter / name).is_file():
            raise LabError(f"{recipe.adapter} is no adapter: no {name}", "a checkpoint of stage 2's finetune lab")
    settings, weights = ADAPTER_FILES
    shutil.copyfile(recipe.adapter / weights, folder / weights)
    config = json.loads((recipe.adapter / settings).read_text(encoding="utf-8"))
    base = catalog_name(config.get("base_model_name_or_path", ""))
    write_json(folder / settings, config | {"base_model_name_or_path": base})
    write_json(folder / "model.json", {"kind": "adapter", "base": base, "recipe": described(recipe)})


def catalog_name(base: str) -> str:
    """The name that a checkpoint in the cache has in the catalog; what lies elsewhere keeps its path."""
    return next((name for name, asset in data.catalog().items() if base == str(asset_path(asset))), base)


def make_rag(folder: Path, recipe: Recipe) -> None:
    """The help centre's articles, and how they are searched."""
    from data.help_articles import FOLDER, LANGUAGES
    from stage3_agents_llmops.agent.knowledge import THRESHOLDS, VARIANT, WEIGHTS, K

    for language in LANGUAGES:
        (folder / "articles" / language).mkdir(parents=True)
        for article in sorted((FOLDER / language).glob("*.md")):
            shutil.copyfile(article, folder / "articles" / language / article.name)
    thresholds = {f"{kind}/{language}": value for (kind, language), value in THRESHOLDS.items()}
    write_json(
        folder / "rag.json",
        {"variant": VARIANT, "k": K, "thresholds": thresholds, "weights": WEIGHTS} | dict(recipe.search),
    )


def make_graph(folder: Path, recipe: Recipe) -> None:
    """The wording, and the settings of the graph."""
    from stage3_agents_llmops.agent.events import SCHEMA
    from stage3_agents_llmops.agent.wording import FOLDER, LANGUAGES

    (folder / "answers").mkdir()
    for language in LANGUAGES:
        shutil.copyfile(FOLDER / f"{language}.toml", folder / "answers" / f"{language}.toml")
    write_json(folder / "graph.json", {"overrides": dict(recipe.overrides), "events": SCHEMA})


def described(recipe: Recipe) -> dict[str, Any]:
    """A recipe for model.json; no path in it, because the same content made elsewhere is the same release."""
    return {"seed": recipe.seed, "kept": KEPT, "more": bool(recipe.more), "adapter": bool(recipe.adapter)}


def draft(
    folder: Path, evaluation: Path, parent_sha256: str | None = None, note: str = "", run: str | None = None
) -> Draft:
    """What to publish of a built release.

    Args:
        evaluation: the report of its evaluation.
        parent_sha256: of the manifest of the release that this one is to replace.
        run: folder of the training run, relative to runs/.

    Raises:
        LabError: the folder is no release, or there is no report.
    """
    release = ReleaseFolder.open(folder)
    lineage = Lineage(release.model.get("data", {}), git_state().get("commit"), run, None, parent_sha256)
    parts = {part: folder / part for part in ("model", "rag", "graph")}
    return Draft(parts, lineage, evaluation, read_metrics(evaluation), note)
