"""What a report says about the code, the machine and the process that ran."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("torch", "numpy", "transformers", "tokenizers", "safetensors", "matplotlib")


def git_state() -> dict[str, Any]:
    """The commit and whether tracked files differ from it; None for both without git or a commit."""

    def git(*words: str) -> str | None:
        root = Path(__file__).parent.parent
        try:
            answer = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def versions() -> dict[str, str]:
    """Python's version and those of the libraries that this process has imported."""
    loaded = [name for name in PACKAGES if name in sys.modules]
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in loaded}


def machine() -> dict[str, Any]:
    """System, processor, cores, memory and graphics card. No host name and no user name."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def process_identity() -> tuple[int, float]:
    """This process's number and start time. Numbers are used again, the pair is not."""
    return os.getpid(), psutil.Process().create_time()


def process_alive(pid: int, started: float) -> bool:
    """Whether the process with that number and that start time is still there."""
    try:
        process = psutil.Process(pid)
        # the boot time that start times are counted from moves by a second when the clock is corrected
        return abs(process.create_time() - started) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
