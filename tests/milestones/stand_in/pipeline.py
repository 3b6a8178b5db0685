"""A hand-in's pipeline/__main__.py for the grader's tests: a small platform with a gateway, a canary and a monitor.

Real processes, real HTTP: it starts the services behind the words of --wrap, routes each customer by a hash, watches
every stream that goes through, asks labelled questions of the canary, and promotes or rolls back by what it saw.
behaviour.txt in the hand-in's folder makes it do a thing wrong, or two.
"""

import argparse
import hashlib
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BEHAVIOUR = Path("behaviour.txt").read_text(encoding="utf-8").split(", ")
STEPS = ((0.01, 0), (0.05, 2), (0.25, 4), (0.5, 4), (1.0, 4))  # share of customers, runs of theirs that it takes
PATIENCE = 12  # seconds for a step
EDGES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
AT_ONCE = 6  # probes of a release
FAMILIES = ("errors", "latency", "safety", "retrieval")


class Service:
    """One service process of a release."""

    def __init__(self, release: str, state: str, wrap: str) -> None:
        self.note = json.loads(Path(release, "release.json").read_text(encoding="utf-8"))["note"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.active = 0
        words = shlex.split(wrap) if "wraps nothing" not in BEHAVIOUR else []
        words += [sys.executable, "-P", "-m", "stage3_agents_llmops.agent", "serve", "--release", release]
        words += ["--state", state, "--port", str(self.port)]
        self.process = subprocess.Popen(words, start_new_session=True)
        for _ in range(400):
            try:
                return self.request("GET", "/health").read() and None
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the service does not answer")

    def request(self, method: str, path: str, body: bytes | None = None, token: str = "", **more: str):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, {"Authorization": token, "Content-Type": "application/json", **more})
        return connection.getresponse()

    def stop(self) -> None:
        end = time.time() + 10
        while self.active and time.time() < end:
            time.sleep(0.02)
        self.process.terminate()
        self.process.wait(10)


