"""Trials shared among processes: most of a turn is Python, and one process runs Python on one core."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from threading import Thread
from typing import Any

Play = Callable[[range, Callable[[], None]], Any]  # trials, what is to be called after each conversation -> results
_tick: Callable[[bool], None]


def shares(trials: int, processes: int) -> list[range]:
    """The trials in as many parts as there are processes, none of them empty."""
    borders = [round(number * trials / processes) for number in range(processes + 1)]
    return [range(first, end) for first, end in zip(borders, borders[1:], strict=False) if end > first]


def in_processes(play: Play, parts: Sequence[range], done: Callable[[], None]) -> list[Any]:
    """What `play` makes of every part, in their order; each in a process with one thread of arithmetic.

    Args:
        play: a function of a module, or a partial of one; its results can be pickled.
        done: called here after each conversation.
    """
    context = get_context("spawn")
    ticks = context.SimpleQueue()

    def listen() -> None:
        while ticks.get():
            done()

    listener = Thread(target=listen)
    listener.start()
    try:
        with ProcessPoolExecutor(len(parts), context, _begin, (ticks.put,)) as pool:
            return list(pool.map(partial(_play, play), parts))
    finally:
        ticks.put(False)
        listener.join()


def _begin(put: Callable[[bool], None]) -> None:
    import numpy  # noqa: F401 - what is limited has to be there
    from threadpoolctl import threadpool_limits

    global _tick
    _tick = put
    threadpool_limits(1)


def _play(play: Play, part: range) -> Any:
    return play(part, lambda: _tick(True))
