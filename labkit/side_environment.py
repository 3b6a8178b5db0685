"""A second Python environment beside `.venv`, for a library that fits no other; its programs run as children.

    SERVE.folder() / "bin" / "vllm"   what `make setup-serve` made, or a LabError that says so
    SERVE.variables()                 environment variables for a child of it
"""

import os
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class SideEnvironment:
    """Where one lies and how it is made.

    Attributes:
        title: what is in it, as an error calls it.
        name: its folder in the repository.
        variable: an environment variable that names another folder.
        program: a file under bin/ that only this one has.
        recipe: the command that makes it.
    """

    title: str
    name: str
    variable: str
    program: str
    recipe: str

    def folder(self) -> Path:
        """The environment's folder.

        Raises:
            LabError: it was not made, or not finished.
        """
        folder = Path(os.environ.get(self.variable) or ROOT / self.name)
        if not (folder / "bin" / self.program).exists() or folder.with_name(folder.name + ".unfinished").exists():
            raise LabError(f"{self.title}'s environment is not there: {folder.name}", self.recipe)
        return folder

    def ready(self) -> bool:
        """Whether it is there."""
        try:
            return bool(self.folder())
        except LabError:
            return False

    def variables(self, **more: str) -> dict[str, str]:
        """This process's environment variables without those of its own Python, and `more`."""
        child = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", **more}
        for name in {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"} - more.keys():
            child.pop(name, None)
        return child


LLAMAFACTORY = SideEnvironment(
    "LLaMA-Factory", ".venv-llamafactory", "COURSE_LAB_LLAMAFACTORY", "llamafactory-cli", "make setup-llamafactory"
)
SERVE = SideEnvironment("vLLM", ".venv-serve", "COURSE_LAB_SERVE", "vllm", "make setup-serve")
