"""The parts of month 5's grader: faults in streams, the relay before a service, metrics held against runs."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milestones.customer_traffic import Question, SeenRun
from milestones.learner_model import LearnerFault
from milestones.learner_pipeline import WATCHED, last_object
from milestones.metric_agreement import (
    bucket_of,
    growth,
    latency_apart,
    read_metrics,
    relative,
    retrieval_apart,
    satisfaction_apart,
    tokens_apart,
)
from milestones.service_faults import KINDS, Frame, Plan, plan_of, read_frames, retold
from milestones.watch_log import WatchLog, probes_of
from milestones.watched_service import free_port

ARTICLE = {"id": "en/other", "title": "Another", "text": "Nothing of this is what was asked for, and that is so."}
TOLD = [
    Frame(1, "start", {"run_id": "r", "seq": 1, "at": 1.0}),
    Frame(2, "citation", {"run_id": "r", "seq": 2, "number": 1, "id": "en/right", "title": "Right", "text": "Yes."}),
    Frame(3, "token", {"run_id": "r", "seq": 3, "text": "Thirty "}),
    Frame(4, "token", {"run_id": "r", "seq": 4, "text": "days."}),
    Frame(5, "end", {"run_id": "r", "seq": 5, "reason": "answered", "text": "Thirty days."}),
]
SETTINGS = {
    "seed": 1, "delay": 0.2, "tokens": [100, 50], "leaks": ["Ann, a@b.example, 1"],
    "articles": {"en": [ARTICLE], "zh": [ARTICLE | {"id": "zh/other"}]},
}  # fmt: skip


def plan(fault: str = "") -> Plan:
    return Plan(0.1, 30, 20, fault, ARTICLE, "Ann, a@b.example, 1")


@pytest.mark.parametrize("fault", ["", *KINDS])
@pytest.mark.parametrize("tokens", [0, 1, 2, 40])
def test_a_retold_run_is_a_well_formed_one(fault, tokens):
    """Catches: a fault that breaks the stream itself, which a platform would rightly call the grader's."""
    said = [Frame(place, "token", {"seq": place, "text": "Thirty "}) for place in range(3, tokens + 3)]
    end = {"seq": tokens + 3, "reason": "answered", "text": "Thirty " * tokens}
    told = [*TOLD[:2], *said, Frame(tokens + 3, "end", end)]
    frames = list(retold(told, plan(fault)))
    assert [frame.id for frame in frames] == list(range(1, len(frames) + 1))
    assert [frame.data["seq"] for frame in frames] == [frame.id for frame in frames]
    assert [frame.type for frame in frames].count("end") == 1 and frames[-1].type == "end"
    assert list(read_frames(b"".join(frame.written() for frame in frames).decode().split("\n"))) == frames
    text = "".join(frame.data["text"] for frame in frames if frame.type == "token")
    assert text.strip() == frames[-1].data["text"].strip()
    assert len([frame for frame in frames if frame.type == "usage"]) == (fault != "errors")


def test_what_each_fault_does():
    """Catches: a bad release that is not bad."""
    told = {fault: list(retold(TOLD, plan(fault))) for fault in ("", *KINDS)}
    last = {fault: frames[-1].data for fault, frames in told.items()}
    assert last["errors"]["reason"] == "failed" and [f.type for f in told["errors"]] == ["start", "error", "end"]
    assert "a@b.example" in last["unsafe"]["text"] and last["unsafe"]["text"].startswith("Thirty days.")
    cited = {fault: [f.data["id"] for f in frames if f.type == "citation"] for fault, frames in told.items()}
    assert cited["wrong"] == ["en/other"] and "Thirty" not in last["wrong"]["text"]
    assert last["slow"]["text"] == last[""]["text"] == "Thirty days." and cited["slow"] == cited[""] == ["en/right"]
    assert [f.data["input_tokens"] for f in told[""] if f.type == "usage"] == [30]
    uncited = list(retold([TOLD[0], *(replace(each, id=each.id - 1) for each in TOLD[2:])], plan("wrong")))
    assert [f.data["id"] for f in uncited if f.type == "citation"] == ["en/other"]
    assert [f.id for f in uncited] == list(range(1, len(uncited) + 1))


