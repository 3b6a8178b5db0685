"""A real PostgreSQL, started for the tests of a file; they are skipped where there is none."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("initdb", "pg_ctl", "postgres")


def found(program):
    """On the PATH, or where Debian keeps it."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
    return shutil.which(program) or (str(places[0]) if places else None)


def run(words, owner):
    """A command of the server, which refuses to run as root."""
    identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/", **identity)


@contextmanager
def postgres_server() -> Iterator[str]:
    """An empty server: postgresql://course@127.0.0.1:PORT."""
    if not all(map(found, PROGRAMS)):
        pytest.skip("no PostgreSQL on this machine")
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    if owner:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    made = run([found("initdb"), "-D", f"{folder}/db", "-U", "course", "--auth=trust", "--no-sync"], owner)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    started = run([found("pg_ctl"), "-D", f"{folder}/db", "-w", "-l", f"{folder}/log", "-o", options, "start"], owner)
    if made.returncode or started.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"PostgreSQL does not start here: {(made.stderr + started.stderr).strip()[-200:]}")
    try:
        yield f"postgresql://course@127.0.0.1:{port}"
    finally:
        run([found("pg_ctl"), "-D", f"{folder}/db", "-m", "immediate", "stop"], owner)
        shutil.rmtree(folder, ignore_errors=True)
