"""A command of the hand-in in a process of its own, and a server of it that is asked over HTTP.

What the grader and a hand-in's server have in common: a free port, /health, limits on time and size, and one line that
says what went wrong. A hand-in that crashes, hangs or prints costs its own checks and nothing else.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

from milestones.learner_model import LearnerFault, plain, reduced_environment

LONGEST_ANSWER = 2_000_000  # bytes


def environment(folder: Path, runs: Path, threads: int) -> Mapping[str, str]:
    """As for a model; the cache of data is shared, and what the hand-in's commands report goes to `runs`."""
    cache = {name: os.environ[name] for name in ("COURSE_LAB_CACHE",) if name in os.environ}
    return {**reduced_environment(folder, threads), **cache, "COURSE_LAB_RUNS": str(runs)}


def last_line(log: Any) -> str:
    """The last line that the hand-in printed, for a message."""
    log.seek(0)
    lines = [line for line in log.read().decode("utf-8", "replace").strip().splitlines() if "try: " not in line]
    return f": {plain(lines[-1].strip())}" if lines else ""


def start(folder: Path, words: Sequence[str], log: Any, runs: Path, threads: int) -> subprocess.Popen[bytes]:
    """`python -m WORDS` in the hand-in's folder, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *words], cwd=folder, env=environment(folder, runs, threads),
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class LearnerProcess:
    """A server of the hand-in on a free port of this machine.

    Args:
        folder: the hand-in.
        words: the module and its words; `--port PORT` is added.
        runs: a folder for what its commands report.
        start_limit, answer_limit, time_limit: seconds until /health answers, for one answer, for all of them.

    Raises (every method):
        LearnerFault: it ends, does not answer in time, or answers something else than the form.
    """

    def __init__(
        self, folder: Path, words: Sequence[str], runs: Path, *, threads: int, start_limit: float,
        answer_limit: float, time_limit: float,
    ) -> None:  # fmt: skip
        self._answer_limit, self._end = answer_limit, time.monotonic() + start_limit + time_limit
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process = start(folder, [*words, "--port", str(self.port)], self._log, runs, threads)
        try:
            self._wait(time.monotonic() + start_limit)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        end(self._process)
        self._log.close()

    def ask(
        self, path: str, question: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON object that a path answers: to a POST of the question, or to a GET without one."""
        with self._open(path, question, headers=headers) as reply:
            try:
                answer = json.loads(reply.read(LONGEST_ANSWER))
            except ValueError:
                raise LearnerFault(f"{path} answered something else than JSON") from None
        if not isinstance(answer, dict):
            raise LearnerFault(f"{path} answered something else than a JSON object")
        return answer

    def events(self, path: str, question: Mapping[str, Any]) -> Iterator[str]:
        """The `data:` lines of a stream of server-sent events, as they come."""
        read = 0
        with self._open(path, question) as reply:
            for line in reply:
                read += len(line)
                if read > LONGEST_ANSWER or time.monotonic() > self._end:
                    raise LearnerFault(f"{path} streamed without an end")
                if line.startswith(b"data:"):
                    yield line[5:].decode("utf-8", "replace").strip()

    @contextmanager
    def _open(
        self, path: str, question: Mapping[str, Any] | None, limit: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        limit = limit or min(self._answer_limit, self._end - time.monotonic())
        if limit <= 0:
            raise LearnerFault("the server took too long over all its answers")
        body = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json", **(headers or {})}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=limit) as reply:
                yield reply
        except urllib.error.HTTPError as error:
            error.close()  # it holds the answer's connection
            raise LearnerFault(f"{path} answered with status {error.code}") from None
        except TimeoutError:
            raise LearnerFault(f"{path} did not answer within {limit:.0f} s") from None
        except (OSError, HTTPException) as error:  # URLError is one: refused, reset
            raise LearnerFault(f"{path} cannot be reached: {plain(str(error))}{self._died()}") from None

    def _died(self) -> str:
        code = self._process.poll()
        return "" if code is None else f"; the server ended with exit code {code}{last_line(self._log)}"

    def _wait(self, until: float) -> None:
        """Until /health answers with 200."""
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise LearnerFault(f"the server did not start{self._died()}")
            with suppress(LearnerFault), self._open("/health", None, 5) as reply:
                reply.read(LONGEST_ANSWER)
                return
            time.sleep(0.2)
        raise LearnerFault(f"the server did not answer /health in time{last_line(self._log)}")
