"""The controller with real processes, gateway and registry; each test names the bug that it catches."""

import os
import signal
import time
from pathlib import Path

import pytest
from light_pipeline import Customers, deploy_in_a_child, figures, first_champion, light_parts, make_release

from labkit.errors import LabError
from stage3_agents_llmops.pipeline.controller import Controller, order_of
from stage3_agents_llmops.pipeline.evaluation import write_evaluation
from stage3_agents_llmops.pipeline.event_log import DeploymentLog
from stage3_agents_llmops.pipeline.exposed import exposed_share
from stage3_agents_llmops.pipeline.processes import Processes
from stage3_agents_llmops.pipeline.schedule import STEPS
from stage3_agents_llmops.registry import CHAMPION, open_registry


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """One home whose processes all tests of this module share; nothing of it is left afterwards."""
    home = tmp_path_factory.mktemp("pipeline") / "home"
    parts = light_parts(home)
    with Controller(parts) as controller:
        first_champion(parts)
        controller.serve()
    yield home
    assert Processes(home / "processes").stop_all(5) == []


def deploy(home: Path, after=lambda kind, data: None, **behaviour):
    """A deployment of a release with that behaviour, evaluated elsewhere; `note` makes it another one each time."""
    parts = light_parts(home)
    number = len(parts.log.deployments()) + 1
    folder = make_release(home / "made" / str(number), seed=100 + number, **behaviour)
    evaluation = write_evaluation(home / "made" / f"{number}.json", figures())
    with Controller(parts, after) as controller:
        controller.serve()
        deployment = controller.deploy(order_of(folder, evaluation))
    return parts, deployment


def services(home: Path) -> list[str]:
    """Names of the service processes that run."""
    return [one.name for one in Processes(home / "processes").records() if one.alive and one.name != "gateway"]


def champion_is_stable(home: Path) -> bool:
    """Whether customers get the champion and nothing else."""
    parts = light_parts(home)
    routes = parts.fleet.gateway().routes()
    release = parts.registry.get(CHAMPION)
    return [(arm.name, arm.release, arm.weight) for arm in routes.arms] == [("stable", release.sha256[:12], 100)]


def test_good_release_goes_live_without_a_dropped_stream(shop):
    """Catches: a step that is left out; a stream that is cut when the old release ends; processes that stay."""
    before = services(shop)
    with Customers(shop, light_parts(shop).fleet.gateway().url) as customers:
        time.sleep(0.3)
        parts, deployment = deploy(shop)
        time.sleep(0.3)
    assert deployment.ending == "done" and deployment.finished == list(STEPS)
    assert customers.faults == [] and customers.answered > 20
    assert services(shop) == [f"{deployment.id}-canary"] != before
    assert champion_is_stable(shop)
    weights = [event.data["weights"].get("canary") for event in deployment.events if event.kind == "weights"]
    assert [weight for weight in weights if weight] == [1, 5, 25, 50, 100]


@pytest.mark.parametrize("behaviour", [{"wrong": 0.9}, {"fail": 0.9}, {"seconds": 0.25}, {"unsafe": True}],
                         ids=["wrong", "errors", "slow", "unsafe"])  # fmt: skip
def test_bad_release_goes_back(shop, behaviour):
    """Catches: a canary that nobody judges; a champion that moved; a bad process that goes on."""
    champion, before = light_parts(shop).registry.aliases()[CHAMPION], services(shop)
    parts, deployment = deploy(shop, **behaviour)
    assert deployment.ending == "rolled back", deployment.end
    assert deployment.end["rollback_s"] < 30
    assert parts.registry.aliases()[CHAMPION] == champion and champion_is_stable(shop)
    assert services(shop) == before
    assert not exposed_share(parts.run_log, deployment)


def test_canary_finds_a_bad_release_without_the_shadow(shop):
    """Catches: a pipeline that believes the shadow alone; `--no-shadow` that starts one all the same."""
    parts = light_parts(shop)
    evaluation = write_evaluation(shop / "made" / "unheard.json", figures())
    with Controller(parts) as controller:
        controller.serve()
        folder = make_release(shop / "made" / "unheard", seed=8, wrong=0.9)
        deployment = controller.deploy(order_of(folder, evaluation, shadow=False))
    assert deployment.ending == "rolled back" and deployment.finished[-1] == "shadow"
    assert "canary-1" in deployment.end["reason"] and deployment.end["detection_s"] > 0 and champion_is_stable(shop)


def test_no_data_is_not_promoted(shop):
    """Catches: a canary without probes and customers that is promoted because nothing speaks against it."""
    parts = light_parts(shop, probes=0, patience=0.5)
    evaluation = write_evaluation(shop / "made" / "silent.json", figures())
    with Controller(parts) as controller:
        controller.serve()
        deployment = controller.deploy(order_of(make_release(shop / "made" / "silent", seed=7), evaluation))
    assert deployment.ending == "rolled back" and "paused" in deployment.end["reason"]
    assert {event.data["verdict"] for event in deployment.events if event.kind == "verdict"} == {"pause"}
    assert champion_is_stable(shop)


