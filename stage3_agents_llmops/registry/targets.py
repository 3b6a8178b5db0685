"""Registries to try out: what `conformance` and `compare` make, check and throw away.

    files              the course's own, in a folder
    mlflow             MLflow's, in an SQLite file
    MODULE:FUNCTION    a learner's: FUNCTION(folder) returns a registry that keeps everything below that folder
"""

import importlib
import sqlite3
import sys
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from labkit.cli import nearest
from labkit.errors import LabError
from stage3_agents_llmops.registry.conformance import Make
from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.interface import Registry
from stage3_agents_llmops.registry.mlflow_places import quiet

KINDS = ("files", "mlflow")


@cache
def empty_database() -> bytes:
    """An SQLite file with MLflow's tables. Its migrations take seconds: made once in a process, then copied."""
    from mlflow.tracking import MlflowClient

    from stage3_agents_llmops.registry import mlflow_registry  # noqa: F401 - sets MLflow's defaults before its import

    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "migrated.db")
        MlflowClient(tracking_uri=f"sqlite:///{path}", registry_uri=f"sqlite:///{path}").search_registered_models()
        with closing(sqlite3.connect(path)) as connection:
            return connection.serialize()


def make_mlflow(folder: Path) -> Registry:
    """MLflow's registry in a folder."""
    from stage3_agents_llmops.registry.mlflow_registry import MlflowRegistry

    database = folder / "mlflow.db"
    if not database.exists():
        database.write_bytes(empty_database())
    return MlflowRegistry(f"sqlite:///{database}")


def maker_of(target: str) -> Make:
    """The function that makes a registry in a folder.

    Raises:
        LabError: there is no such kind, module or function.
    """
    known = {"files": FileRegistry, "mlflow": make_mlflow}
    if target in known:
        return known[target]
    module, colon, function = target.partition(":")
    if not colon:
        raise LabError(f"there is no registry {target}", nearest(target, KINDS) or "files, mlflow or MODULE:FUNCTION")
    sys.path.insert(0, str(Path.cwd()))  # where the learner's module lies
    try:
        return getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        advice = "--target MODULE:FUNCTION, from the module's folder"
        raise LabError(f"there is no module {error.name}", advice) from None
    except AttributeError:
        raise LabError(f"{module} has no {function}", f"def {function}(folder): ... in {module}") from None
    finally:
        sys.path.remove(str(Path.cwd()))
