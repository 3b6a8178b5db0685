"""Cuts a stream of server-sent events into its frames and leaves every byte of them as it is.

The gateway has to know three things of a frame, its number, its type and where it ends; the rest is the customer's.
"""

import re
from dataclasses import dataclass

END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
LONGEST = 2**22  # bytes of one frame; the services' are far below


@dataclass(frozen=True)
class Frame:
    """One frame, with the empty line behind it. `id` is None where it moves no cursor; a comment has no type."""

    id: int | None
    type: str
    data: bytes
    raw: bytes


class FrameCutter:
    """Pieces in, whole frames out; what is left over waits for the next piece."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that are whole now.

        Raises:
            ValueError: a frame without an end.
        """
        self._rest += piece
        frames, start = [], 0
        for end in END.finditer(self._rest):
            frames.append(read_frame(self._rest[start : end.end()]))
            start = end.end()
        self._rest = self._rest[start:]
        if len(self._rest) > LONGEST:
            raise ValueError("a frame without an end")
        return frames


def read_frame(raw: bytes) -> Frame:
    """A frame's number, type and data (WHATWG HTML, section 9.2.6)."""
    id, type, data = None, "", []
    for line in raw.splitlines():
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            type = value.decode("utf-8", "replace")
        elif name == b"id" and value.isdigit():
            id = int(value)
    return Frame(id, type, b"\n".join(data), raw)
