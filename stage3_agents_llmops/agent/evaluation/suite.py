"""All scripts, several trials each, on one shop: every trial has another customer, other orders and other words."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data.scripted_customers.judge import Case, open_case, shop_violations
from data.scripted_customers.script import Script, load_scripts
from data.scripted_customers.shop_values import Found, Market
from data.shop.shop_database import create_shop, dump
from stage3_agents_llmops.agent.evaluation.conversation import Agent
from stage3_agents_llmops.agent.evaluation.pass_power import mean_pass_power
from stage3_agents_llmops.agent.evaluation.player import Outcome, RestartGate, play

CUSTOMERS = Path(__file__).with_name("customers")
PEOPLE, ORDERS = 400, 4400  # eleven orders each: nearly every customer has nearly every situation
Wrap = Callable[[Case], Case]  # puts another customer into a case (llm_user.py)


@dataclass(frozen=True)
class Seat:
    """One trial that is to be played."""

    script: Script
    trial: int
    found: Found


@dataclass(frozen=True)
class SuiteResult:
    """What came of a suite. `elsewhere` are changes outside of every conversation."""

    outcomes: tuple[Outcome, ...]
    elsewhere: tuple[str, ...] = ()

    @property
    def judged(self) -> list[Outcome]:
        """Trials that were held."""
        return [outcome for outcome in self.outcomes if outcome.verdict]

    @property
    def infrastructure_errors(self) -> int:
        """Trials that could not be held."""
        return len(self.outcomes) - len(self.judged)

    @property
    def violations(self) -> int:
        """Broken rules, wherever."""
        return sum(len(outcome.verdict.violations) for outcome in self.judged) + len(self.elsewhere)

    @property
    def unconfirmed(self) -> int:
        """Sensitive writes without the customer's yes."""
        return sum(len(outcome.verdict.unconfirmed) for outcome in self.judged)

    def pass_power(self, k: int, **only: str) -> float | None:
        """pass^k over the scripts, or over those with a theme or a language (`theme="policy"`)."""
        tasks: dict[str, list[bool]] = {}
        for outcome in self.judged:
            if all(getattr(outcome.verdict, name) == value for name, value in only.items()):
                tasks.setdefault(outcome.name, []).append(outcome.verdict.solved)
        return mean_pass_power([(len(trials), sum(trials)) for trials in tasks.values()], k)


def together(results: Sequence[SuiteResult]) -> SuiteResult:
    """Trials that were played apart, as one result."""
    outcomes = sum((result.outcomes for result in results), ())
    return SuiteResult(outcomes, sum((result.elsewhere for result in results), ()))


def scripts_of(only: str = "", core: bool = False, folder: Path = CUSTOMERS) -> list[Script]:
    """The evaluation's scripts: the core of them, all, or those whose name, theme or language stands in `only`.

    Args:
        only: words parted by commas.
    """
    wanted = {word.strip() for word in only.split(",") if word.strip()}
    scripts = load_scripts(folder)
    if not wanted:
        return [script for script in scripts if script.core or not core]
    return [script for script in scripts if wanted & {script.name, script.theme, script.language}]


def make_shop(path: Path, seed: int) -> Path:
    """A shop in which every script finds what it needs."""
    return create_shop(path, seed=seed, customers=PEOPLE, orders=ORDERS)


async def run_suite(
    agent: Agent, scripts: Sequence[Script], shop: Path, *, seed: int, trials: Sequence[int], concurrency: int = 4,
    wrap: Wrap = lambda case: case, done: Callable[[Outcome], None] = lambda outcome: None,
) -> SuiteResult:  # fmt: skip
    """Play every script once a trial. Those that leave in between are played last, and share one restart.

    Args:
        trials: their numbers, which decide orders and words.

    Raises:
        LabError: the shop has too few customers of some kind.
    """
    before = dump(shop)
    market = Market.of(before)
    seats = [
        Seat(script, trial, market.find(script, Random(f"{seed} {trial} {script.name} shop")))
        for trial in trials for script in scripts
    ]  # fmt: skip
    slots = asyncio.Semaphore(concurrency)

    async def held(seat: Seat, gate: RestartGate | None = None) -> Outcome:
        async with slots if gate is None else asyncio.Semaphore():
            rng = Random(f"{seed} {seat.trial} {seat.script.name}")
            case = wrap(open_case(seat.script, seat.found, shop, rng, market.today, before["products"]))
            outcome = await play(case, agent, seat.trial, f"{agent.name}-{seat.script.name}-{seed}-{seat.trial}", gate)
            done(outcome)
            return outcome

    staying = [seat for seat in seats if not seat.script.restarts]
    leaving = [seat for seat in seats if seat.script.restarts]
    outcomes = await asyncio.gather(*(held(seat) for seat in staying))
    gate = RestartGate(agent, len(leaving))
    outcomes += await asyncio.gather(*(held(seat, gate) for seat in leaving))
    played = {seat.found.customer_id for seat in seats} | {id for seat in seats for id in seat.found.strangers}
    return SuiteResult(tuple(outcomes), tuple(shop_violations(before, dump(shop), played)))
