"""The learner's model, in a process of its own, as the grader sees it: token ids in, logits out.

The grader draws the samples and counts the bits itself; of the learner's code it takes logits and a
tokenizer, no verdicts. A hand-in that crashes, hangs or prints costs its own checks and nothing else.
"""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

WORKER = Path(__file__).with_name("learner_worker.py")
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class LearnerFault(Exception):
    """The learner's code or checkpoint does not do what it has to; one line that says what."""


class LearnerModel:
    """A model that runs in the hand-in's folder.

    Args:
        folder: the hand-in; `stage1_foundations` and `labkit` are imported from there.
        checkpoint: the learner's checkpoint.
        threads: of its computation.
        answer_limit, time_limit: seconds for one answer, and for all of them.

    Raises (every method):
        LearnerFault: an exception in the learner's code, no answer in time, logits that are not numbers.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Path,
        *,
        threads: int = 2,
        answer_limit: float = 60,
        time_limit: float = 150,
    ) -> None:
        self._answer_limit, self._end = answer_limit, time.monotonic() + time_limit
        self._time_limit = time_limit
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._pipe, theirs = multiprocessing.Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(theirs.fileno()), str(checkpoint)],
                cwd=folder, env=reduced_environment(folder, threads), pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()
        self.cached = True
        try:
            facts = self._ask("hello")
            self.context, self.vocab_size = _whole(facts, "context"), _whole(facts, "vocab_size")
            self.parameters, self.data = _whole(facts, "parameters", least=0), dict(facts.get("data") or {})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "LearnerModel":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and whatever it started."""
        self._pipe.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def known(self, characters: str) -> set[str]:
        """The characters that the tokenizer can write."""
        answer = self._ask("known", characters=list(characters)).get("known")
        if not isinstance(answer, list) or len(answer) != len(characters):
            raise LearnerFault("the tokenizer gave no usable answer")
        return {character for character, knows in zip(characters, answer, strict=True) if knows is True}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of every text, checked against the vocabulary."""
        ids = self._ask("encode", texts=list(texts)).get("ids")
        if not isinstance(ids, list) or len(ids) != len(texts):
            raise LearnerFault("the tokenizer did not encode every text")
        for row in ids:
            if not all(isinstance(i, int) and 0 <= i < self.vocab_size for i in row):
                raise LearnerFault(
                    f"the tokenizer gives ids outside the model's vocabulary of {self.vocab_size}"
                )
        return ids

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of every row of ids."""
        texts = self._ask("decode", ids=[[int(i) for i in row] for row in ids]).get("texts")
        if (
            not isinstance(texts, list)
            or len(texts) != len(ids)
            or not all(isinstance(t, str) for t in texts)
        ):
            raise LearnerFault("the tokenizer did not decode every row")
        return texts

    def logits(self, ids: np.ndarray, last: int = 1) -> np.ndarray:
        """Logits at the last positions of the plain forward pass: (B, T) int64 -> (B, last, V) float32."""
        return self._array("logits", ids, (ids.shape[0], last, self.vocab_size), last=last)

    def next_logits(self, ids: np.ndarray) -> np.ndarray:
        """Logits of the next token, (B, T) int64 -> (B, V) float32; through a KV cache if there is one."""
        return self._array("next", ids, (ids.shape[0], self.vocab_size), cache=self.cached)

    def _array(self, question: str, ids: np.ndarray, shape: tuple[int, ...], **request: Any) -> np.ndarray:
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        answer = self._ask(question, ids, shape=ids.shape, **request)
        if tuple(answer.get("shape") or ()) != shape:
            raise LearnerFault(
                f"the model's logits have the shape {answer.get('shape')}, expected {list(shape)}"
            )
        self.cached = self.cached and answer.get("cached") is True
        values = np.frombuffer(self._receive(), dtype=np.float32)
        if values.size != math.prod(shape):
            raise LearnerFault("the model's answer is incomplete")
        if not np.isfinite(values).all():
            raise LearnerFault("the model's logits are not finite numbers (NaN or infinity)")
        return values.reshape(shape)

    def _ask(self, question: str, array: np.ndarray | None = None, **request: Any) -> dict[str, Any]:
        try:
            self._pipe.send_bytes(json.dumps({"question": question, **request}).encode())
            if array is not None:
                self._pipe.send_bytes(array)
        except OSError:
            raise LearnerFault(self._died()) from None
        try:
            answer = json.loads(self._receive())
        except ValueError:
            raise LearnerFault("the model's process wrote something else than an answer") from None
        if not isinstance(answer, dict):
            raise LearnerFault("the model's process wrote something else than an answer")
        if "error" in answer:
            raise LearnerFault(plain(str(answer["error"])))
        return answer

    def _receive(self) -> bytes:
        left = self._end - time.monotonic()
        try:
            if not self._pipe.poll(max(0.0, min(self._answer_limit, left))):
                which = "one answer" if left > self._answer_limit else "all answers"
                limit = self._answer_limit if left > self._answer_limit else self._time_limit
                raise LearnerFault(f"the model is too slow or hangs: {which} took longer than {limit:g} s")
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise LearnerFault(self._died()) from None

    def _died(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        said = f": {plain(lines[-1].strip())}" if lines else ""
        return f"the model's process ended by itself (exit code {code}){said}"


def reduced_environment(folder: Path, threads: int) -> Mapping[str, str]:
    """What the learner's process may know: no variable of the grader, the hand-in alone to import from."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    count = min(threads, int(allowed)) if allowed.isdigit() and int(allowed) else threads
    return kept | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",  # a hand-in is read, not written to
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": str(count),
    }


def plain(text: str) -> str:
    """What a hand-in wrote, in one line that cannot move the cursor or fill the screen."""
    return "".join(character if character.isprintable() else " " for character in text)[:300]


def _whole(facts: Mapping[str, Any], name: str, least: int = 1) -> int:
    value = facts.get(name)
    if not isinstance(value, int) or value < least:
        raise LearnerFault(f"the model's {name} is {value!r}")
    return value
