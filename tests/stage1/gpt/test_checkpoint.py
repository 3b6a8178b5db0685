"""Each test names the bug that it catches."""

import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage1_foundations.gpt.character_tokenizer import CharacterTokenizer
from stage1_foundations.gpt.checkpoint import (
    load_model,
    load_weights,
    model_state,
    read_checkpoint,
    save_checkpoint,
)
from stage1_foundations.gpt.model_config import SHAPES
from stage1_foundations.gpt.tokenizer import build_tokenizer

FORK = multiprocessing.get_context("fork")  # a real process that does not import torch again
TOKENIZER = CharacterTokenizer("abcdefghijklmnopqrs")


@pytest.fixture
def saved(build, tmp_path) -> Path:
    """A checkpoint of a small model."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, model_state(build(), TOKENIZER, "letters", "0" * 64))
    return path


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_round_trip(build, tmp_path, shape):
    """Catches: a weight, a part of the configuration, or the tokenizer that is not saved."""
    model = build(shape, dropout=0.3)
    save_checkpoint(tmp_path / "checkpoint.pt", model_state(model, TOKENIZER, "letters", "0" * 64))
    for path in (tmp_path, tmp_path / "checkpoint.pt", str(tmp_path)):  # the run's folder will do
        loaded, tokenizer = load_model(path)
        assert loaded.config == model.config and not loaded.training
        ids = torch.randint(19, (2, 24))
        assert torch.equal(loaded(ids), model(ids))
        assert tokenizer.encode("fed") == TOKENIZER.encode("fed")


def test_bpe_tokenizer_travels_along(build, tmp_path, text):
    """Catches: a tokenizer whose data torch refuses to read with weights_only."""
    tokenizer = build_tokenizer("bpe", text, 300)
    save_checkpoint(tmp_path / "c.pt", model_state(build(vocab_size=300), tokenizer, "t", "0" * 64))
    _, loaded = load_model(tmp_path / "c.pt")
    assert loaded.encode(text[:500]) == tokenizer.encode(text[:500])


def test_absent(tmp_path):
    """Catches: a FileNotFoundError with a traceback."""
    for path in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(LabError, match="no checkpoint at"):
            read_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated(saved, share):
    """Catches: a traceback, or half the weights, after a copy that broke off."""
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(LabError, match="truncated or is not a checkpoint"):
        load_model(saved)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_other_file(tmp_path, content):
    """Catches: an exception of another class for some file that torch tries to unpickle."""
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(LabError):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"weights": torch.zeros(2)},
        {"format": 99},
        {"format": 1},
        {"format": 1, "model_config": {"wings": 2}},
    ],
    ids=["list", "no-format", "new-format", "empty", "unknown-field"],
)
def test_torch_files_of_others(tmp_path, content):
    """Catches: a KeyError for a file that torch reads but this lab did not write."""
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(LabError):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize("missing", ["model_config", "tokenizer", "model"])
def test_a_missing_part(saved, missing):
    """Catches: a KeyError for a checkpoint that was edited by hand."""
    state = torch.load(saved, weights_only=True)
    del state[missing]
    torch.save(state, saved)
    with pytest.raises(LabError, match=missing):
        load_model(saved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 24}, r"\(19, 48\) there and \(19, 24\) here"),
        ({"layers": 3}, "absent there"),
        ({"shape": "llama"}, "has another shape"),
    ],
)
def test_another_shape_is_named(saved, build, changes, words):
    """Catches: torch's list of every key that differs, a screen long."""
    with pytest.raises(LabError, match=words):
        load_weights(build(**changes), read_checkpoint(saved)["model"], saved)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_cannot_run_code(tmp_path):
    """Catches: weights_only left out: a stranger's checkpoint could do anything."""
    proof = tmp_path / "code-was-run"
    torch.save({"format": 1, "model": Malicious(proof)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Malicious(proof), protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(LabError):
            read_checkpoint(tmp_path / name)
    assert not proof.exists()


def save_for_ever(path: Path) -> None:
    """Save checkpoints whose numbers all agree, one after the other."""
    step = 0
    while True:
        save_checkpoint(path, {"step": step, "weights": torch.full((150_000,), float(step))})
        step += 1


def test_kill_in_the_middle_of_a_save(tmp_path):
    """Catches: a checkpoint written in place: half of it is new, or it cannot be read at all."""
    path, moments = tmp_path / "checkpoint.pt", random.Random(0)
    left_over, last = 0, -1
    for _ in range(12):
        process = FORK.Process(target=save_for_ever, args=(path,))
        process.start()
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.06))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        state = read_checkpoint(path)
        assert (state["weights"] == state["step"]).all()
        last = max(last, state["step"])
        left_over += len(list(tmp_path.glob(".tmp-*")))
        assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".tmp-")) == [
            "checkpoint.pt"
        ]
    assert last > 0
    assert left_over > 0  # at least one kill came in the middle of a save; otherwise nothing was tested


def limit_file_size(size: int) -> None:
    """From here on every larger file fails half-written, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def save_on_a_full_disk(path: Path, answer) -> None:
    limit_file_size(100_000)
    try:
        save_checkpoint(path, {"weights": torch.zeros(1_000_000)})
    except LabError as error:
        answer.send(error.message)


def test_disk_full_while_saving(saved):
    """Catches: torch's writer hides a full disk behind a RuntimeError; the old file is destroyed."""
    before = saved.read_bytes()
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=save_on_a_full_disk, args=(saved, theirs))
    process.start()
    process.join(30)
    assert ours.poll() and "cannot write" in (message := ours.recv()) and "File too large" in message
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["checkpoint.pt"]


def train_on_a_full_disk(corpus: Path, output: Path) -> None:
    from labkit.cli import lab_main
    from stage1_foundations.gpt.__main__ import COMMANDS

    words = ["train", "--preset", "smoke", "--data", str(corpus), "--dtype", "fp32"]
    with open(output, "w", buffering=1) as sys.stderr:
        limit_file_size(100_000)
        os._exit(lab_main("gpt", "", COMMANDS, words))


def test_disk_full_while_training(corpus_file, tmp_path, runs):
    """Catches: a traceback, a half-written checkpoint, a report that still says running."""
    output = tmp_path / "stderr"
    process = FORK.Process(target=train_on_a_full_disk, args=(corpus_file, output))
    process.start()
    process.join(60)
    assert process.exitcode == 2
    error, advice = output.read_text().splitlines()
    assert error.startswith("error: cannot write ") and advice.startswith("  try: free some space")
    (folder,) = (runs / "stage1" / "gpt").iterdir()
    assert [p.name for p in folder.iterdir()] == ["report.json"]
    assert json.loads((folder / "report.json").read_text())["status"] == "failed"
