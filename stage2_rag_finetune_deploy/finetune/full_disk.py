"""A full disk in the words of torch and of safetensors, as the OSError that the command line explains."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# safetensors (a class of its own); torch's zip writer, which found less on the disk than it wrote (RuntimeError)
WORDS = ("No space left on device", "inline_container")


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn either library's exception into OSError(ENOSPC, ..., path); all others pass."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if any(words in str(error) for words in WORDS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise
