"""One suite that every registry must pass; a learner's as well.

    python -m stage3_agents_llmops.registry conformance --target my_module:make

`make(folder)` returns a registry that keeps everything under `folder`; called again with the same folder it returns
another client of the same registry, as another process would have. A check that needs a capability which the registry
does not claim is left out and named; a capability that it claims is checked.

Each check gets a folder of its own and says in its docstring what it catches. Those that damage files know nothing of
how a registry stores them: they look for the bytes.
"""

import json
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from stage3_agents_llmops.registry.interface import Conflict, Damaged, Refused, Registry, Unknown
from stage3_agents_llmops.registry.release import PARTS, Draft, Lineage

Make = Callable[[Path], Registry]
WEIGHTS = bytes(range(256)) * 400  # 102 kB that no other file has


@dataclass(frozen=True)
class Check:
    """One check; `capability` None: every registry must pass it."""

    name: str
    capability: str | None
    run: Callable[["Bench"], None]


@dataclass(frozen=True)
class Result:
    """How a check went: passed, failed, or left out."""

    name: str
    status: str
    message: str = ""


CHECKS: list[Check] = []


def check(capability: str | None = None) -> Callable:
    """Add a function to the suite."""

    def add(function: Callable[["Bench"], None]) -> Callable[["Bench"], None]:
        CHECKS.append(Check(function.__name__, capability, function))
        return function

    return add


class Bench:
    """A new registry, and drafts to publish."""

    def __init__(self, make: Make, folder: Path) -> None:
        self.place, self.work = folder / "registry", folder / "work"
        self.place.mkdir(parents=True)
        self.client = lambda: make(self.place)
        self.registry = self.client()

    def draft(self, label: str = "a", weights: bytes = WEIGHTS, evaluated: bool = True, **more: object) -> Draft:
        """A release of four files whose prompt is `label`; the same arguments give the same content."""
        folder = self.work / f"{label}-{hash(weights):x}"
        for path, content in (("model/config.json", b"{}"), ("model/weights/model.safetensors", weights),
                              ("rag/settings.json", b'{"k": 5}'), ("graph/prompt.txt", label.encode())):  # fmt: skip
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        report = folder / "report.json"
        report.write_text(json.dumps({"metrics": {"exact": {"value": 0.8}}}), encoding="utf-8")
        return Draft({part: folder / part for part in PARTS}, evaluation=report if evaluated else None, **more)

    def publish(self, *labels: str) -> list[int]:
        """Publish a release for each label; returns their versions."""
        return [self.registry.publish(self.draft(label)).version for label in labels]

    def stored(self, content: bytes) -> list[Path]:
        """Every file of the registry with exactly these bytes."""
        files = [path for path in self.place.rglob("*") if path.is_file() and path.stat().st_size == len(content)]
        found = [path for path in files if path.read_bytes() == content]
        assert found, "the registry's folder does not hold the published file"
        return found

    def damage(self, content: bytes, replacement: bytes | None) -> None:
        """Change what is stored; None removes it."""
        for path in self.stored(content):
            path.chmod(0o644)
            path.unlink() if replacement is None else path.write_bytes(replacement)

    def bytes(self) -> int:
        """What the registry takes on the disk."""
        return sum(path.stat().st_size for path in self.place.rglob("*") if path.is_file())


def expect(error: type[LabError], call: Callable, *words: object, **named: object) -> LabError:
    """The error that a call must raise."""
    try:
        result = call(*words, **named)
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was expected, but {call.__name__} returned {result!r}")


def together(jobs: Iterable[Callable[[], object]]) -> list[object]:
    """Run jobs in threads that start at once; the results, or the LabErrors that were raised."""
    jobs = list(jobs)
    gate, results = threading.Barrier(len(jobs)), [None] * len(jobs)

    def work(place: int, job: Callable[[], object]) -> None:
        gate.wait()
        try:
            results[place] = job()
        except Exception as error:  # noqa: BLE001 - whatever it is, the check below says that it was not expected
            results[place] = error

    threads = [threading.Thread(target=work, args=each) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def load_checks() -> list[Check]:
    """Every check there is."""
    from stage3_agents_llmops.registry import conformance_checks  # noqa: F401 - fills CHECKS

    return CHECKS


def run_conformance(make: Make, folder: Path) -> list[Result]:
    """Run every check on registries of `make`, each in a folder of its own below `folder`."""
    return [run_check(one, make, folder / one.name) for one in load_checks()]


def run_check(one: Check, make: Make, folder: Path) -> Result:
    """One check; whatever it raises is its failure."""
    try:
        bench = Bench(make, folder)
        if one.capability and one.capability not in bench.registry.capabilities:
            return Result(one.name, "left out", f"does not claim {one.capability}")
        one.run(bench)
    except Exception as error:  # noqa: BLE001 - a learner's registry may raise anything
        text = " ".join(str(error).split()) or _asserted(error)
        return Result(one.name, "failed", f"{type(error).__name__}: {text}")
    return Result(one.name, "passed")


def _asserted(error: Exception) -> str:
    """The line of the check that did not hold, for an assertion without words."""
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.line]
    return lines[-1] if lines else "an assertion failed"


__all__ = [
    "CHECKS", "Bench", "Check", "Conflict", "Damaged", "Draft", "Lineage", "Make", "Refused", "Result", "Unknown",
    "WEIGHTS", "check", "expect", "load_checks", "run_check", "run_conformance", "together",
]  # fmt: skip
