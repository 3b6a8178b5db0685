"""From tokens to text as they come: a character is given out whole or not at all, and nothing of a stop string is.

A token of a byte-level vocabulary is a piece of bytes; 你 or an emoji can take several tokens, and decoding half of it
gives U+FFFD. So text is held back while it ends in U+FFFD, and decoding starts a few tokens earlier, because some
tokenizers write a token otherwise at the beginning of a text.
"""

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"


class Detokenizer:
    """The text of one request.

    Attributes:
        text: everything decoded so far, up to a stop string.
        stopped: the stop string that was met.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._core = getattr(tokenizer, "backend_tokenizer", tokenizer)  # ten times as fast, where there is one
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._first, self._read = 0, 0  # decode from `first`; tokens up to `read` are in the text
        self._given = 0
        self.text = ""
        self.stopped: str | None = None

    def add(self, token: int) -> None:
        """Take one more token."""
        self._ids.append(token)
        self._advance(final=False)

    def finish(self) -> None:
        """No more tokens come: an incomplete character stays the U+FFFD that it is."""
        if self.stopped is None:
            self._advance(final=True)

    def new_text(self, final: bool) -> str:
        """What can be given out since the last call; before the end without what may become a stop string."""
        end = len(self.text)
        if not final and self.stopped is None:
            end -= held_back(self.text[self._given :], self._stops)
        piece, self._given = self.text[self._given : end], max(end, self._given)
        return piece

    def _advance(self, final: bool) -> None:
        before = self._decode(self._ids[self._first : self._read])
        now = self._decode(self._ids[self._first :])
        if len(now) <= len(before) or (now.endswith(REPLACEMENT) and not final):
            return
        self._first, self._read = self._read, len(self._ids)
        looked = len(self.text)
        self.text += now[len(before) :]
        self._find_stop(looked)

    def _find_stop(self, looked: int) -> None:
        """Cut the text before the first stop string that ends after position `looked`."""
        places = [(place, stop) for stop in self._stops
                  if (place := self.text.find(stop, max(0, looked - len(stop) + 1))) >= 0]  # fmt: skip
        if places:
            place, self.stopped = min(places)
            self.text = self.text[:place]

    def _decode(self, ids: list[int]) -> str:
        return self._core.decode(ids, skip_special_tokens=True) if ids else ""


# exercise: serving.held_back
def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may still become a stop string: the longest end that begins one.

    A whole stop string is not meant (it has been found already), only a proper beginning.
    """
    longest = max((len(stop) - 1 for stop in stops), default=0)
    for count in range(min(longest, len(text)), 0, -1):
        end = text[-count:]
        if any(stop.startswith(end) and len(stop) > count for stop in stops):
            return count
    return 0
# end exercise
