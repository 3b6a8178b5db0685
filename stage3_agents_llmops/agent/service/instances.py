"""Several processes of one shop: each has a name, and what a dead one left unfinished is taken over.

An instance holds a file lock under its name as long as it lives; the system lets go of it however the process ends. So
"is it dead?" needs no heartbeat and no guess: whoever gets the lock of another knows. Runs carry their instance's name.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from labkit.errors import LabError

MAIN = "main"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def lock_path(folder: Path, name: str) -> Path:
    """The lock of an instance."""
    return folder / f"service.{name}.lock"


@contextmanager
def instance(folder: Path, name: str) -> Iterator[None]:
    """Be the instance of that name for the length of the block.

    Raises:
        LabError: somebody is it already, or the name is none.
    """
    if not NAME.fullmatch(name):
        raise LabError(f"{name!r} cannot be the name of an instance", "letters, digits, dots, - and _: --instance main")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path(folder, name))
    try:
        lock.acquire(timeout=1)  # somebody may hold it for a moment, to see whether we are dead
    except Timeout:
        raise LabError(f"another service called {name} uses {folder}", "stop it, --instance NAME, or --state FOLDER"
                       ) from None  # fmt: skip
    with lock:
        yield


@contextmanager
def dead(folder: Path, name: str) -> Iterator[bool]:
    """Whether the instance of that name is dead; it cannot come back before the block ends.

    One that never held a lock is not known to be dead.
    """
    path = lock_path(folder, name)
    lock = FileLock(path)
    try:
        if not path.exists():
            raise Timeout(str(path))
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    with lock:
        yield True
