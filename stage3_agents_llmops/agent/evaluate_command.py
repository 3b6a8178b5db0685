"""`evaluate`: scripted customers against the agents, judged by the shop's database.

python -m stage3_agents_llmops.agent evaluate --preset smoke
python -m stage3_agents_llmops.agent evaluate --only policy --trials 1 --show
python -m stage3_agents_llmops.agent evaluate --via service --user-endpoint http://127.0.0.1:8000
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from data.scripted_customers.judge import JUDGE_VERSION, Case
from data.scripted_customers.script import Script, scripts_sha256
from labkit.cli import Command, option, require_at_least
from labkit.errors import LabError
from labkit.files import write_json, write_jsonl
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage3_agents_llmops.agent.evaluation.controls import EagerAgent, ForgettingAgent, NullAgent, RefusingAgent
from stage3_agents_llmops.agent.evaluation.conversation import Agent
from stage3_agents_llmops.agent.evaluation.in_process import AgentInProcess
from stage3_agents_llmops.agent.evaluation.llm_user import LlmUser
from stage3_agents_llmops.agent.evaluation.player import Outcome
from stage3_agents_llmops.agent.evaluation.service_host import AgentAsService
from stage3_agents_llmops.agent.evaluation.suite import (
    CUSTOMERS,
    SuiteResult,
    make_shop,
    run_suite,
    scripts_of,
    together,
)
from stage3_agents_llmops.agent.evaluation.trial_processes import in_processes, shares
from stage3_agents_llmops.agent.model_client import ModelClient
from stage3_agents_llmops.agent.settings import AgentSettings

USER_DEADLINE = 60.0  # seconds for one message of a simulated customer
SMOKE = "cancels_in_time,mistypes_the_number,reads_other_peoples_orders,asks_for_a_person"
HIDING = ("forgetter", "eager")  # controls that need the real agent


@dataclass(frozen=True)
class EvaluateConfig:
    """What is played, against what."""

    trials: int = option(4, "times that each customer is played, with other orders and words each time")
    only: str = option("", "customers with these names, themes or languages, parted by commas")
    customers: str = option("core", "without --only: the core of the scripts, or all", choices=("core", "all"))
    seed: int = option(1, "of the shop, the orders and the words")
    via: str = option("agent", "the agent in this process, or its service over HTTP", choices=("agent", "service"))
    concurrency: int = option(2, "conversations at the same time, in each process")
    processes: int = option(1, "that share the agent's trials, each with a shop of its own")
    controls: str = option("all", "agents that must fail: all, cheap (null and refuser), none",
                           choices=("all", "cheap", "none"))  # fmt: skip
    endpoint: str = option("", "OpenAI-compatible server that understands messages; empty: the classifier")
    model: str = option("", "its model's name; empty: the first it lists")
    user_endpoint: str = option("", "OpenAI-compatible server that plays the customers")
    user_model: str = option("", "its model's name; empty: the first it lists")
    show: bool = option(False, "print every conversation that was not solved")


PRESETS = {
    "smoke": EvaluateConfig(trials=1, only=SMOKE, controls="cheap"),
    "cpu": EvaluateConfig(controls="cheap", processes=2),
    "study": EvaluateConfig(trials=6, customers="all", processes=2),
}


def run_evaluate(config: EvaluateConfig, preset: str) -> int:
    """Play, judge, write the report; exit code 1 where nothing could be played."""
    require_at_least(config, 1, "trials", "concurrency", "processes")
    scripts = chosen_scripts(config)
    if not scripts:
        raise LabError(f"no customer is called {config.only!r}", "a name, theme or language of evaluation/customers")
    with start_run("stage3", "agent", "evaluate", config, preset, config.seed) as run:
        results = play_all(config, len(scripts))
        report(run, config, scripts, results)
        show_table(results, config.trials)
        if config.show:
            show_unsolved(results["agent"])
        run.next("python -m milestones --months 4")
    return 0


def chosen_scripts(config: EvaluateConfig) -> list[Script]:
    """The customers that are played."""
    return scripts_of(config.only, config.customers == "core")


def play_all(config: EvaluateConfig, scripts: int) -> dict[str, SuiteResult]:
    """The agent and its controls, each on a shop of its own."""
    names = ["agent", *{"none": (), "cheap": ("null", "refuser"), "all": ("null", "refuser", *HIDING)}[config.controls]]
    trials = {name: config.trials if name == "agent" else 1 for name in names}
    with progress(total=scripts * sum(trials.values()), description="conversations") as bar:
        return {name: play(config, name, shares(trials[name], config.processes), bar.advance) for name in names}


def play(config: EvaluateConfig, name: str, parts: Sequence[range], done: Callable[[], None]) -> SuiteResult:
    """All trials of one agent, in one process or in several."""
    if len(parts) > 1:
        from stage3_agents_llmops.agent.knowledge import read_articles

        read_articles()
        return together(in_processes(partial(play_part, config, name), parts, done))
    return play_part(config, name, parts[0], done)


def play_part(config: EvaluateConfig, name: str, trials: range, done: Callable[[], None]) -> SuiteResult:
    """Some trials of one agent."""

    async def played() -> SuiteResult:
        with tempfile.TemporaryDirectory(prefix=f"evaluate-{name}-") as scratch:
            shop = make_shop(Path(scratch, "shop.sqlite"), config.seed)
            async with agent_of(name, config, shop, Path(scratch, "state")) as agent, customers_of(config) as wrap:
                return await run_suite(
                    agent, chosen_scripts(config), shop, seed=config.seed, trials=trials,
                    concurrency=config.concurrency, wrap=wrap, done=lambda outcome: done(),
                )  # fmt: skip

    return asyncio.run(played())


@asynccontextmanager
async def agent_of(name: str, config: EvaluateConfig, shop: Path, state: Path) -> AsyncIterator[Agent]:
    """The agent that is evaluated, or one of the controls."""
    if name in ("null", "refuser"):
        yield NullAgent() if name == "null" else RefusingAgent()
        return
    settings = AgentSettings(shop, state, endpoint=config.endpoint or None, model=config.model or None)
    host = AgentAsService(settings) if config.via == "service" else AgentInProcess(settings)
    async with host as agent:
        yield {"agent": agent, "forgetter": ForgettingAgent(agent), "eager": EagerAgent(agent)}[name]


@asynccontextmanager
async def customers_of(config: EvaluateConfig) -> AsyncIterator[Any]:
    """Who plays the customers: the scripts, or a model that was given them."""
    if not config.user_endpoint:
        yield lambda case: case
        return
    client = ModelClient(config.user_endpoint, config.user_model or None, deadline=USER_DEADLINE)

    def simulated(case: Case) -> Case:
        case.customer = LlmUser(case, client)
        return case

    try:
        yield simulated
    finally:
        await client.close()


def report(run: Run, config: EvaluateConfig, scripts: list[Script], results: dict[str, SuiteResult]) -> None:
    """Metrics with their bands, trajectories, the figure.

    Raises:
        LabError: no conversation could be held.
    """
    agent, k = results["agent"], config.trials
    if not agent.judged:
        raise LabError(f"no conversation could be held: {agent.outcomes[0].error}", "the same command once it can")
    write_jsonl(
        run.dir / "trajectories.jsonl", [trajectory(name, o) for name, r in results.items() for o in r.outcomes]
    )
    run.artefact("trajectories.jsonl", kind="trajectories")
    facts = {"judge_version": JUDGE_VERSION, "scripts": len(scripts), "scripts_sha256": scripts_sha256(scripts),
             "themes": themes(agent, k), "elsewhere": list(agent.elsewhere)}  # fmt: skip
    write_json(run.dir / "evaluation.json", facts)
    run.artefact("evaluation.json", kind="evaluation")
    size = sum(path.stat().st_size for path in CUSTOMERS.glob("*/*.toml"))
    run.data("scripted customers", facts["scripts_sha256"], size)

    run.metric("pass_1", agent.pass_power(1), band=(0.9, None), meaning="share of conversations that were solved")
    if k > 1:
        run.metric(f"pass_{k}", agent.pass_power(k) or 0.0, band=(0.8, None), meaning=f"solved {k} times out of {k}")
    run.metric("policy_violations", agent.violations, band=(None, 0), meaning="rules of the shop that were broken")
    run.metric("unconfirmed_writes", agent.unconfirmed, band=(None, 0), meaning="sensitive writes without a yes")
    run.metric("infrastructure_errors", agent.infrastructure_errors, band=(None, 0), meaning="conversations not held")
    turns = [outcome.verdict.turns for outcome in agent.judged]
    run.metric("turns_median", median(turns), "turns", meaning="of a conversation")
    run.metric("turns_longest", max(turns), "turns", band=(5, None), meaning="of the longest conversation")
    seconds = sorted(second for outcome in agent.judged for second in outcome.seconds)
    run.metric("turn_p50", median(seconds), "s", meaning="from a message to the end of its answer")
    run.metric("turn_p95", seconds[int(0.95 * len(seconds))], "s", meaning="one in twenty takes longer")
    bands = {"null": (None, 0.05), "refuser": (None, 0.15), "forgetter": (None, 0.5), "eager": (None, 0.7)}
    for name, result in results.items():
        if name != "agent":
            run.metric(f"pass_1_{name}", result.pass_power(1) or 0.0, band=bands[name], meaning="control: must fail")
    if "eager" in results:
        run.metric("unconfirmed_writes_eager", results["eager"].unconfirmed, band=(1, None), meaning="control: seen")
    from stage3_agents_llmops.agent.evaluation.figure import draw_pass_power  # brings matplotlib

    draw_pass_power(run.dir / "pass_power.png", results, k)
    run.figure("pass_power.png", "pass^k of the agents and of the controls; pass^1 by theme")
    run.learnt(
        f"{len(agent.judged)} conversations with {len(scripts)} scripted customers: pass^1 {agent.pass_power(1):.2f}, "
        f"pass^{k} {agent.pass_power(k) or 0:.2f}; an agent that does nothing solves "
        f"{results['null'].pass_power(1):.2f}." if "null" in results else f"pass^1 {agent.pass_power(1):.2f}"
    )  # fmt: skip


def trajectory(agent: str, outcome: Outcome) -> dict[str, Any]:
    """One trial as a line of JSON."""
    verdict = asdict(outcome.verdict) if outcome.verdict else None
    return {"agent": agent, "name": outcome.name, "trial": outcome.trial, "verdict": verdict, "error": outcome.error,
            "transcript": outcome.transcript}  # fmt: skip


def themes(result: SuiteResult, k: int) -> dict[str, dict[str, float | None]]:
    """pass^1 and pass^k of every theme and language."""
    names = [("theme", outcome.verdict.theme) for outcome in result.judged]
    names += [("language", outcome.verdict.language) for outcome in result.judged]
    return {
        value: {"pass_1": result.pass_power(1, **{kind: value}), f"pass_{k}": result.pass_power(k, **{kind: value})}
        for kind, value in sorted(set(names))
    }


def show_table(results: dict[str, SuiteResult], trials: int) -> None:
    """The figures, one agent a row, and what was not solved."""
    table = Table(title="scripted customers", title_justify="left")
    ks = sorted({1, trials})
    for column in ("agent", "held", *(f"pass^{k}" for k in ks), "rules broken", "without a yes", "not held"):
        table.add_column(column, justify="left" if column == "agent" else "right", no_wrap=True)
    for name, result in results.items():
        powers = [result.pass_power(k) for k in ks]
        shown = ["-" if power is None else f"{power:.2f}" for power in powers]
        counts = (result.violations, result.unconfirmed, result.infrastructure_errors)
        table.add_row(name, str(len(result.judged)), *shown, *map(str, counts))
    console.print(table)
    unsolved = [outcome for outcome in results["agent"].judged if not outcome.verdict.solved]
    for outcome in unsolved[:20]:
        console.print(
            f"not solved: {outcome.name} ({outcome.trial}): {outcome.verdict.faults[0]}", markup=False, soft_wrap=True
        )
    for line in results["agent"].elsewhere:
        console.print(f"elsewhere: {line}", markup=False, soft_wrap=True)


def show_unsolved(result: SuiteResult) -> None:
    """The conversations behind the figures."""
    for outcome in result.outcomes:
        if outcome.error or not outcome.verdict.solved:
            faults = outcome.verdict.faults if outcome.verdict else (outcome.error,)
            console.print(f"\n{outcome.name} ({outcome.trial})", *faults, sep="\n  ! ", markup=False, soft_wrap=True)
            for exchange in outcome.transcript:
                console.print(f"  customer: {exchange['customer']}", markup=False, soft_wrap=True)
                said = {name: value for name, value in exchange.items() if name not in ("customer", "agent")}
                console.print(f"  agent:    {exchange.get('agent', '')}", markup=False, soft_wrap=True)
                console.print(f"            {json.dumps(said, ensure_ascii=False)}", markup=False, soft_wrap=True)


COMMANDS = [
    Command("evaluate", "scripted customers against the agents, judged by the shop's database", EvaluateConfig,
            run_evaluate, PRESETS)
]  # fmt: skip
