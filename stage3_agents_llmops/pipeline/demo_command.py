"""`demo`: a good release goes live and a bad one comes back, before customers; what `make stage3` runs.

python -m stage3_agents_llmops.pipeline demo --preset cpu
"""

from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from labkit.cli import Command, option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console
from labkit.runs import Run, start_run
from labkit.timing import human_seconds
from stage3_agents_llmops.pipeline.common_options import PipelineOptions, parts_of


@dataclass(frozen=True)
class DemoConfig(PipelineOptions):
    """How many customers, and which bad releases."""

    customers: int = option(20, "simulated customers at once")
    bad: str = option("wrong", "kinds of bad releases, parted by commas: wrong, errors, slow, unsafe; all")
    shadow: bool = option(False, "let bad releases listen first; without, the canary has to find them, with customers")
    good: int = option(1, "good deployments, one after the other")
    keep: bool = option(False, "leave gateway and services running afterwards, with the dashboard")


PRESETS = {
    "smoke": DemoConfig(customers=4, bad="errors"),
    "cpu": DemoConfig(),
    "study": DemoConfig(bad="all", good=10),
}
PRESETS["gpu"] = PRESETS["study"]


def run_demo(config: DemoConfig, preset: str) -> int:
    """Deploy, look, deploy again; exit code 1 where a good one came back or a bad one stayed."""
    from stage3_agents_llmops.pipeline.bad_releases import KINDS
    from stage3_agents_llmops.pipeline.controller import Controller
    from stage3_agents_llmops.pipeline.first_release import first_release
    from stage3_agents_llmops.pipeline.run_command import keep_champion, terminated, traffic

    kinds = [kind.strip() for kind in config.bad.split(",") if kind.strip()]
    kinds = list(KINDS) if kinds == ["all"] else kinds
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise LabError(f"there is no bad release {unknown[0]}", f"--bad {','.join(KINDS)}")
    with start_run("stage3", "pipeline", "demo", config, preset, config.seed) as run:
        parts = parts_of(replace(config, home=config.home or run.dir / "home"), preset)
        rows: list[dict[str, Any]] = []
        try:
            with terminated(), Controller(parts) as controller:
                first_release(parts)
                controller.serve(config.port, config.host)
                controller.resume()  # what an earlier one has left
                with traffic(parts, config.customers, run):
                    for number in range(config.good):
                        rows.append(good_deployment(controller, run, config, number))
                    rows += [bad_deployment(controller, run, kind, config.shadow) for kind in kinds]
        finally:
            if not config.keep:
                parts.fleet.processes.stop_all(20.0)
            parts.notifier.close()
        keep_champion(run, parts)
        write_json(run.dir / "deployments.json", rows)
        run.artefact("deployments.json", kind="deployments")
        console.print(table_of(rows))
        for row in rows:
            console.print(f"  {row['release']}: {row['reason']}", markup=False, soft_wrap=True)
        right = sum(row["right"] for row in rows)
        run.metric("right", right, "", (len(rows), None), f"of {len(rows)} deployments: good ones live, bad ones back")
        run.learnt("A canary compared with a baseline of its own size finds a bad release before it has many customers")
        run.next("python -m stage3_agents_llmops.pipeline chaos")
    return 0 if right == len(rows) else 1


def good_deployment(controller: Any, run: Run, config: DemoConfig, number: int) -> dict[str, Any]:
    """Train, and deploy to 100 %."""
    from stage3_agents_llmops.pipeline.controller import order_of

    controller.parts.recipe.seed = config.seed + number
    deployment = controller.deploy(order_of(None, None, config.gates, note=f"demo, good release {number + 1}"))
    return row_of(controller, run, "good" if config.good == 1 else f"good {number + 1}", "done", deployment)


def bad_deployment(controller: Any, run: Run, kind: str, shadow: bool) -> dict[str, Any]:
    """A release that the gates believe and the customers must not meet for long."""
    from stage3_agents_llmops.pipeline.bad_releases import make_bad
    from stage3_agents_llmops.pipeline.controller import order_of
    from stage3_agents_llmops.registry import CHAMPION
    from stage3_agents_llmops.registry.release import EVALUATION

    registry, home = controller.parts.registry, controller.parts.home
    champion = registry.get(CHAMPION)
    good = registry.load(champion.version, home.release(champion.sha256))
    folder = home.folder / "bad" / f"{kind}-v{champion.version}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_bad(kind, good, folder)
    order = order_of(folder, good / EVALUATION, note=f"demo, bad release: {kind}", shadow=shadow)
    deployment = controller.deploy(order)
    return row_of(controller, run, kind, "rolled back", deployment)


def row_of(controller: Any, run: Run, name: str, expected: str, deployment: Any) -> dict[str, Any]:
    """What came of a deployment; its figures and its timeline go into the run."""
    from stage3_agents_llmops.pipeline.exposed import exposed_customers
    from stage3_agents_llmops.pipeline.timeline import draw_timeline

    key = name.replace(" ", "_")
    draw_timeline(deployment, run.dir / f"timeline_{key}.png")
    run.figure(f"timeline_{key}.png", f"{name}: weights over time, with the verdict of every look")
    met = exposed_customers(controller.parts.run_log, deployment)
    end = deployment.end
    row = {"release": name, "ending": deployment.ending, "right": deployment.ending == expected,
           "seconds": end.get("seconds"), "detection_s": end.get("detection_s"), "rollback_s": end.get("rollback_s"),
           "exposed": met and met[0], "customers": met and met[1], "reason": end.get("reason", "")}  # fmt: skip
    run.metric(f"{key}_seconds", end.get("seconds") or 0.0, "s", (None, 240) if expected == "done" else None,
               "from the order to the end")  # fmt: skip
    if expected == "rolled back":
        seconds = (end.get("detection_s") or 0.0) + (end.get("rollback_s") or 0.0)
        run.metric(f"{key}_detected_and_back_s", seconds, "s", (None, 30), "of traffic, until nobody met it any more")
        share = met[0] / met[1] if met and met[1] else 0.0
        run.metric(f"{key}_exposed", share, "", (None, 0.1), "share of the customers who met it")
    return row


def table_of(rows: list[dict[str, Any]]) -> Table:
    """One deployment a row."""
    from stage3_agents_llmops.pipeline.exposed import met_by

    table = Table(box=None, pad_edge=False)
    for title in ("release", "ended", "after", "seen after", "back after", "met by"):
        table.add_column(title, overflow="fold")

    def seconds(value: float | None) -> str:
        return "" if value is None else human_seconds(value)

    for row in rows:
        ended = row["ending"] if row["right"] else f"[red]{row['ending']}[/red]"
        table.add_row(row["release"], ended, seconds(row["seconds"]), seconds(row["detection_s"]),
                      seconds(row["rollback_s"]), met_by(row["exposed"], row["customers"]))  # fmt: skip
    return table


COMMANDS = [Command("demo", "a good release goes live, a bad one comes back, before customers", DemoConfig, run_demo,
                    PRESETS)]  # fmt: skip