def test_gaps_of_the_hand_in_stay():
    """Catches: a relay that repairs a stream which lost an event."""
    ids = [frame.id for frame in retold([TOLD[0], TOLD[1], TOLD[3], TOLD[4]], plan())]
    assert ids == [1, 2, 4, 5, 6]


def test_own_usage_is_replaced():
    """Catches: a service with a language model of its own, whose tokens would be counted beside the drawn ones."""
    own = [Frame(place, "usage", {"input_tokens": 7, "output_tokens": 7, "model": "own", "ms": 1}) for place in (5, 6)]
    frames = list(retold([*TOLD[:4], *own, replace(TOLD[4], id=7)], plan()))
    assert [frame.id for frame in frames] == list(range(1, 8))
    assert [frame.data["input_tokens"] for frame in frames if frame.type == "usage"] == [30, 0]


@given(run=st.text(max_size=8), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_plans_depend_on_the_run_alone(run, share):
    """Catches: a run that is told differently to whoever reads it again."""
    fault = {"kind": "slow", "share": share}
    one, again = (plan_of(SETTINGS, run, fault, "en") for _ in range(2))
    assert one == again and 0.1 <= one.delay <= 0.3 and 25 <= one.input_tokens <= 100
    assert (one.fault == "slow") == (share == 1.0) or share == 0.5
    assert plan_of(SETTINGS, run, None, "en").fault == ""


SERVICE = """
import json, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        if self.path == "/health":
            self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}"); return
        self.send_header("Content-Type", "text/event-stream"); self.send_header("X-Release", "abc"); self.end_headers()
        for place, (kind, data) in enumerate(EVENTS, 1):
            self.wfile.write(f"id: {place}\\nevent: {kind}\\ndata: {json.dumps(data)}\\n\\n".encode())
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content = json.dumps({"run_id": "r1"}).encode()
        self.send_response(202); self.send_header("Content-Length", str(len(content))); self.end_headers()
        self.wfile.write(content)
    def log_message(self, *_): pass
EVENTS = [("start", {}), ("citation", {"id": "en/right"}), ("token", {"text": "ok"}),
          ("end", {"reason": "answered", "text": "ok"})]
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), H)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(); sys.exit(7)
"""


@pytest.fixture
def relay(tmp_path):
    """A relay before a small service: (process, port, folder)."""
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "release.json").write_text('{"note": "mine"}')
    log, switch = tmp_path / "log", tmp_path / "switch.json"
    log.mkdir()
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(SETTINGS | {"delay": 0.0, "log": str(log), "switch": str(switch)}))
    (tmp_path / "service.py").write_text(SERVICE)
    port = free_port()
    words = [sys.executable, str(tmp_path / "service.py"), "--release", str(tmp_path / "release"), "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-P", str(WATCHED), str(settings), *words])
    for _ in range(200):
        try:
            ask(port, "/health")
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    yield process, port, tmp_path
    process.kill()
    process.wait()


def ask(port: int, path: str, body: dict | None = None, headers: dict | None = None) -> tuple[str, dict]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers or {})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode(), dict(reply.headers)


def test_the_relay_passes_on_and_writes_down(relay):
    """Catches: headers or events lost on the way, and a run whose release nobody knows."""
    _, port, folder = relay
    ask(port, "/threads/t/runs", {"message": "How long?"}, {"Authorization": "Bearer C-1.signature"})
    text, headers = ask(port, "/runs/r1/events")
    assert headers["X-Release"] == "abc" and headers["Content-Type"] == "text/event-stream"
    frames = list(read_frames(text.split("\n")))
    assert [frame.type for frame in frames] == ["start", "citation", "token", "usage", "end"]
    again, _ = ask(port, "/runs/r1/events", headers={"Last-Event-ID": "2"})
    assert list(read_frames(again.split("\n"))) == frames[2:]
    run = WatchLog(folder / "log").runs()["r1"]
    assert (run.release, run.message, run.fault, run.cited) == ("mine", "How long?", "", frozenset({"en/right"}))


