"""A bar with the time left for anything longer than two seconds.

    for batch in progress(batches, description="encode"): ...
    with progress(total=steps, description="train") as bar:
        bar.advance(); bar.note("loss 1.62")

The bar goes to stderr, so stdout can be piped. Without a terminal (CI, a file) there is one line every
30 seconds instead.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from labkit.timing import human_seconds, human_size

# imported by the way with peft, it says each time that a kernel for four bits is missing on this processor
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
console = Console(highlight=False, soft_wrap=False)
error_console = Console(stderr=True, highlight=False)
PLAIN_EVERY = 30.0  # seconds


class progress:  # noqa: N801 - used like a function
    """Iterate it, or use it as a context and call `advance`. A total of None shows no end."""

    def __init__(
        self,
        iterable: Iterable | None = None,
        total: float | None = None,
        description: str = "",
        unit: str = "",
    ) -> None:
        self._iterable, self._description, self._unit, self._note = iterable, description, unit, ""
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.done = 0.0
        self._live: Progress | None = None

    def __enter__(self) -> "progress":
        self._start = self._last_line = time.monotonic()
        if error_console.is_terminal:
            count = (
                [DownloadColumn(), TransferSpeedColumn()] if self._unit == "bytes" else [MofNCompleteColumn()]
            )
            times = [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
            columns = [TextColumn("{task.description}"), BarColumn(bar_width=20), *count, *times]
            columns.append(TextColumn("{task.fields[note]}"))
            self._live = Progress(*columns, console=error_console)
            self._task = self._live.add_task(escape(self._description), total=self.total, note="")
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()
        elif time.monotonic() - self._start > 2:
            self._print_line()

    def __iter__(self) -> Iterator[Any]:
        if self._iterable is None:
            raise TypeError("this progress has no iterable; use it as a context")
        with self:
            for item in self._iterable:
                yield item
                self.advance()

    def advance(self, steps: float = 1) -> None:
        """Move forward by `steps`."""
        self.update(self.done + steps)

    def update(self, done: float) -> None:
        """Set how much is done."""
        self.done = done
        if self._live:
            self._live.update(self._task, completed=done, total=self.total)
        elif time.monotonic() - self._last_line >= PLAIN_EVERY:
            self._print_line()

    def note(self, text: str) -> None:
        """A few words after the bar, such as the current loss."""
        self._note = text
        if self._live:
            self._live.update(self._task, note=escape(text))

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._start
        shown = human_size if self._unit == "bytes" else "{:g}".format
        line = f"{self._description}: {shown(self.done)}"
        if self.total:
            line += f" of {shown(self.total)}"
        if self.total and 0 < self.done < self.total:
            line += f", {human_seconds(elapsed * (self.total - self.done) / self.done)} left"
        error_console.print(f"{line}  {self._note}".rstrip(), markup=False, soft_wrap=True)
