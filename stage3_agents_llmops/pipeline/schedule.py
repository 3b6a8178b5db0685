"""How long each step looks, and how much traffic it sees."""

from dataclasses import dataclass

from stage3_agents_llmops.experiments.ramping import STEPS as PERCENT


@dataclass(frozen=True)
class Schedule:
    """Seconds, unless said otherwise.

    Args:
        shadow: that the candidate listens before it answers anybody.
        shadow_share: of the customers' messages that it gets a copy of, 0 to 1.
        shadow_times: as many probes at each look while it listens: no customer waits behind them.
        looks: the least time of each canary step, in the order of PERCENT.
        patience: the longest pause of a step: without a verdict by then, the release goes back.
        every: between two looks.
        probes: labelled questions to canary and to baseline before every look.
        concurrency: probes under way at once, on each arm.
        drain: that answers have to end before a process is killed.
        restarts: of one process in a deployment; one more death, and the release goes back.
        registry: that the registry may be away before the deployment is given up.
    """

    shadow: float = 6.0
    shadow_share: float = 0.2
    shadow_times: int = 3
    looks: tuple[float, ...] = (6.0, 6.0, 6.0, 6.0, 6.0)
    patience: float = 45.0
    every: float = 1.0
    probes: int = 4
    concurrency: int = 2
    drain: float = 30.0
    restarts: int = 2
    registry: float = 30.0


SCHEDULES = {
    "smoke": Schedule(
        shadow=1.0, shadow_times=1, looks=(1.0, 1.0, 1.0, 1.0, 1.0), patience=20.0, every=0.3, registry=5.0
    ),
    "cpu": Schedule(),
    "study": Schedule(shadow=20.0, looks=(30.0, 30.0, 60.0, 60.0, 60.0), patience=180.0, every=2.0),
}
SCHEDULES["gpu"] = SCHEDULES["study"]
CANARY_STEPS = tuple(f"canary-{percent:g}" for percent in PERCENT)
STEPS = ("data_check", "train", "evaluate", "gates", "register", "start", "shadow", *CANARY_STEPS, "promote", "drain")


# exercise: pipeline.weights_at
def weights_at(step: str) -> dict[str, float]:
    """Per cent of the customers of each arm in a canary step, "canary-25" for example.

    The canary gets the step's per cent, the baseline as much but never more than what is left, the stable arm the rest:
    98, 1, 1; 90, 5, 5; 50, 25, 25; 0, 50, 50; 0, 0, 100 for stable, baseline, canary.
    """
    canary = float(step.removeprefix("canary-"))
    baseline = min(canary, 100.0 - canary)
    return {"stable": 100.0 - canary - baseline, "baseline": baseline, "canary": canary}
# end exercise
