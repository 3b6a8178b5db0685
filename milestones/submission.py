"""A hand-in: the folder with the learner's code, and the runs below it."""

import os
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.runs import read_report, runs_root


class NotStarted(Exception):
    """The month's artefact is not there yet."""


def runs_of(submission: Path | None) -> Path:
    """`runs/` of a hand-in folder; without one, that of this checkout (COURSE_LAB_RUNS moves it)."""
    return submission / "runs" if submission else runs_root()


def check_submission(folder: str | None) -> Path | None:
    """The folder of `--submission`, absolute.

    Raises:
        LabError: there is no such folder, or nothing of the course is in it.
    """
    if folder is None:
        return None
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise LabError(f"no folder {folder}", "--submission with the folder that was handed in")
    if not any((path / name).is_dir() for name in ("runs", "stage1_foundations")):
        raise LabError(
            f"{folder} is not a hand-in: it has neither runs/ nor stage1_foundations/",
            "--submission with the folder that holds them",
        )
    return path


def newest_run(runs: Path, stage: str, lab: str, command: str = "") -> tuple[Path, dict[str, Any]]:
    """The newest finished run of a lab, and its report.

    The `latest` link is not relied on: archives lose symbolic links.

    Raises:
        NotStarted: no run at all.
        LabError: runs, but none that finished with a readable report.
    """
    finished: list[tuple[str, Path, dict[str, Any]]] = []
    trouble: list[tuple[str, str]] = []
    for path in sorted((runs / stage / lab).glob(f"{command}*/report.json")):
        folder = path.parent
        if folder.is_symlink() or not folder.resolve().is_relative_to(runs.resolve()):
            continue
        try:
            report = read_report(folder)
        except LabError as error:
            trouble.append((folder.name, error.message))
            continue
        if command and report["command"] != command:
            continue
        if report["status"] == "finished":
            finished.append((report["started"], folder, report))
        else:
            trouble.append((folder.name, report["status"]))
    if finished:
        return max(finished, key=lambda run: run[:2])[1:]
    if trouble:
        name, reason = max(trouble)
        raise LabError(f"no finished run: {name}: {reason}", "")
    raise NotStarted


def shown(path: Path, start: Path) -> str:
    """A path for a report: relative to the hand-in, so that no name of a machine's user is in it."""
    return Path(os.path.relpath(path, start)).as_posix()
