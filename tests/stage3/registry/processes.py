"""Work in processes of its own, by fork: killed at a chosen call, or several at once."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest import mock

DONE, FAILED = 0, 70


def killed_at(number: int, watched: Sequence[tuple[Any, str]], work: Callable[[], object]) -> bool:
    """Run `work` in a child that is killed before the n-th call of the watched functions; False: it was done first."""
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            calls = iter(range(number - 1))

            def watch(function: Callable) -> Callable:
                def call(*words: Any, **named: Any) -> Any:
                    if next(calls, None) is None:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*words, **named)

                return call

            with ExitStack() as stack:
                for owner, name in watched:
                    stack.enter_context(mock.patch.object(owner, name, watch(getattr(owner, name))))
                work()
            code = DONE
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (DONE, -signal.SIGKILL), f"the child ended with {status}"
    return status != DONE


def every_kill(watched: Sequence[tuple[Any, str]], work: Callable[[int], Callable[[], object]]) -> Iterator[int]:
    """Kill a piece of work before each of its watched calls; yields the number of each case, from 1.

    `work(case)` prepares a case and returns what the child does. After a call is before the next one.
    """
    for case in count(1):
        if not killed_at(case, watched, work(case)):
            assert case > 1, "none of the watched calls was made"
            return
        yield case


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def at_once(jobs: Sequence[Callable[[], object]]) -> list[object]:
    """Run each job in a process of its own, all let go at the same time; results, or what was raised, as a text."""
    with ExitStack() as stack:
        gate = stack.enter_context(_pipe())
        answers = [stack.enter_context(_pipe()) for _ in jobs]
        children = []
        for job, answer in zip(jobs, answers, strict=True):
            child = os.fork()
            if child == 0:
                code = FAILED
                try:
                    os.read(gate[0], 1)
                    try:
                        result: object = job()
                    except Exception as error:
                        result = f"{type(error).__name__}: {error}"
                    os.write(answer[1], pickle.dumps(result))
                    code = DONE
                finally:
                    os._exit(code)
            children.append(child)
        os.write(gate[1], b"." * len(jobs))
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DONE
        return [pickle.loads(os.read(answer[0], 1 << 16)) for answer in answers]
