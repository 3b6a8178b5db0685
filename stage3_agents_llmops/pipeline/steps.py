"""The steps of a deployment, in order. Each can be repeated: a controller that was killed in one does it again.

    data_check -> train -> evaluate -> gates -> register -> start -> shadow
        -> canary-1 -> canary-5 -> canary-25 -> canary-50 -> canary-100 -> promote -> drain

A step reads what earlier steps left (`rollout.facts`), does its work so that doing it twice is the same as once, and
returns what later steps need. It raises Hold where nothing was deployed and nothing will be, Abort where the candidate
must go back.

| step | why it can be repeated |
|---|---|
| train, evaluate | what is there whole is kept; files appear by rename |
| register | publishing the same content gives the same version |
| start, shadow | a process that runs under the name is adopted |
| canary-N | the gateway is told weights, not changes of weights |
| promote | compare-and-set from the champion that was there at the beginning; done already is done |
| drain | nobody is left to drain |
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.files import write_text
from stage3_agents_llmops.pipeline.canary_watch import watch_canary, watch_shadow
from stage3_agents_llmops.pipeline.evaluation import read_evaluation
from stage3_agents_llmops.pipeline.gates import decide, load_gates
from stage3_agents_llmops.pipeline.gateway.routes import Arm, Routes, Shadow
from stage3_agents_llmops.pipeline.processes import running
from stage3_agents_llmops.pipeline.recipe import registered_draft
from stage3_agents_llmops.pipeline.rollout import Hold, Rollout, with_weights
from stage3_agents_llmops.pipeline.schedule import CANARY_STEPS, weights_at
from stage3_agents_llmops.registry import CHAMPION
from stage3_agents_llmops.registry.release import EVALUATION

CHALLENGER = "challenger"
Step = Callable[[Rollout], Mapping[str, Any]]


def data_check(rollout: Rollout) -> Mapping[str, Any]:
    """Is the data fit to train on? Of a release that somebody brings: what its files say.

    Raises:
        Hold: it is not.
    """
    recipe, brought = rollout.parts.recipe, rollout.deployment.order.get("release")
    try:
        return recipe.check_release(Path(brought), champion_folder(rollout)) if brought else recipe.check_data()
    except LabError as error:
        raise Hold(f"not fit: {error}", "fail") from None


def train(rollout: Rollout) -> Mapping[str, Any]:
    """The candidate's folder: trained, or copied from where somebody has put it."""
    folder = rollout.home.work(rollout.id) / "candidate"
    folder.parent.mkdir(parents=True, exist_ok=True)
    brought, adapter = (rollout.deployment.order.get(name) for name in ("release", "adapter"))
    if brought:
        rollout.parts.recipe.bring(Path(brought), folder)
    else:
        rollout.parts.recipe.build(folder, Path(adapter) if adapter else None)
    return {"folder": str(folder)}


def evaluate(rollout: Rollout) -> Mapping[str, Any]:
    """The candidate and the champion, on the same questions and at the same time: a busy machine is slow for both.

    An evaluation that was brought is taken, and the champion's is the one in its release.

    Raises:
        Hold: the candidate cannot be evaluated.
    """
    work, recipe, order = rollout.home.work(rollout.id), rollout.parts.recipe, rollout.deployment.order
    candidate, champion = work / "evaluation.json", work / "champion.json"
    before = champion_folder(rollout)
    if order.get("evaluation"):
        for source, target in ((Path(order["evaluation"]), candidate), (before / EVALUATION, champion)):
            read_evaluation(source)
            keep_copy(source, target)
        return {"candidate": str(candidate), "champion": str(champion), "by": "brought"}
    places = {Path(rollout.facts("train")["folder"]): candidate, before: champion}
    try:
        recipe.evaluate_all(places, rollout.heed)
    except LabError as error:
        raise Hold(str(error)) from None
    return {"candidate": str(candidate), "champion": str(champion), "by": rollout.id}


def gates(rollout: Rollout) -> Mapping[str, Any]:
    """The gates' file against both evaluations.

    Raises:
        Hold: a gate failed, or cannot be judged.
    """
    facts = rollout.facts("evaluate")
    rules = load_gates(Path(rollout.deployment.order["gates"]))
    decision = decide(rules, read_evaluation(Path(facts["candidate"])), read_evaluation(Path(facts["champion"])))
    for each in decision.results:
        rollout.say(f"gate {each.verdict:4}  {each.gate.name}: {each.reason}")
    if decision.verdict != "pass":
        raise Hold(decision.reason, decision.verdict)
    return {"verdict": "pass", "gates": {each.gate.name: each.reason for each in decision.results}}


def register(rollout: Rollout) -> Mapping[str, Any]:
    """A version in the registry; the alias `challenger` points at it. What a registry wrote keeps its manifest."""
    order, folder = rollout.deployment.order, Path(rollout.facts("train")["folder"])
    draft = registered_draft(folder) if order.get("release") else None
    draft = draft or rollout.parts.recipe.draft(
        folder, Path(rollout.facts("evaluate")["candidate"]), order["champion_sha256"], order.get("note", "")
    )
    release = rollout.ask_registry("register", lambda: rollout.registry.publish(draft))
    if release.version == order["champion"]:
        raise Hold(f"the candidate is the champion, version {release.version}: nothing has changed")
    actor = f"pipeline {rollout.id}"
    rollout.ask_registry("register", lambda: rollout.registry.set_alias(CHALLENGER, release.version, actor=actor))
    return {"version": release.version, "sha256": release.sha256}


