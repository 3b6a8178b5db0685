"""Files under the name of their content: `objects/ab/cdef...`, where abcdef... is the SHA-256.

Three things follow from the name alone. A file that two releases share is stored once. A file that was changed no
longer fits its name, so it cannot be handed out unnoticed. And writing needs no lock: two processes that write the
same file write the same bytes.

A file is copied to `incoming/`, flushed to the disk and renamed. What a killed writer leaves there belongs to nobody,
and its name tells whose it was.
"""

import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from labkit.environment import process_alive, process_identity
from labkit.files import sha256_file, sync_folder
from stage3_agents_llmops.registry.interface import Damaged
from stage3_agents_llmops.registry.release import StoredFile

PIECE = 1 << 20  # bytes read at once


class ContentStore:
    """Files by their SHA-256, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.objects = folder / "objects"
        self.incoming = folder / "incoming"

    def path(self, sha256: str) -> Path:
        """Where a file with that hash lies, if it is there."""
        return self.objects / sha256[:2] / sha256[2:]

    def add(self, path: str, source: Path) -> StoredFile:
        """Store a file and return its entry for a manifest, with the hash of what was stored."""
        sha256 = sha256_file(source)
        if self.intact(sha256):
            return StoredFile(path, sha256, source.stat().st_size)
        with open(source, "rb") as file:
            return StoredFile(path, *self._write(file))

    def add_bytes(self, content: bytes) -> str:
        """Store bytes; returns their SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        return sha256 if self.intact(sha256) else self._write(io.BytesIO(content))[0]

    def present(self, file: StoredFile) -> bool:
        """Whether a file is there and as long as it should be: quick, and blind to changed bytes."""
        with suppress(FileNotFoundError):
            return self.path(file.sha256).stat().st_size == file.bytes
        return False

    def intact(self, sha256: str) -> bool:
        """Whether a file is there and still fits its name."""
        place = self.path(sha256)
        return place.is_file() and sha256_file(place) == sha256

    def read_bytes(self, sha256: str, what: str) -> bytes:
        """A small file as bytes, checked.

        Raises:
            Damaged: it is missing or changed.
        """
        buffer = io.BytesIO()
        self._copy_checked(sha256, None, buffer, what)
        return buffer.getvalue()

    def copy_to(self, file: StoredFile, target: Path) -> None:
        """Write a file to `target`. What is hashed is what is written, so nothing can change in between.

        Raises:
            Damaged: it is missing, truncated or changed.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as out:
            self._copy_checked(file.sha256, file.bytes, out, file.path)

    def stored(self) -> Iterator[tuple[str, Path]]:
        """Hash and place of every file."""
        for place in sorted(self.objects.glob("??/*")):
            yield place.parent.name + place.name, place

    def orphans(self) -> list[Path]:
        """Half-written files whose writer is gone."""
        return [path for path in sorted(self.incoming.glob("*")) if not _writer_alive(path)]

    def _write(self, source: BinaryIO) -> tuple[str, int]:
        """Copy, flush, rename; returns hash and size of what was written."""
        with self._incoming_file() as temporary:
            sha256, size = hashlib.sha256(), 0
            with open(temporary, "wb") as out:
                while piece := source.read(PIECE):
                    sha256.update(piece)
                    size += len(piece)
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(temporary, 0o444)  # nobody edits it by accident
            place = self.path(sha256.hexdigest())
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, place)
        sync_folder(place.parent)
        sync_folder(self.objects)
        return sha256.hexdigest(), size

    @contextmanager
    def _incoming_file(self) -> Iterator[Path]:
        self.incoming.mkdir(parents=True, exist_ok=True)
        pid, started = process_identity()
        temporary = self.incoming / f"{pid}-{started:.2f}-{secrets.token_hex(4)}"
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _copy_checked(self, sha256: str, size: int | None, out: BinaryIO, what: str) -> None:
        advice = "publish the release again from its run: intact files are kept, this one is replaced"
        seen, length = hashlib.sha256(), 0
        try:
            with open(self.path(sha256), "rb") as stored:
                while piece := stored.read(PIECE):
                    seen.update(piece)
                    length += len(piece)
                    out.write(piece)
        except FileNotFoundError:
            raise Damaged(f"{what} is missing from the registry", advice) from None
        if size is not None and length != size:
            word = "truncated" if length < size else "longer than it was"
            raise Damaged(f"{what} is {word}: {length:,} bytes, published with {size:,}", advice)
        if seen.hexdigest() != sha256:
            raise Damaged(f"{what} was changed after it was published: its SHA-256 is another", advice)


def _writer_alive(path: Path) -> bool:
    """Whether the process in the name of a file in `incoming/` still runs; a name that says nothing counts as alive."""
    try:
        pid, started, _ = path.name.split("-")
        return process_alive(int(pid), float(started))
    except ValueError:
        return True
