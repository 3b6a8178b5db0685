"""Bad input ends in two lines and exit code 2, never in a traceback.

    error: the corpus poems.txt is empty
      try: --data tiny-shakespeare

`--debug` on the command line, or COURSE_LAB_DEBUG=1, shows the traceback as well.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

DEBUG_VARIABLE = "COURSE_LAB_DEBUG"


class LabError(Exception):
    """Something the user can put right: what is wrong, and what to type next."""

    def __init__(self, message: str, try_next: str) -> None:
        super().__init__(message)
        self.message = message
        self.try_next = try_next

    def __reduce__(self) -> tuple:
        return _restored, (type(self), self.message, self.try_next)  # whatever its constructor asks for


def _restored(kind: type[LabError], message: str, try_next: str) -> LabError:
    error = kind.__new__(kind)
    LabError.__init__(error, message, try_next)
    return error


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def explain(error: BaseException) -> tuple[str, str, int]:
    """The message, the advice and the exit code for any exception."""
    text = " ".join(str(error).split())
    if isinstance(error, LabError):
        return error.message, error.try_next, 2
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C", "the same command again", 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        advice = "free some space, or move the folders with COURSE_LAB_CACHE and COURSE_LAB_RUNS"
        return f"no space left on the disk{where}", advice, 2
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return (
            f"no permission to write {error.filename}",
            "COURSE_LAB_CACHE and COURSE_LAB_RUNS move the folders",
            2,
        )
    # torch reports a full memory as RuntimeError; importing torch for its own class would take seconds
    memory_words = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text.lower() for words in memory_words)
    ):
        return "not enough memory", "a smaller --preset or a smaller batch, or close other programs", 2
    kind = type(error).__name__
    return (f"{kind}: {text}" if text else kind), "the same command with --debug for the traceback", 1


def report_error(error: BaseException) -> int:
    """Print the two lines on stderr (after the traceback when debugging); returns the exit code."""
    message, advice, code = explain(error)
    if debugging():
        traceback.print_exception(error)
    sys.stdout.flush()
    print(f"error: {message}\n  try: {advice}", file=sys.stderr)
    return code


def guarded(main: Callable[[list[str]], int | None]) -> Callable[[Sequence[str] | None], int]:
    """Wrap a main function so that it returns an exit code and never raises.

    0 when `main` returns None; LabError, Ctrl-C, a full disk and too little memory give 2; any other
    exception gives one line and 1. `--debug` is taken out of argv before `main` sees it.
    """

    def guarded_main(argv: Sequence[str] | None = None) -> int:
        argv = list(sys.argv[1:] if argv is None else argv)
        if "--debug" in argv:
            os.environ[DEBUG_VARIABLE] = "1"
            argv = [word for word in argv if word != "--debug"]
        try:
            return main(argv) or 0
        except BrokenPipeError:  # `... | head`: the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (Exception, KeyboardInterrupt) as error:
            return report_error(error)

    return guarded_main
