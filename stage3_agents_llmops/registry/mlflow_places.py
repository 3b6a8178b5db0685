"""Which database and which artifact store, by URL; whether somebody is there; and MLflow kept from chattering.

MLflow asks a database that does not answer ten times in 100 seconds, a server seven times in four minutes, and prints a
warning each time. A rollback cannot wait for that: here one question with a limit comes first.
"""

import logging
import os
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from labkit.errors import LabError

DRIVERS = {"postgresql": ("psycopg", "psycopg[binary]"), "postgresql+psycopg": ("psycopg", "psycopg[binary]"),
           "postgresql+psycopg2": ("psycopg2", "psycopg2-binary"), "mysql+pymysql": ("pymysql", "pymysql")}  # fmt: skip
SQLITE = "sqlite:///"
ANSWER_SECONDS = 5
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def set_defaults() -> None:
    """MLflow's settings where the environment has none; before MLflow is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def without_password(url: str) -> str:
    """A URL that may be shown."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if at else url


def require_answer(url: str) -> None:
    """Ask a database or server one question.

    Raises:
        LabError: nobody answers in time, or it is something else.
    """
    try:
        _ask(url)
    except LabError:
        raise
    except Exception as error:  # noqa: BLE001 - every driver has errors of its own
        text = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        advice = "--registry with another address; or start it: deploy/mlflow has a server"
        raise LabError(f"no MLflow answers at {without_password(url)}: {text}", advice) from None


def _ask(url: str) -> None:
    if url.startswith("http"):
        import httpx

        answer = httpx.get(f"{url.rstrip('/')}/health", timeout=ANSWER_SECONDS)
        if answer.text.strip() != "OK":
            raise LabError(f"{url} is something else: it has no /health of MLflow", "--registry with MLflow's address")
    elif url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE))
        if path.exists():
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master")
    else:
        import sqlalchemy as sql

        limit = {} if url.startswith("mssql") else {"connect_timeout": ANSWER_SECONDS}
        with sql.create_engine(url, poolclass=sql.pool.NullPool, connect_args=limit).connect() as connection:
            connection.execute(sql.text("SELECT 1"))


def check_database(url: str) -> str:
    """The URL, with the folder of an SQLite file made and its path absolute.

    Raises:
        LabError: the database's driver is not installed.
    """
    if url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE)).expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"{SQLITE}{path}"
    module, package = DRIVERS.get(url.split("://")[0], (None, None))
    if module and find_spec(module) is None:
        raise LabError(f"{url.split('://')[0]} needs the driver {module}", f"pip install '{package}'")
    return url


def artifact_place(url: str, artifacts: str | None) -> str | None:
    """Where a new registry's files go: what was asked for, else beside an SQLite file; a server decides itself.

    Raises:
        LabError: a database elsewhere and no place for the files; S3 without its library.
    """
    if artifacts is None and url.startswith(SQLITE):
        artifacts = str(Path(url.removeprefix(SQLITE)).parent / "artifacts")
    if artifacts is None:
        if url.startswith("http"):
            return None
        raise LabError(f"where shall the files of {url.split('@')[-1]} go?", "--artifacts FOLDER or s3://BUCKET/PATH")
    if artifacts.startswith("s3://") and find_spec("boto3") is None:
        raise LabError("an S3 store needs boto3", "pip install boto3; MLFLOW_S3_ENDPOINT_URL for a server of your own")
    return artifacts if "://" in artifacts else Path(artifacts).expanduser().absolute().as_uri()


def quiet() -> None:
    """No line for each migration of a new database, and none for each version that is made."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
