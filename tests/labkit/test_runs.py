"""Each test names the bug that it catches."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from labkit.environment import git_state
from labkit.errors import LabError
from labkit.files import write_json
from labkit.runs import latest_run, read_report, schema, start_run
from labkit.summary import band_text, in_band, main


@dataclass(frozen=True)
class Config:
    steps: int = 3
    out: Path = Path("somewhere")


@pytest.fixture(autouse=True)
def runs_folder(tmp_path, monkeypatch) -> Path:
    """An empty runs folder."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def make_run(
    lab: str = "gpt", command: str = "train", loss: float = 1.62, next_command: str = "make stage2"
) -> Path:
    """A finished run with one of everything."""
    with start_run("stage1", lab, command, Config(), preset="smoke", seed=1) as run:
        (run.dir / "checkpoint.pt").write_bytes(b"weights")
        run.metric("val_loss", loss, unit="nats/char", band=(None, 1.75), meaning="loss on unseen text")
        run.artefact("checkpoint.pt", kind="checkpoint")
        run.figure(run.dir / "loss.png", caption="loss against step")
        run.data("tiny", sha256="0" * 64, bytes=10)
        run.learnt("Attention is a weighted mean.")
        run.next(next_command)
    return run.dir


def test_report_of_a_finished_run():
    """Catches: a key that is missing; absolute paths, which break when the folder is handed in."""
    folder = make_run()
    report = read_report(folder)
    assert report["status"] == "finished" and report["config"] == {"steps": 3, "out": "somewhere"}
    assert report["metrics"]["val_loss"]["band"] == [None, 1.75]
    weights = {"path": "checkpoint.pt", "kind": "checkpoint", "bytes": 7}
    assert report["artefacts"] == [weights | {"sha256": hashlib.sha256(b"weights").hexdigest()}]
    assert report["figures"] == [{"path": "loss.png", "caption": "loss against step"}]
    assert report["seconds"] > 0 and report["peak_memory_mb"] > 1 and report["versions"]["python"]


def test_artefact_folder_has_a_digest_of_its_content(tmp_path):
    """Catches: a digest of a model folder that does not change with its files or their names."""
    digests = []
    for content, name in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
        with start_run("stage1", "gpt", "train", {}) as run:
            write_json(run.dir / "model" / name, content)
            run.artefact("model", kind="model")
        digests.append(run.report["artefacts"][0]["sha256"])
    assert digests[0] == digests[3] and len(set(digests)) == 3


def test_latest_follows_finished_runs_only():
    """Catches: `latest` moved to a run that failed; one command's link moved by another's."""
    first = make_run()
    with pytest.raises(ZeroDivisionError), start_run("stage1", "gpt", "train", {}):
        _ = 1 / 0
    sample = make_run(command="sample")
    assert latest_run("stage1", "gpt", "train") == first and latest_run("stage1", "gpt") == sample
    assert latest_run("stage1", "gpt", "bench") is None and latest_run("stage2", "rag") is None
    assert os.readlink(first.parent / "latest-train") == first.name  # relative: the folder can be moved


@pytest.mark.parametrize(("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_run_that_ends_by_an_exception_says_so(error, status):
    """Catches: a report that says "running" for ever; an exception swallowed by the run."""
    with pytest.raises(error), start_run("stage1", "gpt", "train", {}) as run:
        run.metric("val_loss", float("nan"))
        raise error("loss is NaN at step 12")
    report = read_report(run.dir)
    assert report["status"] == status
    assert report["error"] == {"type": error.__name__, "message": "loss is NaN at step 12"}
    assert report["metrics"]["val_loss"]["value"] is None


def test_killed_run_is_died_and_a_living_one_is_running():
    """Catches: a killed run that looks alive; a living one declared dead; a reused process number."""
    code = (
        "import os; from labkit.runs import start_run\nwith start_run('stage1', 'gpt', 'train', {}) as run:\n"
    )
    code += "    print(run.dir, flush=True); os.kill(os.getpid(), 9)"
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    folder = Path(killed.stdout.strip())
    assert killed.returncode == -9 and read_report(folder)["status"] == "died"
    with start_run("stage1", "gpt", "train", {}) as run:
        assert read_report(run.dir)["status"] == "running"
        report = json.loads((folder / "report.json").read_text())
        report["process"]["pid"] = os.getpid()  # the number lives, but it is another process
        report["process"]["started"] -= 1000
        assert read_report(write_json(folder / "report.json", report))["status"] == "died"


def test_reader_never_sees_half_a_report():
    """Catches: report.json written in place."""
    with start_run("stage1", "gpt", "train", {}) as run:
        stop, problems = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                try:
                    read_report(run.dir)
                except LabError as error:
                    problems.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for step in range(30):
            run.metric(f"loss_{step}", step)
            run.save("running")
        stop.set()
        reader.join()
    assert not problems


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', "\x00\xff"])
def test_what_is_not_a_report_is_refused_with_advice(tmp_path, text):
    """Catches: a traceback for a truncated or hand-made report."""
    (tmp_path / "report.json").write_text(text, encoding="latin-1")
    with pytest.raises(LabError, match="not a run's report"):
        read_report(tmp_path)
    with pytest.raises(LabError, match="no report"):
        read_report(tmp_path / "missing")


def test_schema_refuses_unknown_keys_and_wrong_types():
    """Catches: a schema that accepts anything."""
    report = json.loads((make_run() / "report.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(report, schema())
    for change in ({"extra": 1}, {"seconds": "long"}, {"status": "died"}, {"metrics": {"loss": 1.0}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(report | change, schema())


def test_git_state_without_git(monkeypatch):
    """Catches: a lab that cannot run from a downloaded archive or on a machine without git."""
    monkeypatch.setenv("PATH", "")
    assert git_state() == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("band", "value", "text", "verdict"),
    [
        ([None, 1.75], 1.75, "<= 1.75", True),
        ([None, 1.75], 1.76, "<= 1.75", False),
        ([0.5, None], 0.4, ">= 0.5", False),
        ([1, 2], 1.5, "1 to 2", True),
        ([1, 2], None, "1 to 2", False),
        (None, 7, "", None),
    ],
)
def test_bands(band, value, text, verdict):
    """Catches: limits left out; a NaN that passes; a metric without a band marked as outside."""
    assert (band_text(band), in_band({"band": band, "value": value})) == (text, verdict)


def test_summary_shows_the_newest_run_of_every_lab(capsys):
    """Catches: an old run shown; links counted twice; a dead run passed over; lines wider than 80 columns."""
    make_run(loss=9.87)
    make_run(loss=1.62)
    make_run(lab="embeddings", command="compare", loss=2.5, next_command="make milestones")
    with pytest.raises(ValueError), start_run("stage1", "gpt", "bench", {}):
        raise ValueError("no such file")
    main(["stage1"])
    shown = capsys.readouterr().out
    assert "1.62 nats/char" in shown and "9.87" not in shown and shown.count("gpt train") == 1
    assert "figures in their band: 1, outside: 1" in shown and "next: make milestones" in shown
    assert "gpt bench: the newest run failed: ValueError: no such file" in shown
    assert max(len(line) for line in shown.splitlines() if "runs/" not in line) <= 80


def test_summary_without_runs():
    """Catches: an empty table where nothing has run."""
    with pytest.raises(LabError, match="no runs of stage1") as error:
        main(["stage1"])
    assert error.value.try_next == "make stage1"
