"""Which registry: a folder is the course's own, a database or server URL is MLflow's."""

import re
from pathlib import Path

from labkit.errors import LabError
from labkit.runs import runs_root, shown
from stage3_agents_llmops.registry.file_registry import PATIENCE, FileRegistry
from stage3_agents_llmops.registry.interface import PROG, Registry
from stage3_agents_llmops.registry.mlflow_places import SQLITE, check_database, require_answer

NAME = "customer-service"
MLFLOW = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")


def default_registry() -> str:
    """Where releases go when nothing else is said."""
    return str(runs_root() / "stage3" / "registry" / "store")


def open_registry(
    place: str | Path | None = None, name: str = NAME, artifacts: str | None = None, patience: float = PATIENCE
) -> Registry:
    """A registry by its place.

    Args:
        place: a folder, or sqlite:///FILE, postgresql://..., http://... for MLflow; None: the folder under runs/.
        artifacts: where MLflow keeps the files: a folder or s3://BUCKET/PATH; None: beside an SQLite file.
        patience: seconds to wait for a registry that is locked.

    Raises:
        LabError: another kind of URL; a folder with something else in it; a database or server that does not answer.
    """
    text = str(place or default_registry())
    kind = _kind(text)
    if kind is None:
        folder = Path(text).expanduser().absolute()
        FileRegistry.check_folder(folder)
        return FileRegistry(folder, name, patience)
    if kind not in MLFLOW:
        raise LabError(f"no registry at {text}: {kind} is not known", "a folder, sqlite:///FILE or postgresql://...")
    require_answer(check_database(text))
    from stage3_agents_llmops.registry.mlflow_registry import MlflowRegistry  # imports MLflow: seconds

    return MlflowRegistry(text, name, artifacts, patience)


def require_registry(place: str | Path | None = None) -> None:
    """Refuse a place where no registry is, instead of answering that it has no releases.

    Raises:
        LabError: no such folder or SQLite file. Whether a server is there, only asking it can tell.
    """
    text = str(place or default_registry())
    path = text.removeprefix(SQLITE)
    if text.startswith(SQLITE) or _kind(text) is None:
        there = Path(path).expanduser().absolute()
        if not there.exists():
            advice = f"--registry with another path, or {PROG} publish"
            if place is None:
                demo = Path(default_registry()).parent / "latest-demo" / "store"
                advice = f"--registry {shown(demo)}, or publish" if demo.exists() else f"{PROG} publish, or demo"
            raise LabError(f"there is no registry at {shown(there)}", advice)


def _kind(text: str) -> str | None:
    """The scheme of a URL without its driver; None for a folder."""
    found = re.match(r"([a-z0-9]+)(?:\+[a-z0-9]+)?:/", text)
    return found[1] if found else None
