"""Keep a Milvus server running for other programs, until Ctrl-C."""

import time
from dataclasses import dataclass
from pathlib import Path

from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import runs_root, shown
from stage2_rag_finetune_deploy.vector_db.milvus_server import MilvusServer


@dataclass(frozen=True)
class ServerConfig:
    """Where it keeps its data and where it listens."""

    folder: Path | None = option(None, "its data; none is runs/stage2/vector_db/milvus-server")
    port: int = option(19530, "for clients; 0 is any free one")


def run_server(config: ServerConfig, preset: str) -> None:
    """Start, say the address, wait. The data stays for the next start."""
    if not 0 <= config.port <= 65535:
        raise LabError(f"there is no port {config.port}", "--port 19530")
    folder = config.folder or runs_root() / "stage2" / "vector_db" / "milvus-server"
    with MilvusServer(folder, config.port or None) as server:
        console.print(f"Milvus 2.3.5 at {server.uri}, data in {shown(server.folder)}", markup=False)
        console.print(f"  for other programs: export MILVUS_URI={server.uri}   (Ctrl-C ends it)", markup=False)
        try:
            while server.pid:
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("stopping")
            return
    raise LabError("the Milvus server ended by itself", f"tail {shown(folder)}/logs/server.log")
