"""A server for the tests of ServerProcess: healthy after a while, with a child that ignores SIGTERM.

    python toy_server.py PORT [--stubborn] [--never] [--die MESSAGE]
"""

import http.server
import subprocess
import sys
import time

port, words = int(sys.argv[1]), sys.argv[2:]
if "--die" in words:
    sys.exit(f"Traceback (most recent call last):\nValueError: {words[words.index('--die') + 1]}")
if "--stubborn" in words:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    subprocess.Popen([sys.executable, "-c", code])
    time.sleep(0.3)


class Handler(http.server.BaseHTTPRequestHandler):
    """Healthy, unless told otherwise."""

    def do_GET(self) -> None:
        self.send_response(503 if "--never" in words else 200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        print("asked for", self.path, flush=True)


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
