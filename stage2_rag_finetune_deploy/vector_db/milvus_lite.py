"""Milvus Lite: a folder, opened by one process at a time; pymilvus talks to it through a server in a thread.

pymilvus starts that server for a path that ends in .db and never stops it, so the folder would stay locked until the
process ends. Here the last client that closes also stops the server.
"""

import os
import threading
from collections import Counter
from pathlib import Path

from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient, MilvusException

from labkit.errors import LabError

_users: Counter[str] = Counter()  # clients of this process by absolute path
_mutex = threading.Lock()


def open_lite(path: str) -> MilvusClient:
    """A client of the folder. Raises LabError: not a path for it, or another process has it open."""
    folder = Path(path)
    if folder.suffix != ".db":
        raise LabError(f"Milvus Lite's path must end in .db, {path} does not", f"{path.rstrip('/')}.db")
    if folder.is_file():
        raise LabError(f"{path} is a file, Milvus Lite 3 keeps a folder (2.x kept a file)", "another path")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _mutex:
        try:
            client = MilvusClient(path, dedicated=True)
        except MilvusException as error:
            if is_locked(folder):
                raise LabError(f"another process has {path} open; Milvus Lite serves one at a time",
                               "end it, or share a server: --store milvus") from error  # fmt: skip
            raise LabError(f"cannot open {path}: {error.message}", "--debug shows why") from error
        _users[os.path.abspath(path)] += 1
    return client


def close_lite(path: str, client: MilvusClient) -> None:
    """Close one client; with the last one the folder is let go."""
    with _mutex:
        client.close()
        key = os.path.abspath(path)
        if _users[key] == 1:
            server_manager_instance.release_server(path)
        _users[key] = max(0, _users[key] - 1)


def is_locked(folder: Path) -> bool:
    """Whether a process holds Milvus Lite's lock on the folder."""
    try:
        import fcntl
    except ImportError:  # Windows: what else could keep the folder from opening?
        return True
    try:
        with open(folder / "LOCK") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
