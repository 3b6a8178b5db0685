"""From data to something that can be registered: what `data_check`, `train` and `evaluate` do, behind one small class.

A deployment gets its candidate in one of two ways: it is trained here, or somebody brings a folder that was trained
elsewhere. Either way it is evaluated here: an evaluation that comes along is believed only when the person who starts
the deployment says so, and the log says who evaluated.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.server_process import group_members, reason
from stage3_agents_llmops.pipeline.processes import TOKEN, signal_group
from stage3_agents_llmops.registry import PARTS, Draft
from stage3_agents_llmops.registry.release import EVALUATION, MANIFEST
from stage3_agents_llmops.registry.unpack import read_manifest

LONGEST = 900.0  # seconds of one evaluation


class Recipe:
    """The course's own recipe (package.py); another one in tests of the controller.

    Args:
        preset: sizes of the evaluation.
        seed: of the training.
        more: new labelled utterances, beside those of the course.
    """

    def __init__(self, preset: str = "cpu", seed: int = 1, more: Path | None = None) -> None:
        self.preset, self.seed, self.more = preset, seed, more

    def check_data(self) -> dict[str, Any]:
        """Figures of the training data and its hashes.

        Raises:
            LabError: the data cannot be trained on.
        """
        from stage3_agents_llmops.pipeline import package

        return {"figures": package.check_data(self.more), "data": package.data_sha256(self.more)}

    def check_release(self, release: Path, champion: Path) -> dict[str, Any]:
        """What can be said of a folder without running it: does it hold more orders to a model than the champion?

        Raises:
            LabError: it does; or it is no release.
        """
        from stage3_agents_llmops.pipeline.evaluation import poisoned_articles

        new, old = poisoned_articles(release), poisoned_articles(champion)
        if len(new) > len(old):
            raise LabError(f"articles that give orders to a model: {', '.join(sorted(set(new) - set(old)) or new)}",
                           "take the sentences out, and make the release again")  # fmt: skip
        return {"poisoned_articles": len(new)}

    def build(self, folder: Path, adapter: Path | None = None) -> Path:
        """Put the parts of a release into a folder; one that is whole already is kept.

        Args:
            adapter: a LoRA adapter that stage 2 has trained, as the model; None: a classifier is trained here.
        """
        from stage3_agents_llmops.pipeline import package

        return package.build(folder, seed=self.seed, more=self.more, adapter=adapter)

    def bring(self, source: Path, folder: Path) -> Path:
        """Copy the parts of a folder that was made elsewhere.

        Raises:
            LabError: a part is missing.
        """
        for part in ("model", "rag", "graph"):
            if not (source / part).is_dir():
                raise LabError(f"{source} is no release: it has no {part}/", "the folder that `build` or `load` wrote")
        if not (folder / "model").exists():
            temporary = folder.with_name(f".tmp-{folder.name}")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(source, temporary)
            temporary.rename(folder)
        return folder

    def evaluate(self, release: Path, out: Path) -> Path:
        """Evaluate one release, see `evaluate_all`."""
        self.evaluate_all({release: out})
        return out

    def evaluate_all(self, places: Mapping[Path, Path], between: Callable[[], None] = lambda: None) -> None:
        """Evaluate releases at the same time, each in a process of its own; an evaluation that is there is kept.

        Args:
            places: release -> its report.
            between: called every moment; what it raises ends the evaluations.

        Raises:
            LabError: one failed.
        """
        new = {release: out for release, out in places.items() if not out.exists()}
        limits = {"OMP_NUM_THREADS": "1"} if len(new) > 1 else {}  # one alone is in nobody's way
        children = {out: self._start(release, out, limits) for release, out in new.items()}
        try:
            deadline = time.monotonic() + LONGEST
            while any(child.poll() is None for child in children.values()) and time.monotonic() < deadline:
                between()
                time.sleep(0.2)
        finally:
            for child in children.values():
                if child.poll() is None or group_members(child.pid):
                    signal_group(child.pid, signal.SIGKILL)
                child.wait()
        for out, child in children.items():
            if child.returncode != 0 or not out.exists():
                log = out.with_suffix(".log")
                text = log.read_text(encoding="utf-8", errors="replace").splitlines()
                raise LabError(f"the evaluation failed: {reason(text[-50:])}", f"its log: {log}")

    def _start(self, release: Path, out: Path, limits: Mapping[str, str]) -> subprocess.Popen:
        words = [sys.executable, "-m", "stage3_agents_llmops.pipeline", "evaluate", "--release", str(release),
                 "--out", str(out), "--preset", self.preset]  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out.with_suffix(".log"), "wb") as file:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
                                    env={**os.environ, **limits, TOKEN: f"evaluate {out}"})  # fmt: skip

    def draft(self, folder: Path, evaluation: Path, parent: str | None, note: str) -> Draft:
        """What is published."""
        from stage3_agents_llmops.pipeline import package

        return package.draft(folder, evaluation, parent, note)


def registered_draft(source: Path) -> Draft | None:
    """A release that a registry has written: published again, it is the same release; None: it is only a folder.

    Raises:
        LabError: its manifest is none.
    """
    if not (source / MANIFEST).is_file() or not (source / EVALUATION).is_file():
        return None
    manifest = read_manifest(source)
    parts = {part: source / part for part in PARTS}
    return Draft(parts, manifest.lineage, source / EVALUATION, manifest.metrics, manifest.note)


def end_evaluations(home: Path) -> None:
    """End evaluations that a killed controller left behind."""
    import psutil

    for process in psutil.process_iter():
        try:
            token = process.environ().get(TOKEN, "")
        except (psutil.Error, OSError):
            continue
        if token.startswith(f"evaluate {home}"):
            signal_group(process.pid, signal.SIGKILL)