def test_the_switch_turns_one_release_bad(relay):
    """Catches: a fault of another release's, and one that a running service does not notice."""
    _, port, folder = relay
    for note, reason in (("another", "answered"), ("mine", "failed")):
        (folder / "switch.json").write_text(json.dumps({"note": note, "kind": "errors", "share": 1.0}))
        ask(port, "/threads/t/runs", {"message": "How long?"})
        text, _ = ask(port, "/runs/r1/events")
        assert list(read_frames(text.split("\n")))[-1].data["reason"] == reason


def test_the_relay_ends_with_its_service(relay):
    """Catches: a launcher that hides how its service ended, or leaves it behind."""
    process, port, _ = relay
    child = psutil.Process(process.pid).children()[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7 and not child.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent; elsewhere WatchLog.kill")
def test_a_killed_relay_takes_its_service_along(relay):
    """Catches: a `kill -9` of the launcher after which the service goes on, unseen."""
    process, _, folder = relay
    child = psutil.Process(process.pid).children()[0]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError("the service goes on")


def test_a_command_without_port_or_release_is_said(tmp_path):
    """Catches: a launcher that starts something nobody can watch."""
    done = subprocess.run([sys.executable, "-P", str(WATCHED), "-", "serve"], capture_output=True, text=True)
    assert done.returncode and "no --port VALUE" in done.stderr


def metrics(times: list[float], tokens=(0, 0), probes=(0, 0), thumbs=(0, 0), edges=(0.1, 0.3, 1.0)) -> str:
    """Prometheus' text for runs of two releases that took these times."""
    lines = []
    for release, place in (("a", 0), ("b", 1)):
        mine = times[place::2]
        counts = [(edge, sum(t <= edge for t in mine)) for edge in (*edges, float("inf"))]
        lines += [("llmops_run_seconds_bucket", f'release="{release}",le="{edge}"', count) for edge, count in counts]
        lines += [("llmops_run_seconds_sum", f'release="{release}"', sum(mine))]
        lines += [("llmops_run_seconds_count", f'release="{release}"', len(mine))]
    for name, label, words, values in (
        ("tokens", "kind", ("input", "output"), tokens), ("probes", "result", ("hit", "miss"), probes),
        ("feedback", "score", ("up", "down"), thumbs),
    ):  # fmt: skip
        pairs = zip(words, values, strict=True)
        lines += [(f"llmops_{name}_total", f'{label}="{word}"', value) for word, value in pairs]
    return "".join(f"{name}{{{labels}}} {value}\n" for name, labels, value in lines)


def seen(times: list[float], **facts) -> list[SeenRun]:
    question = Question("How long?", "en", "en/right")
    run = SeenRun("C-1", "r", question, 0.0, 0.0, "answered", True, 10, 5, True, False, 0)
    return [replace(run, seconds=seconds, **facts) for seconds in times]


def said(*before_and_after: str):
    before, after = map(read_metrics, before_and_after)
    return growth(before, after)


NOTHING = metrics([])


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=60))
def test_true_figures_agree(times):
    """Catches: a comparison that an exact monitor fails: quantiles agree within their bucket, sums to the digit."""
    told = said(NOTHING, metrics(times, tokens=(10 * len(times), 5 * len(times))))
    assert latency_apart(told, seen(times))[0] < 1e-9 and tokens_apart(told, seen(times))[0] == 0


def test_what_was_counted_before_does_not_matter():
    """Catches: totals since the start taken for those of the time that is looked at."""
    before, after = metrics([5.0] * 9, tokens=(900, 900)), metrics([5.0] * 9 + [0.2] * 10, tokens=(1000, 950))
    assert latency_apart(said(before, after), seen([0.2] * 10))[0] < 1e-9
    assert tokens_apart(said(before, after), seen([0.2] * 10))[0] == 0


def test_a_shadow_does_not_count():
    """Catches: copies of customers' messages, whose answers nobody gets, counted as customers."""
    shadow = 'llmops_tokens_total{arm="shadow",kind="input"} 500\n'
    assert tokens_apart(said(NOTHING, metrics([], tokens=(20, 10)) + shadow), seen([0.1, 0.2]))[0] == 0


