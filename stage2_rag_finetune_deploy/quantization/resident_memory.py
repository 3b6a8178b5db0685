"""How much memory a checkpoint takes when it is loaded: python -m ...quantization.resident_memory FOLDER

In a process of its own, because a process that has freed memory before fills that first. The figure is the growth of
its resident memory from before the model is loaded to after it has written a token.
"""

import ctypes
import gc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import psutil

from labkit.errors import LabError


def resident_memory(folder: Path) -> int:
    """Bytes, measured in a child process.

    Raises:
        LabError: the child stopped.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    if done.returncode:
        reason = (done.stderr.strip() or "no reason").splitlines()[-1]
        raise LabError(f"{folder} could not be loaded in a process of its own: {reason}", "other programs closed")
    return int(done.stdout.split()[-1])


def now() -> int:
    """This process's resident bytes, after freed memory is given back."""
    gc.collect()
    if sys.platform.startswith("linux"):
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
    return psutil.Process().memory_info().rss


def main(folder: str) -> None:
    """Print the growth in bytes."""
    import torch

    from stage2_rag_finetune_deploy.quantization.runtime import load_packed
    from stage2_rag_finetune_deploy.quantization.speed import decode_rate

    torch.set_num_threads(1)
    for name in ("bitsandbytes", "safetensors.torch", "transformers.models.llama.modeling_llama"):
        import_module(name)  # what is loaded before is not counted as the model's

    before = now()
    model, _ = load_packed(folder)
    decode_rate(model, torch.arange(16)[None], tokens=1)
    print(now() - before)


if __name__ == "__main__":
    main(sys.argv[1])
