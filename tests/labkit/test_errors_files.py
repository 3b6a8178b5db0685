"""Each test names the bug that it catches."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from labkit.errors import guarded
from labkit.files import atomic_path, sha256_file, write_json, write_text
from labkit.timing import Timer, human_seconds, human_size, peak_memory_mb


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/a.pt"), 2, "no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), 2, "no permission to write /data"),
        (OSError(errno.EROFS, "Read-only file system", "/data"), 2, "no permission to write /data"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2, "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 2, "not enough memory"),
        (KeyboardInterrupt(), 2, "stopped by Ctrl-C"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1, "FileNotFoundError"),
        (ValueError("first line\nsecond line"), 1, "ValueError: first line second line"),
    ],
)
def test_every_exception_is_two_lines(capsys, error, code, message):
    """Catches: a full disk or memory reported as a bug; a message that runs over several lines."""

    def main(argv: list[str]) -> None:
        raise error

    assert guarded(main)([]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and message in lines[0] and lines[1].startswith("  try: ")


def test_exit_code_of_main_is_kept():
    """Catches: a lab's own exit code turned into 0."""
    assert guarded(lambda argv: 3)([]) == 3 and guarded(lambda argv: None)([]) == 0


def test_failed_write_keeps_the_old_file(tmp_path):
    """Catches: writing in place; temporary files left behind."""
    path = write_text(tmp_path / "a" / "report.txt", "old")
    with pytest.raises(OSError, match="disk"), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def _write_and_die(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half of the new cont")
        os.kill(os.getpid(), signal.SIGKILL)


def test_kill_while_writing_keeps_the_old_file(tmp_path):
    """Catches: a checkpoint that is neither the old nor the new one after kill -9."""
    path = write_text(tmp_path / "checkpoint", "old")
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(path,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL and path.read_text() == "old"


def test_json_refuses_nan_and_keeps_chinese(tmp_path):
    """Catches: `NaN` in a file that other JSON readers refuse; \\u escapes for Chinese text."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
    path = write_json(tmp_path / "b.json", {"名": "三国"})
    assert "三国" in path.read_text(encoding="utf-8") and json.loads(path.read_text(encoding="utf-8"))


def test_sha256_file(tmp_path):
    """Catches: a digest of the name or of the first block."""
    content = os.urandom(3_000_000)
    (tmp_path / "x").write_bytes(content)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (2_061_715, "2.1 MB"),
        (9_960_000, "10 MB"),
        (999_600, "1.0 MB"),
        (3.2e9, "3.2 GB"),
    ],
)
def test_human_size(count, text):
    """Catches: 1000 kB, 1024-based sizes under decimal names."""
    assert human_size(count) == text


def test_human_seconds():
    """Catches: 60 seconds in a minute's place."""
    shown = [human_seconds(value) for value in (0.04, 59.94, 119.7, 3599.7, 7260)]
    assert shown == ["0.0 s", "59.9 s", "2 min 00 s", "1 h 00 min", "2 h 01 min"]


def test_peak_memory_is_in_megabytes():
    """Catches: KiB taken for bytes (macOS and Linux differ), which is off by a thousand."""
    before = peak_memory_mb()
    block = bytearray(os.urandom(1)) * 300_000_000
    assert 300 < peak_memory_mb() < before + 700 and len(block)


def test_timer_runs_inside_and_stops_outside():
    """Catches: a timer that reads 0 inside the block or goes on after it."""
    with Timer() as timer:
        while timer.seconds < 0.01:
            pass
    first = timer.seconds
    assert first >= 0.01 and timer.seconds == first
