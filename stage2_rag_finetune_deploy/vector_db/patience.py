"""Ask a server again while it restarts, and say clearly when it did not come back."""

import time
from collections.abc import Callable
from typing import TypeVar

from labkit.errors import LabError

T = TypeVar("T")
PAUSE = 0.3  # seconds between two tries


def ask(
    call: Callable[[], T],
    action: str,
    where: str,
    patience: float,
    errors: tuple[type[Exception], ...],
    is_passing: Callable[[str], bool],
    reconnect: Callable[[], object] = lambda: None,
) -> T:
    """The answer of `call`, which may be repeated safely: writing the same records twice is writing them once.

    Args:
        action: what the call does, for messages ("write to docs"). where: the server.
        patience: seconds to go on asking while the server is away.
        errors: what the client library raises. is_passing: whether an error's words mean that it may pass.
        reconnect: done between two tries.

    Raises:
        LabError: refused, or away for longer than `patience`.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except errors as error:
            why = reason(error)
            if not is_passing(why.lower()):
                raise LabError(f"{where} refused to {action}: {why}", "--debug shows where") from error
            if time.monotonic() > deadline:
                raise LabError(
                    f"lost {where}, could not {action} for {patience:.0f} s: {why}",
                    "start the server again, then the same command: what was acknowledged is kept",
                ) from error
        time.sleep(PAUSE)
        reconnect()


def reason(error: Exception) -> str:
    """An error's words in one short line, without the stack of the client library."""
    text = getattr(error, "message", None) or str(error)
    return " ".join(str(text).split())[:160] or type(error).__name__
