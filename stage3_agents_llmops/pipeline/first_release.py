"""A home's beginning: a shop, and a first champion made by the recipe."""

from copy import copy
from typing import Any

from labkit.errors import LabError
from labkit.progress import console
from stage3_agents_llmops.pipeline.home import Home
from stage3_agents_llmops.registry import CHAMPION

FIRST_SEED = 0  # so that the first candidate of a deployment (seed 1) is another release


def open_shop(home: Home) -> None:
    """A shop in which scripted customers find what they need; the one that is there is kept."""
    from stage3_agents_llmops.agent.evaluation.suite import make_shop

    if not home.shop.exists():
        temporary = home.folder / ".tmp-shop.sqlite"
        temporary.unlink(missing_ok=True)
        make_shop(temporary, seed=1)
        temporary.rename(home.shop)


def first_release(parts: Any) -> None:
    """The shop and, where the registry has no champion, the first one: trained, evaluated, and set if nobody else is.

    Raises:
        LabError: the data cannot be trained on, or the evaluation failed.
    """
    open_shop(parts.home)
    if CHAMPION in parts.registry.aliases():
        return
    if not parts.quiet:
        console.print("no champion yet: the first release is made", markup=False)
    work = parts.home.work("first")
    work.mkdir(parents=True, exist_ok=True)
    recipe = copy(parts.recipe)
    recipe.seed = FIRST_SEED
    folder = recipe.build(work / "candidate")
    evaluation = recipe.evaluate(folder, work / "evaluation.json")
    release = parts.registry.publish(recipe.draft(folder, evaluation, None, "the first release"))
    try:
        parts.registry.set_alias(CHAMPION, release.version, expected=None, actor="pipeline", reason="the first release")
    except LabError:
        if CHAMPION not in parts.registry.aliases():
            raise
