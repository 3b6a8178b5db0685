"""A pipeline around light_service.py: real controller, gateway, registry, processes; only the agents are replaced."""

import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.files import write_json, write_jsonl
from stage3_agents_llmops.pipeline.common_options import PipelineOptions, parts_of
from stage3_agents_llmops.pipeline.controller import Controller, order_of
from stage3_agents_llmops.pipeline.evaluation import share, write_evaluation
from stage3_agents_llmops.pipeline.gates import Figure
from stage3_agents_llmops.pipeline.recipe import Recipe
from stage3_agents_llmops.pipeline.schedule import Schedule
from stage3_agents_llmops.registry import CHAMPION, Draft, Lineage

FAST = Schedule(shadow=0.0, looks=(0.0,) * 5, patience=6.0, every=0.05, probes=8, shadow_times=1, concurrency=8,
                drain=5.0, restarts=1, registry=2.0)  # fmt: skip
ARTICLES = ("return-window", "parcel-late", "invoice", "gift-card", "warranty", "sizes", "cancel", "address")


class LightRecipe(Recipe):
    """Makes folders in no time; `behaviour` is what a candidate that is trained here will do."""

    behaviour: dict[str, Any] = {}
    data: dict[str, str] = {"set": "ab" * 32}

    def check_data(self) -> dict[str, Any]:
        return {"figures": {"utterances": 10}, "data": dict(self.data)}

    def check_release(self, release: Path, champion: Path) -> dict[str, Any]:
        return {"poisoned_articles": 0}

    def build(self, folder: Path, adapter: Path | None = None) -> Path:
        return make_release(folder, seed=self.seed, **self.behaviour)

    def evaluate_all(self, places: Any, between: Any = lambda: None) -> None:
        for out in places.values():
            if not out.exists():
                write_evaluation(out, figures())

    def draft(self, folder: Path, evaluation: Path, parent: str | None, note: str) -> Draft:
        parts = {part: folder / part for part in ("model", "rag", "graph")}
        return Draft(parts, Lineage(data=self.data, parent=parent), evaluation, note=note)


def figures(**changes: Any) -> dict[str, Figure]:
    """An evaluation that passes all gates."""
    right = [f"q{number}" for number in range(400)]
    few = [f"c{number}" for number in range(40)]
    return {
        "intent_accuracy": share([1] * 380 + [0] * 20, right), "retrieval_accuracy": share([1] * 360 + [0] * 40, right),
        "conversations_solved": share([1] * 40, few), "policy_violations": Figure(0, 40),
        "unconfirmed_writes": Figure(0, 40), "poisoned_articles": Figure(0, 80), "turn_p95": Figure(0.2, 100),
        "release_bytes": Figure(1000, 1),
    } | changes  # fmt: skip


def make_release(folder: Path, seed: int = 1, **behaviour: Any) -> Path:
    """A folder whose service behaves like that."""
    for part in ("model", "rag", "graph"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_json(folder / "model" / "model.json", {"kind": "classifier", "seed": seed})
    write_json(folder / "rag" / "rag.json", {"variant": "hybrid"})
    write_json(folder / "graph" / "behaviour.json", behaviour)
    return folder


def light_command(home: Any, instance: str, release: Path, port: int, shadow: bool) -> list[str]:
    """The light service."""
    words = [sys.executable, str(Path(__file__).with_name("light_service.py")), "--release", str(release), "--port",
             str(port), "--instance", instance]  # fmt: skip
    return words


def light_parts(home: Path, seed: int = 1, **changes: Any) -> Any:
    """The parts of a pipeline in a folder, its probes beside it."""
    home.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"{word} is it about {article}?", "language": "en", "articles": [f"en/{article}"]}
            for word in ("what", "how", "when", "why") for article in ARTICLES]  # fmt: skip
    if not (home / "probes.jsonl").exists():
        write_jsonl(home / "probes.jsonl", rows)
    parts = parts_of(PipelineOptions(home=home, quiet=True, seed=seed), "smoke", light_command, LightRecipe(seed=seed))
    return replace(parts, schedule=replace(FAST, **changes))


def first_champion(parts: Any) -> None:
    """A shop file and a champion."""
    parts.home.shop.touch()
    if CHAMPION not in parts.registry.aliases():
        folder = make_release(parts.home.folder / "first", seed=0)
        evaluation = write_evaluation(parts.home.folder / "first.json", figures())
        release = parts.registry.publish(parts.recipe.draft(folder, evaluation, None, ""))
        parts.registry.set_alias(CHAMPION, release.version, expected=None)


class Customers:
    """Real HTTP requests through the gateway, one after the other, from many customers; all that went wrong is kept."""

    def __init__(self, home: Path, url: str) -> None:
        from stage3_agents_llmops.agent.service.auth import Tokens

        self.url, self.tokens = url, Tokens.open(home / "state")
        self.asked = self.answered = 0
        self.faults: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self) -> "Customers":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(20)

    def _talk(self) -> None:
        import asyncio

        asyncio.run(self._all())

    async def _all(self) -> None:
        import asyncio

        await asyncio.gather(*(self._one(place) for place in range(4)))

    async def _one(self, place: int) -> None:
        from stage3_agents_llmops.agent.service.sse_client import ServiceClient

        number = 0
        while not self._stop.is_set():
            number += 1
            customer = f"C{2000 + (37 * number + 11 * place) % 400}"
            self.asked += 1
            try:
                async with ServiceClient(self.url, self.tokens.issue(customer), timeout=20) as client:
                    thread = await client.open_thread("en")
                    seqs = [event.seq for event in await client.say(thread, f"what about {ARTICLES[number % 8]}?")]
                if seqs != list(range(1, len(seqs) + 1)):
                    self.faults.append(f"events {seqs}")
                self.answered += 1
            except Exception as error:  # whatever it is, the customer saw it
                self.faults.append(f"{type(error).__name__}: {error}")


def deploy_in_a_child(home: Path, kill: str | None, release: Path | None = None, seed: int = 2) -> tuple[int, str]:
    """One deployment (a new one, or the one that did not end) in a forked process: (signal or 0, the ending).

    Args:
        kill: "KIND:STEP", the event after which the child ends itself with SIGKILL.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            parts = light_parts(home, seed=seed)

            def after(kind: str, data: Any) -> None:
                if kill == f"{kind}:{data.get('step', '')}":
                    os.kill(os.getpid(), signal.SIGKILL)

            with Controller(parts, after) as controller:
                controller.serve()
                order = order_of(release, write_evaluation(home / "made.json", figures()) if release else None)
                deployment = controller.resume() or controller.deploy(order)
            os.write(writing, f"{deployment.ending}".encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, stream.read()
