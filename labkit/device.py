"""Which device, which dtype: one answer for every lab."""

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import torch

from labkit.errors import LabError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's GPU, then the CPU. `cuda:1` picks a card.

    Raises:
        LabError: the name is unknown, or this machine (or this build of torch) has no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise LabError(f"unknown device {name!r}", "--device auto, cpu, cuda or mps")
    here = {"cpu": True, "cuda": cuda and int(index or 0) < torch.cuda.device_count(), "mps": mps}[kind]
    if not here:
        raise LabError(f"device {name} is not available in this torch {torch.__version__}", "--device auto")
    return torch.device(name)


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16, AMX); emulated it is slow."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # macOS, Windows
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(probe and probe())
    return "avx512_bf16" in flags or "amx_bf16" in flags


def cpu_has_avx() -> bool:
    """Whether torch computes with AVX2 or AVX-512 here: an x86 processor of the last ten years."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


def choose_dtype(name: str, device: torch.device | str) -> torch.dtype:
    """`auto` is bfloat16 where the device computes in it, else float32; or `fp32`, `bf16`, `fp16`."""
    if name != "auto":
        if name not in DTYPES:
            raise LabError(f"unknown dtype {name!r}", "--dtype auto, " + ", ".join(DTYPES))
        return DTYPES[name]
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if kind == "cpu" and cpu_has_bf16() else torch.float32


def autocast(device: torch.device | str, dtype: torch.dtype) -> AbstractContextManager:
    """Mixed precision: weights stay float32, matrix products run in `dtype`. Nothing for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of giving them back to the kernel; whether it could.

    A training step frees and allocates the same large tensors again and again. By default each of them is mapped
    and zeroed anew: 70 % of the page faults and 10 to 15 % of the time of a step on a CPU (measured in
    stage1_foundations/gpt/NOTES.md). Does nothing on macOS and Windows, whose allocators differ.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent in musl
    trim_threshold, mmap_threshold = -1, -3  # names and numbers of <malloc.h>
    return bool(mallopt and mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1))
