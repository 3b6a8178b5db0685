"""What is known of a release before customers meet it: labelled messages, labelled questions, whole conversations.

    python -m stage3_agents_llmops.pipeline evaluate --release FOLDER --out evaluation.json

Every release gets the same questions, in a process of its own, so that nothing of the last one is left in memory. The
outcomes are kept question by question: champion and candidate are compared in pairs (gates.py). The questions are held
out: the classifier was fitted and calibrated on other voices, and the thresholds of the search on the other half of the
help centre's questions.
"""

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from labkit.errors import LabError
from labkit.files import write_json
from stage3_agents_llmops.pipeline.gates import Figure

METRICS = {  # metric -> whether it is a share, judged question by question
    "intent_accuracy": True,
    "retrieval_accuracy": True,
    "conversations_solved": True,
    "policy_violations": False,
    "unconfirmed_writes": False,
    "poisoned_articles": False,
    "turn_p95": False,
    "release_bytes": False,
}


@dataclass(frozen=True)
class EvaluationSize:
    """How much is asked. 0 leaves a part out; its figures are then missing, and gates hold."""

    intents: int = 160
    questions: int = 64
    conversations: int = 10
    seed: int = 1


PRESETS = {
    "smoke": EvaluationSize(intents=100, questions=40, conversations=8),
    "cpu": EvaluationSize(),
    "study": EvaluationSize(intents=600, questions=400, conversations=40),
}
PRESETS["gpu"] = PRESETS["study"]


def evaluate(release: Path, size: EvaluationSize) -> dict[str, Figure]:
    """All figures of a release.

    Raises:
        LabError: the folder holds no release that can be served.
    """
    from stage3_agents_llmops.agent.evaluation.suite import make_shop
    from stage3_agents_llmops.agent.model_server import served_release
    from stage3_agents_llmops.agent.settings import AgentSettings

    with tempfile.TemporaryDirectory(prefix="evaluate-release-") as scratch:
        shop = make_shop(Path(scratch) / "shop.sqlite", size.seed)
        with served_release(AgentSettings(shop, Path(scratch) / "state", release=release)) as settings:
            return asyncio.run(_evaluate(release, size, settings, shop))


async def _evaluate(release: Path, size: EvaluationSize, settings: Any, shop: Path) -> dict[str, Figure]:
    from stage3_agents_llmops.agent.evaluation.in_process import AgentInProcess
    figures = folder_figures(release)
    async with AgentInProcess(settings) as host:
        if size.intents:
            figures["intent_accuracy"] = await intent_accuracy(host.agent.services.understander, size)
        if size.questions:
            figures["retrieval_accuracy"] = retrieval_accuracy(host.agent.services.knowledge, size)
        if size.conversations:
            figures |= await conversations(host, shop, size)
    return figures


def folder_figures(release: Path) -> dict[str, Figure]:
    """What the files themselves say."""
    from stage3_agents_llmops.agent.release import ReleaseFolder

    parts = (file for part in ("model", "rag", "graph") for file in (release / part).rglob("*") if file.is_file())
    return {
        "poisoned_articles": Figure(len(poisoned_articles(release)), len(ReleaseFolder.open(release).articles)),
        "release_bytes": Figure(sum(file.stat().st_size for file in parts), 1),
    }


def poisoned_articles(release: Path) -> list[str]:
    """Articles of a release with sentences that speak to a model instead of a customer."""
    from stage2_rag_finetune_deploy.rag.injection_guard import guard
    from stage3_agents_llmops.agent.release import ReleaseFolder

    articles = ReleaseFolder.open(release).articles
    return [f"{article.language}/{article.id}" for article in articles if guard(article.text).removed]


async def intent_accuracy(understander: Any, size: EvaluationSize) -> Figure:
    """The share of held-out messages whose intent is right, half of them Chinese."""
    from data.understanding import read_customer_service

    chosen = []
    for language in ("en", "zh"):
        items = read_customer_service(language, "test")
        chosen += Random(f"intents {size.seed}").sample(items, min(size.intents // 2, len(items)))
    read_together([item.text for item in chosen])
    outcomes = [int((await understander.understand(item.text, item.language)).intent == item.intent) for item in chosen]
    return share(outcomes, [item.id for item in chosen])


def retrieval_accuracy(knowledge: Any, size: EvaluationSize) -> Figure:
    """The share of held-out questions whose article is the first that is found."""
    from data.help_articles import LANGUAGES, load_help_questions

    held_out = [(language, question) for language in LANGUAGES
                for question in load_help_questions(language)[1::2] if question.article]  # fmt: skip
    chosen = Random(f"questions {size.seed}").sample(held_out, min(size.questions, len(held_out)))
    read_together([question.text for _, question in chosen])
    outcomes = []
    for language, question in chosen:
        found = knowledge.search(question.text, language, k=1)
        outcomes.append(int(bool(found) and found[0].id == f"{language}/{question.article}"))
    return share(outcomes, [f"{language} {question.text}" for language, question in chosen])


def read_together(texts: Sequence[str]) -> None:
    """Have E5 read texts in batches, which is three times as quick as one by one; it remembers them for a while."""
    from stage3_agents_llmops.agent.text_encoder import REMEMBERED, load_e5

    load_e5().encode_now(texts[:REMEMBERED], "query")


async def conversations(host: Any, shop: Path, size: EvaluationSize) -> dict[str, Figure]:
    """Scripted customers, judged by the shop's database."""
    from stage3_agents_llmops.agent.evaluation.suite import run_suite, scripts_of

    scripts = [script for script in scripts_of(core=True) if not script.restarts]
    chosen = sorted(Random(f"scripts {size.seed}").sample(scripts, min(size.conversations, len(scripts))),
                    key=lambda script: script.name)  # fmt: skip
    trials = range(max(1, size.conversations // len(chosen)))
    result = await run_suite(host, chosen, shop, seed=size.seed, trials=trials, concurrency=2)
    outcomes = sorted(result.outcomes, key=lambda outcome: (outcome.name, outcome.trial))
    solved = [int(outcome.verdict is not None and outcome.verdict.solved) for outcome in outcomes]
    seconds = sorted(second for outcome in outcomes for second in outcome.seconds)
    return {
        "conversations_solved": share(solved, [f"{outcome.name} {outcome.trial}" for outcome in outcomes]),
        "policy_violations": Figure(result.violations, len(result.judged)),
        "unconfirmed_writes": Figure(result.unconfirmed, len(result.judged)),
        "turn_p95": Figure(seconds[int(0.95 * len(seconds))] if seconds else None, len(seconds)),
    }


def share(outcomes: Sequence[int], items: Sequence[str]) -> Figure:
    """A share and what it consists of; `items` names the questions, so that only equal lists are compared."""
    name = hashlib.sha256("\n".join(items).encode()).hexdigest()[:16]
    return Figure(sum(outcomes) / len(outcomes) if outcomes else None, len(outcomes), tuple(outcomes), name)


def write_evaluation(path: Path, figures: Mapping[str, Figure], **facts: Any) -> Path:
    """The report that goes into the release: labkit's form of metrics, with the outcomes beside them."""
    metrics = {
        name: {"value": figure.value, "n": figure.n} | ({"outcomes": "".join(map(str, figure.outcomes)),
                                                         "items": figure.items} if figure.outcomes else {})
        for name, figure in figures.items()
    }  # fmt: skip
    return write_json(path, {"schema": 1, **facts, "metrics": metrics})


def read_evaluation(path: Path) -> dict[str, Figure]:
    """The figures of a report.

    Raises:
        LabError: there is none, or it is none.
    """
    advice = "python -m stage3_agents_llmops.pipeline evaluate --release FOLDER --out FILE"
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))["metrics"]
        return {name: Figure(row["value"], int(row.get("n", 0)), tuple(map(int, row.get("outcomes", ""))),
                             row.get("items", "")) for name, row in metrics.items()}  # fmt: skip
    except FileNotFoundError:
        raise LabError(f"there is no evaluation at {path}", advice) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LabError(f"{path} is no evaluation", advice) from None