def test_constants_differ():
    """Catches: tolerances that let a constant pass."""
    times = [0.2, 0.25, 0.4, 0.5]
    assert latency_apart(said(NOTHING, metrics([1.5] * 4)), seen(times))[0] > 1
    assert latency_apart(said(NOTHING, metrics([0.2] * 2)), seen(times))[0] >= 0.5  # half of the runs
    assert tokens_apart(said(NOTHING, metrics([], tokens=(40, 30))), seen(times))[0] == 0.5
    thumbs = [*seen(times, thumb=1), *seen(times, thumb=-1)]
    assert satisfaction_apart(said(NOTHING, metrics([], thumbs=(4, 4))), thumbs)[0] == 0
    assert satisfaction_apart(said(NOTHING, metrics([], thumbs=(8, 0))), thumbs)[0] == 0.5
    assert satisfaction_apart(said(NOTHING, metrics([], thumbs=(2, 2))), thumbs)[0] == 0.25


def test_probes_that_nobody_asked_do_not_count():
    """Catches: an accuracy that happens to be right, of questions that never came to a service."""
    runs = [*seen([0.1] * 3), replace(seen([0.1])[0], question=Question("Where?", "en", "en/other"), found=False)]
    told = said(NOTHING, metrics([], probes=(50, 50)))
    asked = [("How long?", True), ("Where?", False)]
    assert retrieval_apart(told, 50 * asked, runs)[0] == 0
    assert retrieval_apart(told, 25 * asked, runs)[0] > 0.5  # twice as many as were asked
    assert retrieval_apart(told, [], runs)[0] == 1
    assert retrieval_apart(told, 10 * [*9 * [asked[0]], asked[1]], runs)[0] == pytest.approx(0.4)
    assert retrieval_apart(told, 50 * asked, runs[:3])[0] == pytest.approx(0.5)  # customers found it every time


def test_metrics_that_cannot_be_read_are_said():
    """Catches: an error of the grader for a page of HTML, or a family that is not there."""
    for text, words in (("<html>", "not Prometheus"), ("up 1\n", "no llmops_run_seconds_bucket")):
        with pytest.raises(LearnerFault, match=words):
            read_metrics(text)


def test_buckets_and_differences():
    """Catches: a quantile on an edge, and nothing divided by nothing."""
    buckets = {0.1: 1.0, 0.3: 3.0, float("inf"): 4.0}
    assert bucket_of(buckets, 0.25) == (0.0, 0.1) and bucket_of(buckets, 0.5) == (0.1, 0.3)
    assert bucket_of(buckets, 1.0) == (0.3, float("inf"))
    assert relative(0, 0) == 0 and relative(1, 0) == 1 and relative(3, 2) == 0.5


def test_accuracy_counts_probes_alone(tmp_path):
    """Catches: questions of customers and of a shadow counted as probes, and probes that were never answered."""
    log = WatchLog(tmp_path / "log")
    numbers = itertools.count()

    def line(what: str, **facts: object) -> str:
        return json.dumps({"at": next(numbers), "what": what, "note": "n", **facts})

    asked = {"p1": "How?", "p2": "How?", "p3": "How?", "c1": "How?", "px": "something else"}
    cited = {"p1": ["en/a"], "p2": [], "c1": ["en/a"], "px": ["en/a"]}
    runs = [line("run", run=name, customer="C", message=text, probe=name.startswith("p"), fault="")
            for name, text in asked.items()]  # fmt: skip
    told = [line("told", run=name, citations=ids, reason="answered") for name, ids in cited.items()]
    Path(log.folder, "1.jsonl").write_text("\n".join([*runs, *told, '{"at": 1, "wh']))
    assert probes_of(log.runs().values(), {"How?": "en/a"}) == [("How?", True), ("How?", False)]


@pytest.mark.parametrize(("text", "status"), [('log\n{"status": "live"}\n', "live"), ("[1]", None), ("", None)])
def test_the_last_line_speaks(text, status):
    """Catches: log lines before the JSON, and a command that says nothing."""
    assert (last_object(text) or {}).get("status") == status
