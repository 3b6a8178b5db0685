"""The learner's RAG as the grader sees it: a command that ingests, and a server that answers over HTTP.

    python -m stage2_rag_finetune_deploy.rag ingest --docs passages.jsonl --index FOLDER
    python -m stage2_rag_finetune_deploy.rag serve --index FOLDER --port PORT
    GET  /health     200 once questions are answered
    POST /retrieve   {"question", "k"} -> {"hits": [{"id", "text", "score"}]}, the best first
    POST /ask        {"question"} -> {"answer", "refused", "citations": [{"id", "quote"}]}

The grader counts; of the learner's code it takes rankings and answers, no verdicts. A hand-in that crashes, hangs or
prints costs its own checks and nothing else.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from milestones.learner_model import LearnerFault, plain, reduced_environment

MODULE = "stage2_rag_finetune_deploy.rag"
LONGEST_ANSWER = 2_000_000  # bytes


def environment(folder: Path, runs: Path, threads: int) -> Mapping[str, str]:
    """As for a model; the cache of data is shared, and what the hand-in's commands report goes to `runs`."""
    cache = {name: os.environ[name] for name in ("COURSE_LAB_CACHE",) if name in os.environ}
    return {**reduced_environment(folder, threads), **cache, "COURSE_LAB_RUNS": str(runs)}


def last_line(log: Any) -> str:
    """The last line that the hand-in printed, for a message."""
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return f": {plain(lines[-1].strip())}" if lines else ""


def start(folder: Path, words: Sequence[str], log: Any, runs: Path, threads: int) -> subprocess.Popen[bytes]:
    """One of the hand-in's commands, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE, *words], cwd=folder, env=environment(folder, runs, threads),
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_ingest(folder: Path, docs: Path, index: Path, runs: Path, *, threads: int, limit: float) -> None:
    """Let the hand-in index a file of passages.

    Raises:
        LearnerFault: it fails, or takes longer than `limit` seconds.
    """
    words = ["ingest", "--docs", str(docs), "--index", str(index)]
    with tempfile.TemporaryFile() as log:
        process = start(folder, words, log, runs, threads)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise LearnerFault(f"ingest took longer than {limit:.0f} s") from None
        finally:
            end(process)
        if code:
            raise LearnerFault(f"ingest ended with exit code {code}{last_line(log)}")


class LearnerServer:
    """The hand-in's server on a free port of this machine.

    Args:
        folder: the hand-in.
        index: what it serves.
        runs: a folder for what its commands report.
        start_limit, answer_limit, time_limit: seconds until /health answers, for one answer, for all of them.

    Raises (every method):
        LearnerFault: it ends, does not answer in time, or answers something else than the form.
    """

    def __init__(
        self, folder: Path, index: Path, runs: Path, *, threads: int, start_limit: float, answer_limit: float,
        time_limit: float,
    ) -> None:  # fmt: skip
        self._answer_limit, self._end = answer_limit, time.monotonic() + start_limit + time_limit
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = ["serve", "--index", str(index), "--port", str(self.port)]
        self._process = start(folder, words, self._log, runs, threads)
        self.seconds: list[float] = []  # of every retrieval
        try:
            self._wait(time.monotonic() + start_limit)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "LearnerServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        end(self._process)
        self._log.close()

    def retrieve(self, question: str, k: int) -> list[tuple[str, str]]:
        """(id, text) of the passages found, the best first; at most k, each id once."""
        started = time.perf_counter()
        hits = self._ask("/retrieve", question=question, k=k).get("hits")
        self.seconds.append(time.perf_counter() - started)
        if not isinstance(hits, list) or not all(isinstance(hit, dict) for hit in hits):
            raise LearnerFault("/retrieve gave no list of hits")
        found = [(hit.get("id"), hit.get("text")) for hit in hits[:k]]
        if not all(isinstance(id, str) and isinstance(text, str) for id, text in found):
            raise LearnerFault("a hit of /retrieve lacks its id or its text")
        return list({id: (id, text) for id, text in reversed(found)}.values())[::-1]

    def ask(self, question: str) -> dict[str, Any]:
        """{"answer": str, "refused": bool, "citations": [{"id": str, "quote": str}]}, the form checked."""
        answer = self._ask("/ask", question=question)
        citations = answer.get("citations")
        well_formed = (
            isinstance(answer.get("answer"), str)
            and isinstance(answer.get("refused"), bool)
            and isinstance(citations, list)
            and all(isinstance(c, dict) and isinstance(c.get("id"), str) for c in citations)
            and all(isinstance(c.get("quote"), str) for c in citations)
        )
        if not well_formed:
            raise LearnerFault("/ask did not answer in the form that milestones/README.md gives")
        return answer

    def _ask(self, path: str, **question: Any) -> dict[str, Any]:
        body = json.dumps(question).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"}
        )
        return self._read(request, min(self._answer_limit, self._end - time.monotonic()))

    def _read(self, request: urllib.request.Request, limit: float) -> dict[str, Any]:
        path = request.selector
        if limit <= 0:
            raise LearnerFault("the server took too long over all its answers")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=limit) as reply:
                answer = json.loads(reply.read(LONGEST_ANSWER))
        except urllib.error.HTTPError as error:
            raise LearnerFault(f"{path} answered with status {error.code}") from None
        except TimeoutError:
            raise LearnerFault(f"{path} did not answer within {limit:.0f} s") from None
        except OSError as error:  # URLError is one: refused, reset
            raise LearnerFault(f"{path} cannot be reached: {plain(str(error))}{self._died()}") from None
        except ValueError:
            raise LearnerFault(f"{path} answered something else than JSON") from None
        if not isinstance(answer, dict):
            raise LearnerFault(f"{path} answered something else than a JSON object")
        return answer

    def _died(self) -> str:
        code = self._process.poll()
        return "" if code is None else f"; the server ended with exit code {code}{last_line(self._log)}"

    def _wait(self, until: float) -> None:
        """Until /health answers with 200."""
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise LearnerFault(f"the server did not start{self._died()}")
            with suppress(LearnerFault):
                self._read(urllib.request.Request(f"http://127.0.0.1:{self.port}/health"), 5)
                return
            time.sleep(0.2)
        raise LearnerFault("the server did not answer /health in time")