def start(rollout: Rollout) -> Mapping[str, Any]:
    """Processes for shadow, canary and baseline: the baseline is the old release, started now, like the canary."""
    version, sha256 = rollout.facts("register")["version"], rollout.facts("register")["sha256"]
    folder = rollout.home.release(sha256)
    rollout.ask_registry("load", lambda: rollout.registry.load(version, folder))
    started = []
    if listens_first(rollout):
        shadow = rollout.fleet.processes.find(rollout.name_of("shadow"))
        if shadow is None or not running(shadow):
            rollout.fleet.copy_for_shadow()
        started.append(rollout.fleet.start_service(rollout.name_of("shadow"), folder, shadow=True))
    started += [
        rollout.fleet.start_service(rollout.name_of("canary"), folder),
        rollout.fleet.start_service(rollout.name_of("baseline"), champion_folder(rollout)),
    ]
    seconds = {one.name: round(rollout.fleet.processes.wait_ready(one.name, between=rollout.refresh), 2)
               for one in started}  # fmt: skip
    return {"ready_s": seconds}


def shadow(rollout: Rollout) -> Mapping[str, Any]:
    """Copies of customers' messages and labelled questions to a candidate whose answers nobody sees."""
    if not listens_first(rollout):
        return {"skipped": True}
    one = rollout.fleet.processes.find(rollout.name_of("shadow"))
    place = Shadow(release_id(rollout), one.url, rollout.schedule.shadow_share)
    rollout.set_arms(lambda routes: replace(routes, shadow=place))
    facts = watch_shadow(rollout)
    rollout.set_arms(lambda routes: replace(routes, shadow=None))
    rollout.fleet.processes.drain(one.name, rollout.schedule.drain)
    return facts


def canary(step: str) -> Step:
    """One canary step: weights, then looks until the verdict is to continue."""

    def run(rollout: Rollout) -> Mapping[str, Any]:
        weights = weights_at(step)
        arms = candidate_arms(rollout)
        rollout.set_arms(lambda routes: with_weights(routes, weights, arms, rollout.id), step=step)
        rollout.refresh()
        return watch_canary(rollout, step)

    return run


def promote(rollout: Rollout) -> Mapping[str, Any]:
    """Move the alias from the champion that the deployment began with; who moved it in between wins.

    Raises:
        Abort: it points elsewhere.
    """
    version, before = rollout.facts("register")["version"], rollout.deployment.order.get("champion")
    if rollout.ask_registry("promote", rollout.registry.aliases).get(CHAMPION) != version:
        rollout.ask_registry("promote", lambda: rollout.registry.set_alias(
            CHAMPION, version, expected=before, actor=f"pipeline {rollout.id}", reason="all canary steps passed",
        ))  # fmt: skip
    return {"champion": version, "before": before}


def drain(rollout: Rollout) -> Mapping[str, Any]:
    """The canary becomes the stable arm; old processes finish what they have begun, and end."""
    one = rollout.fleet.processes.find(rollout.name_of("canary"))
    stable = Arm("stable", release_id(rollout), one.url, 100.0)

    def only_new(routes: Routes) -> Routes:
        return replace(routes, arms=(stable,), shadow=None, salt="")

    rollout.set_arms(only_new)
    old = [name for name in rollout.fleet.services() if name != one.name]
    return {"drained": old, "killed": rollout.fleet.processes.drain_all(old, rollout.schedule.drain)}


def listens_first(rollout: Rollout) -> bool:
    """Whether the deployment has a shadow step. Without one it shows what the canary finds alone."""
    return rollout.deployment.order.get("shadow", True)


def keep_copy(source: Path, target: Path) -> None:
    """Copy a file once; it is there whole or not at all."""
    if not target.exists():
        write_text(target, source.read_text(encoding="utf-8"))


def champion_folder(rollout: Rollout) -> Path:
    """The release that the deployment found as champion, unpacked."""
    order = rollout.deployment.order
    folder = rollout.home.release(order["champion_sha256"])
    rollout.ask_registry("load", lambda: rollout.registry.load(order["champion"], folder))
    return folder


def candidate_arms(rollout: Rollout) -> dict[str, Arm]:
    """Where canary and baseline answer."""
    find = rollout.fleet.processes.find
    old = rollout.deployment.order["champion_sha256"][:12]
    return {
        "baseline": Arm("baseline", old, find(rollout.name_of("baseline")).url, 0.0),
        "canary": Arm("canary", release_id(rollout), find(rollout.name_of("canary")).url, 0.0),
    }


def release_id(rollout: Rollout) -> str:
    """How the candidate is called in routes and rows."""
    return rollout.facts("register")["sha256"][:12]


ALL: dict[str, Step] = {
    "data_check": data_check, "train": train, "evaluate": evaluate, "gates": gates, "register": register,
    "start": start, "shadow": shadow, **{step: canary(step) for step in CANARY_STEPS}, "promote": promote,
    "drain": drain,
}  # fmt: skip
