"""Seconds and peak memory."""

import sys
import time


class Timer:
    """`with Timer() as timer: ...` then `timer.seconds`; inside the block it is the time so far."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stop: float | None = None

    def __enter__(self) -> "Timer":
        self._start, self._stop = time.perf_counter(), None
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = time.perf_counter()

    @property
    def seconds(self) -> float:
        return (time.perf_counter() if self._stop is None else self._stop) - self._start


def peak_memory_mb() -> float:
    """Largest resident memory so far, in MB (10^6 bytes), of this process or of its largest finished child.

    The maximum and not the sum: at its fork a child is counted with its parent's pages.
    """
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e6
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(peaks) * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes on macOS, KiB on Linux


def human_seconds(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def human_size(count: float) -> str:
    """512 B, 12 kB, 1.1 MB, 93 MB: powers of ten, as package indexes print them."""
    if count < 999.5:
        return f"{count:.0f} B"
    scale, unit = next((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= 0.9995 * s)
    return f"{count / scale:.1f} {unit}" if count < 9.95 * scale else f"{count / scale:.0f} {unit}"
