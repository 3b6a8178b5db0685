"""`guided`: the same questions with and without a grammar that lets only labels through.

At every step the grammar says which tokens can still lead to a label, and the others get probability 0. So every
answer is a label, whatever the model; whether it is the right one is still the model's business. Served are the base
and, beside it, the newest LoRA adapter, by one vLLM.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
from rich.table import Table

import data
from data.customer_service.prompt import prompt_messages
from data.understanding import Utterance
from labkit.cli import option, require_at_least
from labkit.progress import console, progress
from labkit.runs import latest_run, start_run
from stage2_rag_finetune_deploy.finetune.samples import evenly
from stage2_rag_finetune_deploy.finetune.understanding import parse_reply, score
from stage2_rag_finetune_deploy.serving import vllm_command
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_adapter, check_checkpoint
from stage2_rag_finetune_deploy.serving.guided_schema import guided_schema
from stage2_rag_finetune_deploy.serving.openai_client import Client, text_of
from stage2_rag_finetune_deploy.serving.serve_command import BASE
from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port

CLIENTS = 8


@dataclass(frozen=True)
class GuidedConfig:
    """Who is asked, and how much."""

    url: str | None = option(None, "a running server (vLLM); none starts one with base and adapter")
    adapter: Path | None = option(None, "a LoRA adapter; none is that of the newest `finetune sft`")
    language: str = option("en", "of the questions", choices=("en", "zh"))
    questions: int = option(48, "test utterances")
    max_tokens: int = option(320, "of an answer; one that is longer is cut, and then is no label")


PRESETS = {
    "smoke": GuidedConfig(questions=8), "cpu": GuidedConfig(), "study": GuidedConfig(questions=426),
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A text, and whether it was cut off at the longest length."""

    text: str
    cut: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one model, with or without the grammar: shares of the answers, and seconds for all."""

    cut: float
    json: float
    label: float
    intent: float
    exact: float
    seconds: float


def run_guided(config: GuidedConfig, preset: str) -> None:
    """Ask every model twice; table and report."""
    require_at_least(config, 1, "questions", "max_tokens")
    utterances = evenly(data.load_understanding(f"customer-service-{config.language}", "test"), config.questions)
    with ExitStack() as stack:
        serving = None if config.url else prepare(config)
        run = stack.enter_context(start_run("stage2", "serving", "guided", config, preset))
        url = config.url or stack.enter_context(start(serving, run.dir / "vllm.log")).url
        client = stack.enter_context(Client(url))
        models = [name for name in client.models() if "@sha256:" not in name]
        outcomes: dict[tuple[str, bool], Outcome] = {}
        for name in models:
            for guided in (False, True):
                answers, seconds = ask_all(client, name, utterances, guided, config.max_tokens)
                outcomes[name, guided] = judge(utterances, answers, seconds)
        show(outcomes)
        for (name, guided), outcome in outcomes.items():
            word = f"{name}/{'guided' if guided else 'free'}"
            band = (1.0, 1.0) if guided else None
            run.metric(f"{word}/label", outcome.label, band=band, meaning="answers that follow the schema")
            run.metric(f"{word}/exact", outcome.exact, meaning="the right label")
        free, held = outcomes[models[0], False], outcomes[models[0], True]
        run.learnt(f"{models[0]} held to the schema: labels {free.label:.0%} -> {held.label:.0%}, "
                   f"right ones {free.exact:.0%} -> {held.exact:.0%}")  # fmt: skip


def prepare(config: GuidedConfig) -> vllm_command.Serving:
    """The base, and an adapter where there is one."""
    base, adapters = data.fetch(BASE), {}
    run = latest_run("stage2", "finetune", "sft")
    folder = config.adapter or (run / "adapter" if run and (run / "adapter").is_dir() else None)
    if folder:
        check_adapter(folder)
        adapters["tuned"] = folder
    else:
        console.print("the base alone: no adapter yet, python -m stage2_rag_finetune_deploy.finetune sft makes one")
    return vllm_command.Serving(base, check_checkpoint(base), "base", port=free_port(), adapters=adapters)


def start(serving: vllm_command.Serving, log: Path) -> ServerProcess:
    """vLLM with base and adapter."""
    words, env = vllm_command.command(serving)
    return ServerProcess(words, serving.host, serving.port, "vLLM", 120, env, log=log)


def parameters(guided: bool, max_tokens: int) -> dict[str, Any]:
    """Of a request; the grammar is OpenAI's `response_format`."""
    greedy: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens}
    if guided:
        schema = {"name": "label", "schema": guided_schema(), "strict": True}
        greedy["response_format"] = {"type": "json_schema", "json_schema": schema}
    return greedy


def ask_all(
    client: Client, model: str, utterances: Sequence[Utterance], guided: bool, max_tokens: int
) -> tuple[list[Answer], float]:
    """The answers, a few clients at a time, and the seconds."""
    extra = parameters(guided, max_tokens)

    def ask(utterance: Utterance) -> Answer:
        answer = client.chat(model, prompt_messages(utterance.text, utterance.language), **extra)
        return Answer(text_of(answer), answer["choices"][0]["finish_reason"] == "length")

    started, word = time.perf_counter(), "held to the schema" if guided else "free"
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(progress(pool.map(ask, utterances), total=len(utterances), description=f"{model}, {word}"))
    return answers, time.perf_counter() - started


def judge(utterances: Sequence[Utterance], answers: Sequence[Answer], seconds: float) -> Outcome:
    """JSON that can be read, labels that follow the schema, intents and whole labels that are right."""
    check = jsonschema.Draft202012Validator(guided_schema())
    labels = [parse_reply(answer.text) for answer in answers]
    follows = [label is not None and check.is_valid({"intent": label.intent, "slots": label.slots}) for label in labels]
    scores = score(utterances, [answer.text for answer in answers])
    cut = sum(answer.cut for answer in answers) / len(answers)
    label = sum(follows) / len(follows)
    return Outcome(cut, scores.mean("valid"), label, scores.mean("intent"), scores.mean("exact"), seconds)


def show(outcomes: Mapping[tuple[str, bool], Outcome]) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False)
    for title in ("model", "decoding", "cut", "JSON", "in schema", "right intent", "right label", "seconds"):
        table.add_column(title, justify="left" if title in ("model", "decoding") else "right")
    for (name, guided), o in outcomes.items():
        shares = [f"{value:.0%}" for value in (o.cut, o.json, o.label, o.intent, o.exact)]
        table.add_row(name, "held to the schema" if guided else "free", *shares, f"{o.seconds:.1f}")
    console.print(table)