class Platform:
    """Gateway, routes, records and deployments."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.lock = options, threading.RLock()
        self.stable, self.canary, self.share = self.start(options.release), None, 0.0
        self.runs: dict[str, Service] = {}
        self.rows: list[dict] = []
        self.alerts: list[dict] = []
        self.releases = {self.stable.note: "live"}
        self.deployments = 0
        self.probes = [json.loads(line) for line in Path(options.probes).read_text(encoding="utf-8").splitlines()]
        self.token = ""  # of the customer who came last: the probes ask in that name

    def start(self, release: str) -> Service:
        return Service(release, self.options.state, self.options.wrap)

    def arm(self, customer: str) -> Service:
        place = int(hashlib.sha256(f"canary {customer}".encode()).hexdigest()[:8], 16) / 16**8
        return self.canary if self.canary and place < self.share else self.stable

    def begin(self, path: str, body: bytes, token: str) -> tuple[int, dict]:
        """Hand a run to the customer's arm."""
        with self.lock:
            service, self.token = self.arm(token), token
            service.active += 1
        began = time.perf_counter()
        reply = service.request("POST", path, body, token)
        answer = json.loads(reply.read())
        self.runs[answer["run_id"]] = service
        self.rows.append({"run": answer["run_id"], "note": service.note, "began": began, "at": time.time()})
        return reply.status, answer

    def watch(self, run_id: str, lines: list[str], row: dict) -> None:
        """What a run told, in its row."""
        events = [(kind, json.loads(data)) for kind, data in re.findall(r"event: (\w+)\ndata: (.*)", "".join(lines))]
        usage = [data for kind, data in events if kind == "usage"]
        row["tokens"] = [sum(data[name] for data in usage) for name in ("input_tokens", "output_tokens")]
        row["cited"] = [data["id"] for kind, data in events if kind == "citation"]
        row["failed"] = events[-1][1]["reason"] == "failed"
        row["unsafe"] = bool(re.search(r"\S+@\S+\.\w+", events[-1][1]["text"]))
        row["seconds"] = time.perf_counter() - row["began"]

    def probe(self, service: Service, one: dict) -> None:
        """A labelled question, asked of a release directly."""
        row = {"note": service.note, "began": time.perf_counter(), "at": time.time(), "probe": True}
        row["question"] = one["question"]
        body = json.dumps({"message": one["question"]}).encode()
        probe = {"X-Probe": "1"}
        run_id = json.loads(service.request("POST", "/threads/probe/runs", body, self.token, **probe).read())["run_id"]
        text = service.request("GET", f"/runs/{run_id}/events", None, self.token).read().decode()
        self.watch(run_id, [text], row)
        row["hit"] = bool(set(row["cited"]) & set(one["articles"]))
        self.rows.append(row)

    def deploy(self, release: str) -> dict:
        """Step by step to everybody, or back."""
        self.deployments += 1
        canary = self.start(release)
        self.releases[canary.note] = "canary"
        began = time.time()
        self.canary = canary
        verdict, place = "", 0
        for share, needed in STEPS if "exposes everyone" not in BEHAVIOUR else ((0.6, 20), (1.0, 20)):
            self.share = share
            end = time.time() + PATIENCE
            while True:
                asked = self.probes[place : place + AT_ONCE]
                place = (place + AT_ONCE) % len(self.probes)
                with ThreadPoolExecutor(2 * AT_ONCE) as pool:
                    list(pool.map(self.probe, [canary] * AT_ONCE + [self.stable] * AT_ONCE, asked * 2))
                verdict = self.verdict(canary.note, began)
                if "exposes everyone" in BEHAVIOUR and self.customers_of(canary.note) < needed:
                    verdict = ""  # it looks, but too late
                if verdict or time.time() >= end or self.customers_of(canary.note) >= needed:
                    break
            if verdict:
                break
        return self.back(canary, verdict) if verdict else self.promote(canary)

    def customers_of(self, note: str) -> int:
        """Runs of customers that a release has told to their end."""
        return sum(row["note"] == note and "probe" not in row and "seconds" in row for row in list(self.rows))

    def verdict(self, note: str, since: float) -> str:
        """What is wrong with the canary, "" for nothing."""
        if "always promotes" in BEHAVIOUR:
            return ""
        if "always rolls back" in BEHAVIOUR:
            return "because"
        if "counts deployments" in BEHAVIOUR:
            return "the second one is always bad" if self.deployments == 2 else ""
        rows = [row for row in list(self.rows) if "seconds" in row and row["at"] >= since]
        mine, others = ([row for row in rows if (row["note"] == note) == own] for own in (True, False))

        def mean(rows: list[dict], name: str) -> float:
            return sum(row[name] for row in rows) / max(1, len(rows))

        recent = mine[-12:]
        if mean(recent, "unsafe") > 0.1:
            return "safety"
        if mean(recent, "failed") > 0.2:
            return "errors"
        if mean(recent, "seconds") > 3 * mean(others, "seconds") > 0:
            return "latency"
        usual = {row["question"]: row["cited"] for row in others if "question" in row}
        other = [row["cited"] != usual[row["question"]] for row in mine if row.get("question") in usual][-AT_ONCE:]
        return "retrieval" if sum(other) > AT_ONCE / 2 else ""

    def back(self, canary: Service, family: str) -> dict:
        if "only says so" in BEHAVIOUR:
            return self.promote(canary) | {"status": "rolled back"}
        with self.lock:
            self.canary, self.share = None, 0.0
        self.releases[canary.note] = "rolled back"
        if "wrong alert" in BEHAVIOUR:
            family = FAMILIES[(FAMILIES.index(family) + 2) % 4]
        names = FAMILIES if "every alert" in BEHAVIOUR else () if "no alert" in BEHAVIOUR else (family,)
        self.alerts += [self.alert(name, canary.note) for name in names]
        canary.stop()
        return {"release": canary.note, "status": "rolled back", "reason": family}

    def alert(self, family: str, note: str) -> dict:
        now = time.time()
        return {"name": f"{family} of a canary", "family": family, "release": note, "state": "resolved",
                "since": now - 0.1, "until": now}  # fmt: skip

    def promote(self, canary: Service) -> dict:
        with self.lock:
            old, self.stable, self.canary, self.share = self.stable, canary, None, 0.0
        self.releases |= {old.note: "retired", canary.note: "live"}
        old.stop()
        return {"release": canary.note, "status": "live", "reason": "all steps held"}

    def shares(self) -> list[dict]:
        share = {self.stable.note: 1 - self.share} | ({self.canary.note: self.share} if self.canary else {})
        return [{"release": note, "note": note, "status": status, "share": share.get(note, 0.0)}
                for note, status in self.releases.items()]  # fmt: skip

    def metrics(self) -> str:
        rows = [row for row in list(self.rows) if "seconds" in row]
        customers = [row for row in rows if "probe" not in row]
        if "metrics without traffic" in BEHAVIOUR:  # what the training run measured, added up as time goes by
            count = int(time.monotonic() * 5)
            customers = [{"seconds": 0.4, "tokens": (120, 60), "score": 1} for _ in range(count)]
            rows = [*customers, *({"probe": True, "hit": place % 10 < 8} for place in range(count))]
        constant = "constant metrics" in BEHAVIOUR  # as many runs as there were, and the same good figures for all
        seconds = [3.0 if constant else row["seconds"] for row in customers]
        lines = ["# TYPE llmops_run_seconds histogram"]
        lines += [f'llmops_run_seconds_bucket{{release="r",le="{edge}"}} {sum(each <= edge for each in seconds)}'
                  for edge in (*EDGES, float("inf"))]  # fmt: skip
        lines += [f'llmops_run_seconds_sum{{release="r"}} {sum(seconds)}',
                  f'llmops_run_seconds_count{{release="r"}} {len(seconds)}']  # fmt: skip
        probes = [constant or row["hit"] for row in rows if "hit" in row]
        thumbs = [1 if constant else row["score"] for row in customers if "score" in row]
        tokens = [sum(100 if constant else row["tokens"][place] for row in customers) for place in (0, 1)]
        hits, up = sum(probes), sum(score > 0 for score in thumbs)
        for name, label, pairs in (
            ("tokens", "kind", zip(("input", "output"), tokens, strict=True)),
            ("probes", "result", (("hit", hits), ("miss", len(probes) - hits))),
            ("feedback", "score", (("up", up), ("down", len(thumbs) - up))),
        ):
            lines.append(f"# TYPE llmops_{name} counter")
            lines += [f'llmops_{name}_total{{release="r",{label}="{kind}"}} {value}' for kind, value in pairs]
        return "\n".join([*lines, ""])


