"""A library in another environment, as a child process that gets a JSON file and answers in one.

What the child prints goes to a log; of an error its last line is shown.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import error_console
from labkit.side_environment import SideEnvironment
from stage2_rag_finetune_deploy.quantization.libraries.interface import Task


def run_script(
    environment: SideEnvironment, script: Path, task: Task, more: Mapping[str, Any], variables: Mapping[str, str]
) -> float:
    """Run `script SETTINGS.json` in an environment; it writes `task.out` and the seconds it took.

    Raises:
        LabError: the environment is not there, or the script stopped with an error.
    """
    python = environment.folder() / "bin" / "python"
    scheme = task.settings.scheme
    task.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=task.out.parent) as folder:
        here = Path(folder)
        settings = {
            "source": str(task.source), "out": str(here / "checkpoint"), "answer": str(here / "answer.json"),
            "bits": scheme.bits, "group": scheme.group, "symmetric": scheme.symmetric, "damp": task.settings.damp,
            "order": task.settings.order, "ids": task.ids.tolist(), **more,
        }  # fmt: skip
        write_json(here / "settings.json", settings)
        log = task.out.with_name(f"{task.out.name}.log")
        error_console.print(f"{environment.title} works; its log: {log}", markup=False, soft_wrap=True)
        with open(log, "w", encoding="utf-8") as file:
            done = subprocess.run(
                [python, script, here / "settings.json"], stdout=file, stderr=subprocess.STDOUT, cwd=here,
                env=environment.variables(**variables),
            )  # fmt: skip
        if done.returncode or not (here / "checkpoint" / "config.json").is_file():
            lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            reason = lines[-1].strip()[:200] if lines else "it printed nothing"
            raise LabError(f"{environment.title} stopped: {reason}", f"the whole log: {log}")
        (here / "checkpoint").rename(free(task.out))
        return float(json.loads((here / "answer.json").read_text(encoding="utf-8"))["seconds"])


def free(folder: Path) -> Path:
    """The place for a checkpoint: an older one is removed.

    Raises:
        LabError: something else is there.
    """
    import shutil

    if folder.exists() and not (folder / "config.json").is_file():
        raise LabError(f"{folder} exists and is no checkpoint", "another --out")
    shutil.rmtree(folder, ignore_errors=True)
    return folder
