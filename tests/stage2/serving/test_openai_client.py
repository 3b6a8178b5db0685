"""The client and what it makes of other people's mistakes. Each test names the bug that it catches."""

import http.server
import threading

import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.openai_client import Client, base_url, settings


@pytest.fixture
def server():
    """Answers every request with the status and the body that the test sets."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = self.server.says
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *words: object) -> None:
            """Quiet."""

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, b'{"error": {"message": "max_tokens=9"}}', "said 400 max_tokens=9"),  # OpenAI's form
        (422, b'{"detail": "field required"}', "said 422 field required"),  # FastAPI's
        (502, b"<html>bad gateway</html>", "said 502 <html>bad gateway"),  # a proxy's
        (500, b"", "said 500 Internal Server Error"),
        (200, b"hello", "something else than JSON"),
        (200, b"[1]", "something else than JSON"),
    ],
)
def test_answers_that_are_none(server, status, body, words):
    """Catches: KeyError or JSONDecodeError in place of what the server said."""
    server.says = status, body
    with Client(f"http://127.0.0.1:{server.server_port}") as client, pytest.raises(LabError) as caught:
        client.chat("m", [{"role": "user", "content": "hi"}])
    assert words in caught.value.message and caught.value.try_next


def test_a_list_without_models(server):
    """Catches: IndexError at the first model."""
    server.says = 200, b'{"data": []}'
    with Client(f"http://127.0.0.1:{server.server_port}") as client, pytest.raises(LabError, match="lists no model"):
        client.models()


def test_addresses():
    """Catches: /v1/v1/models; a proxy for this machine, or none for the world."""
    assert base_url("http://a:1/v1") == base_url("http://a:1/") == base_url("http://a:1") == "http://a:1"
    assert not settings("http://localhost:1", 1)["trust_env"] and settings("https://api.example.com/v1", 1)["trust_env"]
    with pytest.raises(LabError, match="is no address"):
        base_url("localhost:8000")