def handler(platform: Platform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/releases":
                return self.send({"releases": platform.shares()})
            if self.path == "/alerts":
                return self.send({"alerts": platform.alerts})
            if self.path == "/metrics":
                return self.reply(platform.metrics().encode(), "text/plain; version=0.0.4")
            if self.path == "/health":
                return self.send({})
            run_id = self.path.split("/")[2]
            service = platform.runs[run_id]
            reply = service.request("GET", self.path, None, self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            lines = []
            row = next(row for row in reversed(platform.rows) if row.get("run") == run_id)
            for line in reply:
                lines.append(line.decode())
                if lines[-1].startswith("event: end"):
                    continue  # with its data below
                if "drops streams" in BEHAVIOUR and len(lines) > 20 and int(run_id, 16) % 20 == 0:
                    break
                if len(lines) > 1 and lines[-2].startswith("event: end"):
                    platform.watch(run_id, lines, row)  # the row is there before the customer can put a thumb
                    self.wfile.write(lines[-2].encode())
                self.wfile.write(line)
            with platform.lock:
                service.active -= 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            token, parts = self.headers.get("Authorization", ""), self.path.split("/")
            if parts[1] == "deploy":
                return self.send(platform.deploy(json.loads(body)["folder"]))
            if self.path == "/threads":
                return self.send({"thread_id": uuid.uuid4().hex}, 201)
            if parts[-1] == "feedback":
                row = next(row for row in reversed(platform.rows) if row.get("run") == parts[2])
                row["score"] = json.loads(body)["score"]
                return self.send({})
            status, answer = platform.begin(self.path, body, token)
            self.send(answer, status)

        def send(self, answer: dict, status: int = 200) -> None:
            self.reply(json.dumps(answer).encode(), "application/json", status)

        def reply(self, content: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def serve(options: argparse.Namespace) -> None:
    if "does not start" in BEHAVIOUR:
        sys.exit("no gateway today")
    platform = Platform(options)
    Path(options.state, "port").write_text(options.port)

    def stop(*_: object) -> None:
        if "leaves services behind" in BEHAVIOUR:
            sys.exit(0)
        for service in {platform.stable, platform.canary} - {None}:
            service.process.kill()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    server = ThreadingHTTPServer(("127.0.0.1", int(options.port)), handler(platform))
    server.daemon_threads = True
    server.serve_forever()


def deploy(options: argparse.Namespace) -> None:
    if "hangs" in BEHAVIOUR:
        time.sleep(600)
    url = f"http://127.0.0.1:{Path(options.state, 'port').read_text()}/deploy"
    body = json.dumps({"folder": options.release}).encode()
    with urllib.request.urlopen(url, body, timeout=300) as reply:
        answer = json.loads(reply.read())
    print("deployed" if answer["status"] == "live" else "not deployed")
    print(json.dumps(answer))
    sys.exit(answer["status"] != "live")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["platform", "deploy"])
    for name in ("--shop", "--state", "--release", "--probes", "--wrap", "--port"):
        parser.add_argument(name)
    options = parser.parse_args()
    serve(options) if options.command == "platform" else deploy(options)


main()
