"""Tell somebody: one JSON object for each event, POSTed to a webhook, in a thread that nobody ever waits for.

A rollback must not hang because a chat server does. So messages go into a queue; the thread tries each one a few times
with growing pauses and then gives it up, which the log file says. What is still queued when the process ends gets
`FAREWELL` seconds, no more.
"""

import json
import queue
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from labkit.errors import LabError

PAUSES = (0.5, 2.0, 5.0)  # seconds before each further try
TIMEOUT = 5.0
FAREWELL = 3.0
ROOM = 1_000  # messages that may wait; more are dropped, the oldest stay


class Notifier:
    """Sends messages to a webhook; without a URL only the file gets them.

    Args:
        url: of the webhook, http:// or https://; None sends nothing.
        file: every message and what became of it, one JSON a line.
        pauses: seconds before each further try.

    Raises:
        LabError: a URL of another kind.
    """

    def __init__(self, url: str | None, file: Path, pauses: tuple[float, ...] = PAUSES) -> None:
        if url and not url.startswith(("http://", "https://")):
            raise LabError(f"{url} is no webhook", "--webhook http://HOST/PATH")
        self.url, self.file, self.pauses = url, file, pauses
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(ROOM)
        self._thread = threading.Thread(target=self._work, name="notifications", daemon=True)
        self._thread.start()

    def send(self, title: str, text: str, **facts: Any) -> None:
        """Queue a message; never waits, never raises."""
        message = {"title": title, "text": text, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._note(message, "dropped: too many are waiting")

    def close(self, farewell: float = FAREWELL) -> None:
        """Give what is queued a moment, then go."""
        try:
            self._queue.put(None, timeout=0.1)
        except queue.Full:
            return
        self._thread.join(farewell)

    def _work(self) -> None:
        secure = (self.url or "").startswith("https:")  # reading the certificates takes longer than the rest
        with httpx.Client(timeout=TIMEOUT, trust_env=False, verify=secure) as client:
            while (message := self._queue.get()) is not None:
                self._note(message, self._deliver(client, message) if self.url else "no webhook")

    def _deliver(self, client: httpx.Client, message: Mapping[str, Any]) -> str:
        outcome = ""
        for pause in (0.0, *self.pauses):
            time.sleep(pause)
            try:
                answer = client.post(self.url, json=message)
            except httpx.HTTPError as error:
                outcome = f"not delivered: {type(error).__name__}"
                continue
            if answer.is_success:
                return "delivered"
            outcome = f"not delivered: {answer.status_code}"
            if answer.is_client_error and answer.status_code not in (408, 429):
                return outcome  # asking again changes nothing
        return outcome

    def _note(self, message: Mapping[str, Any], outcome: str) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps({**message, "outcome": outcome}, ensure_ascii=False, default=str) + "\n")
        except OSError:
            pass  # a full disk: telling is the least important thing now
