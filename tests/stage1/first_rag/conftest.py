"""A small manual to ask, a model that says what it is told to, an endpoint on loopback, and the command line."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from pydantic import Field

from stage1_foundations.first_rag.corpus import make_document
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage1_foundations.first_rag.index_folder import build_index, split_documents

MANUAL = {
    "lamp": "The lamp needs a battery. It glows for nine hours.\n\nPress the red knob twice to change its colour.",
    "kettle": "The kettle holds two litres. It switches itself off when the water boils.",
    "scale": "The scale weighs up to five kilograms. Its display shows grams or ounces.",
    "clock": "The clock is set by radio. A weak signal makes its hands stop at noon.",
    "fan": "The fan has three speeds. The highest one is named Zephyr.",
    "radio": "The radio stores forty stations. Hold a key for two seconds to store one.",
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Threads only wait for each other on texts as short as these."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """Where this test's runs go; no key and no endpoint of the developer's are in sight."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    for name in ("COURSE_LAB_DEBUG", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Six short documents."""
    return [make_document(name, text) for name, text in MANUAL.items()]


@pytest.fixture(scope="session")
def embedding() -> LabEmbedding:
    """Vectors that know nothing, at no cost: what is tested here does not depend on their meaning."""
    return LabEmbedding("random")


@pytest.fixture(scope="session")
def index(documents, embedding) -> VectorStoreIndex:
    """The manual, indexed; tests only read it."""
    return build_index(split_documents(documents, embedding, 100, 0), embedding)


@pytest.fixture
def docs(tmp_path) -> Path:
    """The manual as a folder of files."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in MANUAL.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


class ScriptedLLM(CustomLLM):
    """Writes the next of its lines and remembers the prompts: the model's part, so that the rest can be tested."""

    lines: list[str]
    prompts: list[str] = Field(default_factory=list)
    context_window: int = 2048

    @property
    def metadata(self) -> LLMMetadata:
        """Window and length of answers."""
        return LLMMetadata(context_window=self.context_window, num_output=32, model_name="scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The next line; the last one again when there are no more."""
        self.prompts.append(prompt)
        return CompletionResponse(text=self.lines[min(len(self.prompts), len(self.lines)) - 1])

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The same in one piece."""
        answer = self.complete(prompt, formatted, **kwargs)
        return iter([answer])


@pytest.fixture
def scripted() -> Callable[..., ScriptedLLM]:
    """scripted("first answer", "second answer")"""
    return lambda *lines, **options: ScriptedLLM(lines=list(lines), **options)


class Endpoint:
    """A server that speaks OpenAI's protocol: what it was asked, and what it says next."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict, dict]] = []
        self.text = "The kettle holds two litres."
        self.status = 200
        self.body: bytes | None = None
        self.url = ""

    def answer(self, path: str, headers: dict, request: dict) -> tuple[int, bytes]:
        """Status and body."""
        self.requests.append((path, headers, request))
        if self.body is not None:
            return self.status, self.body
        if self.status != 200:
            return self.status, json.dumps({"error": {"message": "the server's own words", "code": None}}).encode()
        message = {"role": "assistant", "content": self.text}
        completion = {
            "id": "1", "object": "chat.completion", "created": 1, "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip
        return 200, json.dumps(completion).encode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """The server on a free port of this machine, as long as the test lasts."""
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = state.answer(self.path, dict(self.headers), request)
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if body[:1] == b"<" else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """`python -m stage1_foundations.first_rag` without a second process: (exit code, stdout, stderr)."""
    from labkit.errors import guarded
    from stage1_foundations.first_rag.__main__ import main

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            code = guarded(main)([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write_pdf(path: Path, pages: list[str]) -> Path:
    """A PDF with a line of text on each page; an empty string is an empty page, as of a scan."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
        kids.append(f"{len(objects) + 1} 0 R")
        page = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects) + 2} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects += [page.encode(), b"<< /Length %d >>\nstream\n" % len(stream) + stream + b"\nendstream"]
    objects[1] = f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(kids)}] >>".encode()
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size, start = len(objects) + 1, len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size + table
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, start)
    path.write_bytes(out)
    return path


@pytest.fixture
def pdf() -> Callable[[Path, list[str]], Path]:
    """pdf(path, ["text of page 1", "text of page 2"])"""
    return write_pdf