def test_gate_that_fails_keeps_the_candidate_out(shop, monkeypatch):
    """Catches: a candidate that is registered, or gets a process, although a gate said no."""
    from light_pipeline import LightRecipe

    poor = figures(unconfirmed_writes=figures()["policy_violations"].__class__(3, 40))
    def evaluate_all(self, places, between=None):
        for release, out in places.items():
            write_evaluation(out, poor if "candidate" in str(release) else figures())

    monkeypatch.setattr(LightRecipe, "evaluate_all", evaluate_all)
    before = len(light_parts(shop).registry.versions())
    parts = light_parts(shop, seed=55)
    with Controller(parts) as controller:
        controller.serve()
        deployment = controller.deploy(order_of())
    assert deployment.ending == "held" and deployment.end["verdict"] == "fail"
    assert "nothing written without a yes" in deployment.end["reason"]
    assert len(parts.registry.versions()) == before and champion_is_stable(shop)


def test_release_that_does_not_start_goes_back(shop):
    """Catches: a controller that waits for ever for a process that has ended."""
    _, deployment = deploy(shop, dies=True)
    assert deployment.ending == "rolled back" and "does not start" in deployment.end["reason"]
    assert champion_is_stable(shop)


def test_rollback_that_was_asked_for(shop):
    """Catches: a person's wish that is read only between steps."""
    def ask(kind, data):
        if data.get("step") == "canary-5":
            DeploymentLog(shop / "events.jsonl").append("requested", data_id(shop), reason="a person says so")

    def data_id(home):
        return DeploymentLog(home / "events.jsonl").last().id

    _, deployment = deploy(shop, after=ask)
    assert deployment.ending == "rolled back" and "a person says so" in deployment.end["reason"]
    assert champion_is_stable(shop)


def test_champion_that_somebody_else_moved_stays(shop):
    """Catches: two champions, or a promotion over somebody's head: the alias is compared before it is set."""
    def move(kind, data):
        if (kind, data.get("step")) == ("begun", "promote"):
            registry = open_registry(shop / "registry")
            other = next(each.version for each in registry.versions() if each.version != registry.aliases()[CHAMPION])
            moved.append(registry.set_alias(CHAMPION, other).previous)

    moved: list[int] = []
    parts, deployment = deploy(shop, after=move)
    assert deployment.ending == "rolled back" and "quicker" in deployment.end["reason"]
    version = deployment.facts["register"]["version"]
    assert parts.registry.aliases()[CHAMPION] != version
    parts.registry.set_alias(CHAMPION, moved[0])  # as the other tests expect it
    assert champion_is_stable(shop)


def test_dead_process_is_started_again(shop):
    """Catches: a killed instance that stays dead while the deployment goes on."""
    def kill(kind, data):
        if (kind, data.get("step")) == ("begun", "canary-5"):
            name = DeploymentLog(shop / "events.jsonl").last().id + "-baseline"
            os.kill(Processes(shop / "processes").find(name).pid, signal.SIGKILL)

    _, deployment = deploy(shop, after=kill)
    notices = [event.data["title"] for event in deployment.events if event.kind == "notice"]
    assert deployment.ending == "done" and "a process died" in notices
    assert champion_is_stable(shop)


def test_registry_that_is_away_is_told_and_waited_for(shop, monkeypatch):
    """Catches: a promotion that fails because the registry had a bad second; one that is waited for in silence."""
    from stage3_agents_llmops.pipeline import rollout

    monkeypatch.setattr(rollout, "SLOW", 0.1)
    parts = light_parts(shop)
    deployment = parts.log.last()
    one = rollout.Rollout(parts, deployment)
    answers = [TimeoutError("database is locked"), 7]

    def ask():
        time.sleep(0.3)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert one.ask_registry("promote", ask) == 7
    notices = [event.data for event in parts.log.last().events if event.kind == "notice"]
    assert [notice["title"] for notice in notices].count("the registry is away") == 1

    def never():
        raise TimeoutError("database is locked")

    with pytest.raises(rollout.Abort, match="away"):
        one.ask_registry("promote", never)


def test_second_controller_is_refused(shop):
    """Catches: two controllers that move the same customers."""
    with Controller(light_parts(shop)), pytest.raises(LabError, match="another controller"), \
            Controller(light_parts(shop)):  # fmt: skip
        pass


def test_controller_killed_at_every_step_goes_on(shop):
    """Catches: a step that cannot be repeated; two champions; processes that nobody finds again.

    One deployment, and `kill -9` after every event that a step writes: twice a step, 28 times in all.
    """
    places = [f"{kind}:{step}" for step in STEPS for kind in ("begun", "finished")]
    champion = light_parts(shop).registry.aliases()[CHAMPION]
    for place in places:
        assert deploy_in_a_child(shop, place, seed=700) == (signal.SIGKILL, "")
        assert DeploymentLog(shop / "events.jsonl").last().running
        assert len(services(shop)) <= 4
    assert deploy_in_a_child(shop, None, seed=700) == (0, "done")
    deployment = DeploymentLog(shop / "events.jsonl").last()
    assert deployment.finished == list(STEPS) and champion_is_stable(shop)
    assert services(shop) == [f"{deployment.id}-canary"]
    version = deployment.facts["register"]["version"]
    moves = [change.previous for change in open_registry(shop / "registry").history(CHAMPION)
             if change.version == version]  # fmt: skip
    assert moves == [champion]


def test_killed_in_a_rollback_goes_on_rolling_back(shop, tmp_path):
    """Catches: a resumed controller that takes the candidate for a good one."""
    folder = make_release(tmp_path / "bad", seed=900, wrong=0.9)
    assert deploy_in_a_child(shop, "rollback:", folder) == (signal.SIGKILL, "")
    assert deploy_in_a_child(shop, None) == (0, "rolled back")
    assert champion_is_stable(shop)
