"""Every run leaves `runs/<stage>/<lab>/<run-id>/report.json`, also a run that dies.

    with start_run("stage1", "gpt", "train", config, preset="cpu", seed=1) as run:
        ...
        run.metric("val_loss", 1.62, unit="nats/char", band=(None, 1.75), meaning="loss on unseen text")
        run.artefact(run.dir / "checkpoint.pt", kind="checkpoint")

The report says "running" until the block ends; then "finished", "failed" or "interrupted". A process that
was killed cannot write any more: `read_report` sees that its process is gone and says "died".
`latest` and `latest-<command>` point at the newest finished run.
"""

import dataclasses
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from labkit.environment import git_state, machine, process_alive, process_identity, versions
from labkit.errors import LabError
from labkit.files import sha256_file, write_json
from labkit.progress import error_console
from labkit.timing import Timer, human_seconds, peak_memory_mb

SCHEMA = Path(__file__).with_name("report.schema.json")
Band = tuple[float | None, float | None]


def runs_root() -> Path:
    """`runs/` in the current folder, or where COURSE_LAB_RUNS points."""
    return Path(os.environ.get("COURSE_LAB_RUNS") or "runs").expanduser().absolute()


class Run:
    """One run in progress: its folder and the report that is being filled."""

    def __init__(self, folder: Path, report: dict[str, Any]) -> None:
        self.dir = folder
        self.report = report
        self.timer = Timer()

    def metric(
        self, name: str, value: float, unit: str = "", band: Band | None = None, meaning: str = ""
    ) -> None:
        """Record a figure with its expected band: (lowest, highest), None for no limit on that side.

        NaN and infinity are kept as null, because a run that diverged must still leave its report.
        """
        number = float(value)
        self.report["metrics"][name] = {
            "value": number if math.isfinite(number) else None,
            "unit": unit,
            "band": None if band is None else list(band),
            "meaning": meaning,
        }

    def artefact(self, path: str | Path, kind: str) -> None:
        """Record a file or folder below the run's folder, with its SHA-256 as it is now."""
        path = self.dir / path
        entry = {"path": self._relative(path), "kind": kind}
        self.report["artefacts"].append(entry | dict(zip(("sha256", "bytes"), digest(path), strict=True)))

    def figure(self, path: str | Path, caption: str) -> None:
        """Record a plot."""
        self.report["figures"].append({"path": self._relative(self.dir / path), "caption": caption})

    def data(self, name: str, sha256: str, bytes: int) -> None:
        """Record what the run read."""
        self.report["data"].append({"name": name, "sha256": sha256, "bytes": int(bytes)})

    def learnt(self, sentence: str) -> None:
        """One sentence for the table at the end of the stage."""
        self.report["learnt"].append(sentence)

    def next(self, command: str) -> None:
        """The command to type after this one."""
        self.report["next"] = command

    def save(self, status: str) -> None:
        """Validate and write report.json, atomically."""
        import jsonschema  # 0.1 s, and only runs need it

        self.report |= {
            "status": status,
            "seconds": round(self.timer.seconds, 3),
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "versions": versions(),
        }
        jsonschema.validate(self.report, schema())
        write_json(self.dir / "report.json", self.report)

    def _relative(self, path: Path) -> str:
        return path.absolute().relative_to(self.dir).as_posix()


@contextmanager
def start_run(
    stage: str, lab: str, command: str, config: Any, preset: str | None = None, seed: int | None = None
) -> Iterator[Run]:
    """Open a run's folder, write its first report, and close the report however the block ends.

    Args:
        config: a dataclass or a mapping; paths in it become text.
    """
    started = datetime.now(UTC)
    name = f"{command}-{started.astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    folder = runs_root() / stage / lab / name
    folder.mkdir(parents=True)
    run = Run(folder, _first_report(stage, lab, command, config, preset, seed, started))
    run.save("running")
    try:
        yield run
    except BaseException as error:
        run.report["error"] = {"type": type(error).__name__, "message": str(error)}
        with suppress(OSError):  # a full disk: the error below is the one to show
            run.save("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    run.save("finished")
    for link in ("latest", f"latest-{command}"):
        _point(folder.parent / link, folder.name)
    facts = f"{human_seconds(run.report['seconds'])}, peak memory {run.report['peak_memory_mb']:.0f} MB"
    error_console.print(f"{shown(folder)}/report.json  ({facts})", markup=False, soft_wrap=True)


def latest_run(stage: str, lab: str, command: str | None = None) -> Path | None:
    """The folder of the newest finished run of a lab (of one of its commands), or None."""
    link = runs_root() / stage / lab / (f"latest-{command}" if command else "latest")
    return link.resolve() if (link / "report.json").is_file() else None


def read_report(path: str | Path) -> dict[str, Any]:
    """Read and validate the report of a run's folder (or the file itself).

    Status "died" stands for a run that says "running" but whose process no longer exists.

    Raises:
        LabError: there is no report, or it is not one.
    """
    import jsonschema

    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    advice = "run the lab again; every run writes its own report"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(report, schema())
    except FileNotFoundError:
        raise LabError(f"no report at {path}", advice) from None
    except (ValueError, jsonschema.ValidationError) as error:
        reason = getattr(error, "message", str(error))
        raise LabError(f"{path} is not a run's report: {reason[:200]}", advice) from None
    if report["status"] == "running" and not process_alive(**report["process"]):
        report["status"] = "died"
    return report


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file; of a folder, the SHA-256 of its sorted lines `sha256  relative path`."""
    if path.is_file():
        return sha256_file(path), path.stat().st_size
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise LabError(f"nothing to record at {path}", "check that the lab wrote it")
    lines = "".join(f"{sha256_file(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest(), sum(file.stat().st_size for file in files)


def shown(path: Path) -> str:
    """A path as a user would type it: relative to the current folder where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of report.json."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def _first_report(
    stage: str, lab: str, command: str, config: Any, preset: str | None, seed: int | None, started: datetime
) -> dict[str, Any]:
    fields = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(config or {})
    pid, process_started = process_identity()
    return {
        "schema": 1,
        "status": "running",
        "stage": stage,
        "lab": lab,
        "command": command,
        "preset": preset,
        "config": _plain(fields),
        "seed": seed,
        "started": started.isoformat(timespec="milliseconds"),
        "seconds": 0.0,
        "git": git_state(),
        "versions": {},
        "machine": machine(),
        "process": {"pid": pid, "started": process_started},
        "data": [],
        "peak_memory_mb": 0.0,
        "metrics": {},
        "artefacts": [],
        "figures": [],
        "learnt": [],
        "next": None,
        "error": None,
    }


def _plain(value: Any) -> Any:
    """A config as JSON: paths and other objects become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _point(link: Path, target: str) -> None:
    """Make `link` a symlink to `target`, replacing an older one in a single step."""
    temporary = link.with_name(f".tmp-{secrets.token_hex(4)}-{link.name}")
    temporary.symlink_to(target, target_is_directory=True)
    os.replace(temporary, link)
