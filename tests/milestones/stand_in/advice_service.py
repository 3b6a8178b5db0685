"""A hand-in's agent/__main__.py for month 5: answers questions from the help centre of its release, over real HTTP.

It searches by words that are rare in the articles, cites the article that fits best, and streams its first section.
"""

import argparse
import base64
import hashlib
import hmac
import json
import math
import re
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def words(text: str) -> set[str]:
    """English words, and pairs of Chinese characters."""
    chinese = re.findall(r"[\u4e00-\u9fff]+", text)
    pairs = {run[place : place + 2] for run in chinese for place in range(len(run))}
    return pairs | {word[:6] for word in re.findall(r"[a-z]{3,}", text.lower())}


class HelpCentre:
    """The articles of a release."""

    def __init__(self, release: Path) -> None:
        self.articles = {}
        for path in sorted(release.glob("rag/articles/*/*.md")):
            self.articles[f"{path.parent.name}/{path.stem}"] = path.read_text(encoding="utf-8")
        self.words = {id: words(text) for id, text in self.articles.items()}
        self.seen_in = Counter(word for each in self.words.values() for word in each)

    def best(self, question: str) -> str:
        """The id of the article that fits."""
        language = "zh" if re.search(r"[\u4e00-\u9fff]", question) else "en"
        asked = words(question)

        def score(id: str) -> float:
            return sum(math.log(len(self.articles) / self.seen_in[word]) for word in asked & self.words[id])

        return max((id for id in self.articles if id.startswith(language)), key=score)


def events_of(centre: HelpCentre, question: str) -> list[tuple[str, dict]]:
    """What a run tells."""
    id = centre.best(question)
    title, _, text = centre.articles[id].partition("\n---\n")[2].strip().partition("\n")
    pieces = re.findall(r"\S+\s*", text.strip()[:400])
    return [
        ("start", {"thread_id": "-"}),
        ("citation", {"number": 1, "id": id, "title": title, "text": text[:80], "kind": "help"}),
        *(("token", {"text": piece}) for piece in pieces),
        ("end", {"reason": "answered", "text": "".join(pieces)}),
    ]


def handler(centre: HelpCentre, secret: bytes) -> type[BaseHTTPRequestHandler]:
    runs: dict[str, list] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/health":
                return self.send({})
            events = runs[self.path.split("/")[2]]
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for place, (kind, data) in enumerate(events, start=1):
                self.wfile.write(f"id: {place}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode())
                if place % 20 == 0:
                    time.sleep(0.005)  # an answer takes a while

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, _, given = self.headers.get("Authorization", "").removeprefix("Bearer ").rpartition(".")
            wanted = base64.urlsafe_b64encode(hmac.new(secret, name.encode(), hashlib.sha256).digest())
            if given != wanted.rstrip(b"=").decode():
                return self.send({}, 401)
            run_id = uuid.uuid4().hex
            runs[run_id] = events_of(centre, body["message"])
            self.send({"run_id": run_id}, 202)

        def send(self, answer: dict, status: int = 200) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    for name in ("--release", "--state", "--port"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    secret = bytes.fromhex(Path(options.state, "service.secret").read_text())
    server = ThreadingHTTPServer(("127.0.0.1", int(options.port)), handler(HelpCentre(Path(options.release)), secret))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    sys.exit(0)


main()
