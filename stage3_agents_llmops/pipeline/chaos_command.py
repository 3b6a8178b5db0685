"""`chaos`: faults on purpose, while customers talk; each shows the alert and the recovery time.

python -m stage3_agents_llmops.pipeline chaos --preset cpu
python -m stage3_agents_llmops.pipeline chaos --only killed-worker,full-disk
"""

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from labkit.cli import Command, nearest, option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console
from labkit.runs import start_run
from stage3_agents_llmops.pipeline.common_options import PipelineOptions, parts_of

CUSTOMER = "C1030"


@dataclass(frozen=True)
class ChaosConfig(PipelineOptions):
    """Which faults, before how many customers."""

    only: str = option("", "faults parted by commas; empty: all")
    customers: int = option(8, "simulated customers at once")
    keep: bool = option(False, "leave gateway and services running afterwards")


PRESETS = {"cpu": ChaosConfig(), "smoke": ChaosConfig(customers=2), "study": ChaosConfig(customers=20)}
PRESETS["gpu"] = PRESETS["study"]


def run_chaos(config: ChaosConfig, preset: str) -> int:
    """All faults one after the other; exit code 1 where one was not seen, or not put right."""
    from stage3_agents_llmops.pipeline.bad_releases import make_bad
    from stage3_agents_llmops.pipeline.chaos import FAULTS, Chaos, as_row
    from stage3_agents_llmops.pipeline.controller import Controller
    from stage3_agents_llmops.pipeline.first_release import first_release
    from stage3_agents_llmops.pipeline.run_command import terminated, traffic

    chosen = chosen_faults(config.only, list(FAULTS))
    with start_run("stage3", "pipeline", "chaos", config, preset, config.seed) as run:
        home = config.home or run.dir / "home"
        registry = config.registry or f"sqlite:///{Path(home).absolute()}/mlflow.db"
        Path(home).mkdir(parents=True, exist_ok=True)
        parts = parts_of(replace(config, home=home, registry=registry), preset)
        findings = []
        try:
            with terminated(), Controller(parts) as controller:
                first_release(parts)
                controller.serve(config.port, config.host)
                controller.resume()  # what an earlier one has left
                chaos = Chaos(controller, make_bad, lambda: ask(parts))
                with traffic(parts, config.customers):
                    for name in chosen:
                        console.print(f"{time.strftime('%H:%M:%S')}  fault: {name}", markup=False)
                        findings.append(FAULTS[name](chaos))
        finally:
            if not config.keep:
                parts.fleet.processes.stop_all(20.0)
            parts.notifier.close()
        console.print(table_of(findings))
        for finding in findings:
            if finding.note:
                console.print(f"  {finding.fault}: {finding.note}", markup=False, soft_wrap=True)
        write_json(run.dir / "faults.json", [as_row(finding) for finding in findings])
        run.artefact("faults.json", kind="faults")
        for finding in findings:
            if finding.recovery_s is not None:
                name = finding.fault.replace(" ", "_").lower()
                run.metric(f"{name}_alert_s", finding.alert_s or 0.0, "s", None, "from the fault to the alert")
                run.metric(f"{name}_recovery_s", finding.recovery_s, "s", None, "until all was well")
        run.metric("faults_survived", sum(finding.survived for finding in findings), "", (len(findings), None),
                   f"of {len(findings)}: somebody was told, and all was well again")  # fmt: skip
    return 0 if all(finding.survived for finding in findings) else 1


def chosen_faults(only: str, known: list[str]) -> list[str]:
    """The faults of a list of words.

    Raises:
        LabError: one that there is not.
    """
    words = [word.strip() for word in only.split(",") if word.strip()] or known
    for word in words:
        if word not in known:
            raise LabError(f"there is no fault {word}", f"--only {nearest(word, known) or ', '.join(known)}")
    return words


def ask(parts: Any) -> bool:
    """One message through the gateway; whether it was answered."""
    from stage3_agents_llmops.agent.service.sse_client import ServiceClient

    async def talk() -> bool:
        token = parts.fleet.token_of()(CUSTOMER)
        async with ServiceClient(parts.fleet.gateway().url, token, timeout=20) as client:
            async with asyncio.timeout(25):
                events = await client.say(await client.open_thread("en"), "How long do I have to send something back?")
        return any(event.type == "end" and event.data["reason"] == "answered" for event in events)

    return asyncio.run(talk())


def table_of(findings: list[Any]) -> Table:
    """One fault a row."""
    from stage3_agents_llmops.pipeline.exposed import met_by

    table = Table(box=None, pad_edge=False)
    for title in ("fault", "alert", "after", "well after", "met by"):
        table.add_column(title, overflow="fold")
    for each in findings:
        seconds = ["never" if value is None else f"{value:.1f} s" for value in (each.alert_s, each.recovery_s)]
        met = "" if each.exposed is None else met_by(*each.exposed)
        table.add_row(each.fault, each.alert or "[red]none[/red]", *seconds, met)
    return table


COMMANDS = [Command("chaos", "faults on purpose: which alert, and how long until all is well", ChaosConfig, run_chaos,
                    PRESETS)]  # fmt: skip
