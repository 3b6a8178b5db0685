"""Stage 2's server for the length of a block: with the newest tuned model, or with the adapter that a release holds.

An adapter is weights and no answers: somebody has to run the model it belongs to. The service that gets such a release
starts the engine of the serving lab beside itself and ends it with itself, so that one process is still one release.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import data
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import shown
from stage3_agents_llmops.agent.release import ReleaseFolder
from stage3_agents_llmops.agent.settings import AgentSettings

PATIENCE = 120.0  # seconds until the server has to answer
TUNED = "tuned"  # what it calls the model that is asked


@contextmanager
def model_server(model: Path, patience: float = PATIENCE, adapter: Path | None = None) -> Iterator[str]:
    """The OpenAI-compatible server with one model; yields its address, which ends in /v1.

    Args:
        model: a checkpoint's folder.
        adapter: a LoRA adapter for it; what is called "tuned" is then the adapter.

    Raises:
        LabError: the folder is incomplete, or the server does not come up.
    """
    from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port

    port = free_port()
    words = [sys.executable, "-m", "stage2_rag_finetune_deploy.serving", "serve", "--model", str(model), "--port",
             str(port), "--patience", str(patience)]  # fmt: skip
    words += ["--served-name", "base", "--adapter", f"{TUNED}={adapter}"] if adapter else ["--served-name", TUNED]
    with ServerProcess(words, "127.0.0.1", port, "the model's server", patience) as server:
        console.print(f"{shown(adapter or model)} answers at {server.url}/v1", markup=False, soft_wrap=True)
        yield f"{server.url}/v1"


@contextmanager
def served_release(settings: AgentSettings, patience: float = PATIENCE) -> Iterator[AgentSettings]:
    """The settings, with an endpoint where the release's model is an adapter and none is given.

    Raises:
        LabError: no such release, or the model that its adapter belongs to cannot be had.
    """
    release = ReleaseFolder.open(settings.release) if settings.release else None
    if release is None or release.model["kind"] != "adapter" or settings.endpoint:
        yield settings
        return
    base = base_of(release)
    with model_server(base, patience, release.folder / "model") as address:
        yield replace(settings, endpoint=address, model=TUNED)


def base_of(release: ReleaseFolder) -> Path:
    """The folder of the checkpoint that a release's adapter belongs to: a path, or a name of the catalog.

    Raises:
        LabError: the adapter does not say, or the name is neither.
    """
    name = str(release.model.get("base") or "")
    if not name:
        raise LabError(f"the adapter of release {release.id} does not say what it belongs to",
                       "base_model_name_or_path in its adapter_config.json")  # fmt: skip
    if Path(name).is_dir():
        return Path(name)
    if name not in data.catalog():
        raise LabError(f"the adapter of release {release.id} belongs to {name}, which is not on this machine",
                       "--endpoint of a server that has it")  # fmt: skip
    return data.fetch(name)
