"""A package index on 127.0.0.1, so that the fetcher's tests run the real pip against real archives."""

import dataclasses
import hashlib
import io
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labkit.assets import Asset


class Index:
    """Serves `files` (name -> bytes) under /simple/<project>/; `script` changes the first answers.

    Each word of the script is spent on one request for a file: "truncate" sends the first half as if it were
    everything, "drop" breaks the connection in the middle, "tamper" changes a byte, "hang" stops half-way
    until `release` is set, "slow" waits a second.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.script: list[str] = []
        self.served = 0
        self.hanging, self.release = threading.Event(), threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/simple/"):
                    project = self.path.split("/")[2].replace("-", "_")
                    names = [name for name in index.files if name.startswith(f"{project}-")]
                    links = "".join(f'<a href="/files/{name}">{name}</a>' for name in names)
                    index.send(
                        self, f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html"
                    )
                else:
                    index.send_file(self, self.path.removeprefix("/files/"))

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, body: bytes, kind: str, length: int | None = None) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Cache-Control", "max-age=600")  # as real indexes do, so that pip would keep it
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    def send_file(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        self.served += 1
        body, step = self.files[name], self.script.pop(0) if self.script else ""
        half = len(body) // 2
        if step == "slow":
            time.sleep(1)
        if step == "truncate":
            body = body[:half]
        if step == "tamper":
            # in the middle of the payload, which is stored and not compressed: the zip stays readable
            body = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
        if step in ("drop", "hang"):
            self.send(handler, body[:half], "application/octet-stream", len(body))
            handler.wfile.flush()
            if step == "hang":
                self.hanging.set()
                self.release.wait(20)
            handler.close_connection = True
            return
        self.send(handler, body, "application/octet-stream")


@pytest.fixture
def index(tmp_path, monkeypatch) -> Iterator[Index]:
    """A running index that is the only one pip knows, and an empty cache."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "COURSE_LAB_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    server = Index()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    monkeypatch.setenv("COURSE_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")  # only then does pip cache what came over http
    yield server
    server.release.set()
    server.server.shutdown()
    server.server.server_close()


PAYLOAD = b"To be, or not to be, that is the question.\n" * 2000


def make_wheel(name: str = "bard", version: str = "1.0", payload: bytes = PAYLOAD) -> bytes:
    """A wheel that pip accepts, with one text of interest and one that is not wanted."""
    buffer = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as wheel:
        wheel.writestr(f"{name}/texts/hamlet.txt", payload)
        wheel.writestr(f"{name}/huge.bin", b"unwanted")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def make_sdist(setup: str, name: str = "bard", version: str = "1.0") -> bytes:
    """A source archive whose setup.py is `setup`."""
    buffer = io.BytesIO()
    members = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        "setup.py": setup.encode(),
        "texts/hamlet.txt": PAYLOAD,
    }
    with tarfile.open(fileobj=buffer, mode="w:gz") as sdist:
        for path, content in members.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(content)
            sdist.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def wheel(index) -> Asset:
    """An asset whose wheel the index serves."""
    body = make_wheel()
    index.files["bard-1.0-py3-none-any.whl"] = body
    return Asset(
        name="hamlet",
        title="a line of Hamlet",
        kind="text",
        language="en",
        licence="public domain",
        publisher="the tests",
        package="bard",
        version="1.0",
        sha256=hashlib.sha256(body).hexdigest(),
        download_bytes=len(body),
        kept_bytes=len(PAYLOAD),
        members=("bard/texts/*.txt",),
        strip="bard/texts/",
        entry="hamlet.txt",
        files={"hamlet.txt": hashlib.sha256(PAYLOAD).hexdigest()},
    )


@pytest.fixture
def sdist(index, wheel, tmp_path) -> Asset:
    """An asset whose source archive leaves a file behind when its setup.py runs."""
    body = make_sdist(f"open({str(tmp_path / 'setup-ran')!r}, 'w')")
    index.files = {"bard-1.0.tar.gz": body}
    changes = {"sha256": hashlib.sha256(body).hexdigest(), "download_bytes": len(body), "archive": "sdist"}
    return dataclasses.replace(wheel, members=("bard-1.0/texts/*",), strip="bard-1.0/texts/", **changes)
