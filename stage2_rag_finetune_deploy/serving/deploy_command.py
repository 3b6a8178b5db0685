"""`deploy`: start the server with the tuned model, ask it as a client would, and record what was deployed.

The record, `deployment.json` in the run's folder, is what month 3 grades: which folder, which engine, which weights.
The server is ended again: `serve` keeps one up.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from rich.table import Table
from rich.text import Text

import data
from data.customer_service.prompt import prompt_messages
from labkit.checkpoint_hash import checkpoint_sha256, served_id
from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console
from labkit.runs import runs_root, start_run
from stage2_rag_finetune_deploy.finetune.export import newest_merged
from stage2_rag_finetune_deploy.finetune.samples import evenly
from stage2_rag_finetune_deploy.finetune.understanding import score
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_adapter, check_checkpoint
from stage2_rag_finetune_deploy.serving.serve_command import BASE
from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port

NAME = "tuned"
RECORD = "deployment.json"


@dataclass(frozen=True)
class DeployConfig:
    """Options of `deploy`."""

    model: Path | None = option(None, "folder under runs/ of the tuned model; none is the newest `finetune sft`")
    adapter: Path | None = option(None, "folder under runs/ of a LoRA adapter, served on the base model instead")
    engine: str = option("mini", "the engine by hand, or vLLM from .venv-serve", ("mini", "vllm"))
    language: str = option("en", "of the questions that try it out", ("en", "zh"))
    questions: int = option(24, "validation utterances that try it out")
    patience: int = option(90, "seconds until the server has to answer")


PRESETS = {"smoke": DeployConfig(questions=2), "cpu": DeployConfig(questions=16), "study": DeployConfig(questions=157)}


@dataclass(frozen=True)
class Deployment:
    """What the record says; the two folders are relative to runs/."""

    model: str | None
    adapter: str | None
    engine: str
    sha256: str


def deployment(config: DeployConfig) -> tuple[Deployment, Path]:
    """The record of what is to be deployed, and the folder with its weights.

    Raises:
        LabError: no such folder, not whole, or not under runs/, where the milestone looks for it.
    """
    folder = (config.adapter or config.model or newest_merged()).absolute()
    (check_adapter if config.adapter else check_checkpoint)(folder)
    if not folder.resolve().is_relative_to(runs_root().resolve()):
        raise LabError(f"{folder} is not under {runs_root()}", "a folder there: a hand-in has to hold its weights")
    place = folder.resolve().relative_to(runs_root().resolve()).as_posix()
    named = {"model": None, "adapter": place} if config.adapter else {"model": place, "adapter": None}
    return Deployment(**named, engine=config.engine, sha256=checkpoint_sha256(folder)), folder


def serve_words(config: DeployConfig, folder: Path, port: int) -> list[str]:
    """The command that a person would type."""
    words = [sys.executable, "-m", "stage2_rag_finetune_deploy.serving", "serve", "--engine", config.engine]
    words += ["--port", str(port), "--patience", str(config.patience)]
    if config.adapter:
        base = str(data.fetch(BASE))
        return [*words, "--model", base, "--served-name", "base", "--adapter", f"{NAME}={folder}"]
    return [*words, "--model", str(folder), "--served-name", NAME]


def run_deploy(config: DeployConfig, preset: str) -> None:
    """Start, ask, record, end."""
    record, folder = deployment(config)
    questions = evenly(data.load_understanding(f"customer-service-{config.language}", "validation"), config.questions)
    with start_run("stage2", "serving", "deploy", config, preset) as run:
        port = free_port()
        server = ServerProcess(
            serve_words(config, folder, port), "127.0.0.1", port, f"the {config.engine} engine", config.patience,
            log=run.dir / "server.log",
        )  # fmt: skip
        with server, httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            listed = [model["id"] for model in client.get("/v1/models").raise_for_status().json()["data"]]
            if served_id(NAME, record.sha256) not in listed:
                known = ", ".join(listed)
                raise LabError(f"the server lists {known}, not the weights of {folder}", f"less {run.dir}/server.log")
            replies = [ask(client, each.text, each.language) for each in questions]
        scores = score(questions, replies)
        write_json(run.dir / RECORD, asdict(record))
        run.artefact(RECORD, kind="deployment")
        show(record, listed, list(zip((each.text for each in questions), replies, strict=True))[:3])
        console.print(f"{len(questions)} validation utterances: exact {scores.mean('exact'):.1%}", markup=False)
        run.metric("seconds_to_ready", server.seconds_to_ready, "s", meaning="from the command to /health")
        run.metric("exact", scores.mean("exact"), meaning=f"{len(questions)} validation utterances, streamed")
        run.next("make milestones")


def ask(client: httpx.Client, text: str, language: str) -> str:
    """The greedy answer to an utterance, joined from the stream.

    Raises:
        LabError: the server answers with an error.
    """
    body = {
        "model": NAME, "messages": prompt_messages(text, language), "max_tokens": 80, "temperature": 0, "stream": True,
    }  # fmt: skip
    pieces = []
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            message = f"the server answered {reply.status_code}: {reply.read()[:200]!r}"
            raise LabError(message, "python -m stage2_rag_finetune_deploy.serving serve, and look at its log")
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                pieces += [choice["delta"].get("content") or "" for choice in choices]
    return "".join(pieces)


def show(record: Deployment, listed: list[str], samples: list[tuple[str, str]]) -> None:
    """What is deployed, and three answers of it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("weights", f"runs/{record.adapter or record.model}")
    table.add_row("engine", record.engine)
    table.add_row("served as", ", ".join(listed))
    for text, reply in samples:
        table.add_row("")
        table.add_row("customer", Text(text))  # not a string: brackets would be taken for markup
        table.add_row("answer", Text(reply))
    console.print(table)
