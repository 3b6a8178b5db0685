"""Serve a checkpoint behind the OpenAI-compatible API, with vLLM or with the engine written by hand, until Ctrl-C."""

import json
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import data
from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.progress import console
from stage2_rag_finetune_deploy.finetune.export import newest_merged
from stage2_rag_finetune_deploy.serving import vllm_command
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_adapter, check_checkpoint
from stage2_rag_finetune_deploy.serving.server_process import GRACE, ServerProcess, check_port
from stage2_rag_finetune_deploy.serving.vllm_command import Serving

BASE = "smollm2-135m-instruct"
# Kernels of torchao and Triton that a processor does not have, torch's deprecations, a bar that is drawn anew each time
NOISE = re.compile(r"Failed to load \S*torchao|W\d{4} \S+ \d+ \S*torch/|Loading safetensors checkpoint shards")


@dataclass(frozen=True)
class ServeConfig:
    """What is served, by which engine, where."""

    engine: str = option("mini", "by hand, or vLLM in .venv-serve (make setup-serve)", choices=("mini", "vllm"))
    model: Path | None = option(None, "a checkpoint folder; none is the newest fine-tuned model, else the base")
    served_name: str | None = option(None, "what clients call it; none is tuned, base, or the folder's name")
    adapter: str = option("", "LoRA adapters served beside it: NAME=FOLDER; may be given several times")
    host: str = option("127.0.0.1", "where it listens; 0.0.0.0 is every network of this machine, without a password")
    port: int = option(8000, "where it listens")
    max_model_len: int = option(1024, "tokens of a prompt and its answer together")
    max_num_seqs: int = option(32, "requests that are computed at once; more wait")
    dtype: str = option("auto", "of the weights", choices=("auto", "bf16", "fp16", "fp32"))
    kv_gib: int = option(1, "GiB of memory for the KV cache (vLLM on a processor, mini)")
    tensor_parallel_size: int = option(1, "graphics cards that share the model (vLLM)")
    gpu_memory: float = option(0.9, "share of a card's memory that is used (vLLM with CUDA)")
    patience: float = option(60.0, "seconds until the server has to be healthy")
    vllm: str = option("", "more options for vLLM, as one text: '--swap-space 2'")


PRESETS = {
    "cpu": ServeConfig(),
    "gpu": ServeConfig(engine="vllm", max_model_len=8192, max_num_seqs=256, patience=600.0),
}


def with_adapters(words: list[str]) -> list[str]:
    """`--adapter A=X --adapter B=Y` as the one option `--adapter A=X,B=Y`."""
    values, rest, words = [], [], list(words)
    while words:
        word = words.pop(0)
        if word == "--adapter" and words:
            values.append(words.pop(0))
        elif word.startswith("--adapter="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return [*rest, "--adapter", ",".join(values)] if values else rest


def read_adapters(text: str) -> dict[str, Path]:
    """`A=X,B=Y` as names and folders.

    Raises:
        LabError: no `=`, no name, a name twice, or a folder that is no adapter.
    """
    adapters: dict[str, Path] = {}
    for part in filter(None, text.split(",")):
        name, equals, folder = part.partition("=")
        if not (name and equals and folder):
            raise LabError(f"--adapter wants NAME=FOLDER, not {part!r}", "--adapter tuned=runs/.../adapter")
        if name in adapters:
            raise LabError(f"two adapters are called {name}", "--adapter a=... --adapter b=...")
        check_adapter(Path(folder))
        adapters[name] = Path(folder)
    return adapters


def chosen_model(model: Path | None) -> tuple[Path, str]:
    """The folder to serve and what to call it: the one given, else the newest fine-tuned model, else the base."""
    if model is not None:
        return model, model.resolve().name
    try:
        return newest_merged(), "tuned"
    except LabError:
        console.print(f"no fine-tuned model yet: serving the base {BASE}", markup=False)
        return data.fetch(BASE), "base"


def serving_of(config: ServeConfig) -> Serving:
    """The checked configuration.

    Raises:
        LabError: an incomplete folder, a name taken twice, a number that is not possible.
    """
    require_at_least(config, 1, "max_model_len", "max_num_seqs", "kv_gib", "tensor_parallel_size")
    if not 0 < config.gpu_memory <= 1:
        raise LabError(f"--gpu-memory {config.gpu_memory} is not possible", "a share between 0 and 1, such as 0.9")
    adapters = read_adapters(config.adapter)
    folder, name = chosen_model(config.model)
    name = config.served_name or name
    if name in adapters:
        raise LabError(f"the model and an adapter are both called {name}", "--served-name base")
    settings = check_checkpoint(folder)
    longest = settings.get("max_position_embeddings", config.max_model_len)
    if config.max_model_len > longest:
        raise LabError(f"the model knows {longest} positions, not {config.max_model_len}", f"--max-model-len {longest}")
    return Serving(
        folder, settings, name, config.host, config.port, adapters, config.max_model_len, config.max_num_seqs,
        config.dtype, config.kv_gib, config.tensor_parallel_size, config.gpu_memory,
    )  # fmt: skip


def run_serve(config: ServeConfig, preset: str) -> int | None:
    """Check everything, start, say the address, stream the log, end cleanly."""
    if config.engine == "mini" and config.tensor_parallel_size > 1:
        raise LabError("the mini engine runs on one device", "--engine vllm --tensor-parallel-size 2")
    serving = serving_of(config)
    check_port(config.host, config.port)
    if config.engine == "mini":
        return serve_by_hand(serving)
    words, env = vllm_command.command(serving, config.vllm.split())
    with stopped_politely() as stopped:
        server = ServerProcess(
            words, config.host, config.port, "vLLM", config.patience, env, print_line, grace=GRACE / 2
        )
        with server:
            show_address(server.url, serving, f"vLLM ready after {server.seconds_to_ready:.0f} s")
            code = server.wait()
    if stopped:
        console.print("vLLM is stopped, the port is free")
        return 0
    raise LabError(f"vLLM ended by itself (exit code {code})", "the lines above, then the same command again")


def serve_by_hand(serving: Serving) -> int | None:
    """The same with the mini engine, in this process."""
    from stage2_rag_finetune_deploy.serving.openai_server import serve_mini  # torch takes seconds to import

    return serve_mini(serving)


def print_line(line: str) -> None:
    """A line of the server's log, unless it only talks of what is not needed here."""
    if line.strip() and not NOISE.match(line):
        console.print(line, markup=False, soft_wrap=True)


def show_address(url: str, serving: Serving, ready: str) -> None:
    """Where it listens and what it serves."""
    console.print(f"\n{ready}: {url}/v1   (Ctrl-C stops it)", markup=False)
    for name in [serving.names()[1], *serving.adapters]:
        console.print(f"  model {name}", markup=False)
    question = {"model": serving.name, "messages": [{"role": "user", "content": "where is KM204817?"}]}
    console.print(
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n    -d '{json.dumps(question)}'\n",
        markup=False, soft_wrap=True,
    )  # fmt: skip


@contextmanager
def stopped_politely() -> Iterator[list[str]]:
    """Ctrl-C and SIGTERM end the block; the list that it gives then holds the signal's name."""
    stopped: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        stopped.append(signal.Signals(number).name)
        signal.signal(number, signal.SIG_IGN)  # a second one must not cut the stopping short
        raise KeyboardInterrupt

    before: Mapping[int, object] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    except KeyboardInterrupt:
        if not stopped:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
