"""One interface for everything that can quantise a folder: the code of this lab, and three libraries.

    by-hand        rtn, gptq, awq, nf4     this environment
    gptqmodel      gptq                    `.venv-serve`; the maintained successor of AutoGPTQ, same format
    auto-gptq      gptq                    an environment of its own; archived, quantises only with CUDA
    bitsandbytes   nf4                     this environment
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from torch import Tensor

from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.methods import Settings

MODULES = {
    "by-hand": "by_hand",
    "gptqmodel": "gptqmodel_library",
    "auto-gptq": "auto_gptq_library",
    "bitsandbytes": "bitsandbytes_library",
}


@dataclass(frozen=True)
class Task:
    """What to quantise, and how.

    Attributes:
        source: the model's folder.
        out: the folder to make.
        method: a word of METHODS.
        ids: the calibration text, for methods that want one. (sequences, length).
        device: for the code of this lab: auto, cpu, cuda.
    """

    source: Path
    out: Path
    method: str
    settings: Settings
    ids: Tensor | None = None
    device: str = "auto"


class Quantiser(Protocol):
    """A module of this folder."""

    METHODS: tuple[str, ...]

    def quantise(self, task: Task) -> float:
        """Write `task.out`; returns the seconds that quantising took, without loading the model and writing.

        Raises:
            LabError: the library is not there, or cannot do this.
        """


def quantiser(name: str, method: str) -> Quantiser:
    """The module for a library's name.

    Raises:
        LabError: there is no such library, or it does not have the method.
    """
    if name not in MODULES:
        raise LabError(f"unknown library {name}", "--library " + ", ".join(MODULES))
    module = import_module(f"stage2_rag_finetune_deploy.quantization.libraries.{MODULES[name]}")
    if method not in module.METHODS:
        raise LabError(f"{name} has no {method} here", f"--library by-hand, or --method {module.METHODS[0]}")
    return module
