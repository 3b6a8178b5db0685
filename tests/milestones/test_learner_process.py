"""A server of the hand-in, asked by the grader: whatever it does, the grader's connections end."""

import gc
import warnings

import pytest

from milestones.learner_model import LearnerFault
from milestones.learner_process import LearnerProcess

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 429)
        self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), H).serve_forever()
"""


@pytest.fixture
def server(tmp_path):
    (tmp_path / "some_server.py").write_text(SERVER)
    limits = {"start_limit": 30, "answer_limit": 10, "time_limit": 60}
    with LearnerProcess(tmp_path, ["some_server"], tmp_path / "runs", threads=1, **limits) as process:
        yield process


def test_a_fault_that_is_kept_keeps_no_connection(server):
    """Catches: connections that the garbage collector finds open, minutes later and in another test."""
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(LearnerFault, match="answered with status 429") as caught:
            server.ask("/refuses")
        fault = caught.value
        fault.kept_by = [fault]  # as a report or a debugger does: only the collector frees it
        del caught, fault
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", ResourceWarning)
            gc.collect()
    finally:
        gc.enable()
    assert [str(one.message) for one in seen] == []
