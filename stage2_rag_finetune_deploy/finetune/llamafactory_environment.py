"""LLaMA-Factory in an environment of its own, called as one calls any program: as a child process.

- it wants transformers 5.6 or older, the labs want 5.19: `make setup-llamafactory` makes `.venv-llamafactory`
- a stand-in for torchaudio lies on its PYTHONPATH where the real one is not installed
- what it prints goes to a file and, line by line, to a callback
"""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from labkit.errors import LabError
from labkit.side_environment import LLAMAFACTORY, ROOT

STAND_IN = Path(__file__).with_name("llamafactory") / "stand_in"
VERBOSITY = "LLAMAFACTORY_VERBOSITY"
VARIABLE = LLAMAFACTORY.variable
environment = LLAMAFACTORY.folder


def variables(folder: Path) -> dict[str, str]:
    """Environment variables for a child: less talk, the stand-in where it is needed."""
    child = LLAMAFACTORY.variables()
    child.setdefault(VERBOSITY, "WARNING")
    if not any(folder.glob("lib/python*/site-packages/torchaudio")):
        child["PYTHONPATH"] = str(STAND_IN)
    return child


def run_python(code: str, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Python code in LLaMA-Factory's environment, and wait for it."""
    folder = environment()
    return subprocess.run(
        [folder / "bin" / "python", "-c", code, *words],
        env=variables(folder), cwd=ROOT, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def run_cli(words: Sequence[str], log: Path, on_line: Callable[[str], None]) -> None:
    """Run `llamafactory-cli WORDS`; every line it prints goes to `log` and to `on_line`.

    Raises:
        LabError: it ended with an error; the message is its last line that names one.
    """
    folder = environment()
    lines: list[str] = []
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            [folder / "bin" / "llamafactory-cli", *words],
            env=variables(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace",
        ) as child,
    ):  # fmt: skip
        try:
            for line in child.stdout:
                file.write(line)
                lines.append(line.rstrip())
                on_line(lines[-1])
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise LabError(f"LLaMA-Factory stopped: {reason(lines)}", f"the whole log: {log}")


def reason(lines: Sequence[str]) -> str:
    """The line of a traceback that says what was wrong; the last line where there is none."""
    named = [line for line in lines if line[:1].isalpha() and "Error" in line.split(":")[0]]
    return (named or [line for line in lines if line] or ["it printed nothing"])[-1][:300]
