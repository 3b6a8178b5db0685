"""Each test names the bug that it catches. Equal means bit for bit: the checkpoint and every logged loss."""

import io
import json
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from labkit.errors import LabError
from labkit.runs import read_report
from stage1_foundations.gpt import training
from stage1_foundations.gpt.checkpoint import load_model, read_checkpoint
from stage1_foundations.gpt.train_config import TrainConfig

STEPS = 12
FORK = multiprocessing.get_context("fork")  # a real process that does not import torch again


@pytest.fixture
def config(tmp_path, text) -> TrainConfig:
    """Dropout, accumulation, and a text so short that twelve steps read it more than once."""
    path = tmp_path / "corpus.txt"
    path.write_text(text[:600], encoding="utf-8")
    return TrainConfig(
        data=str(path), layers=2, heads=2, width=32, context=16, batch=4, accumulation=2, steps=STEPS,
        eval_every=4, sample_every=0, dropout=0.2, warmup=3, device="cpu", dtype="fp32",
    )  # fmt: skip


def stop_after(step: int):
    """Press Ctrl-C in the middle of a step's report."""

    def on_step(trainer: training.Trainer) -> None:
        if trainer.step_number == step:
            signal.raise_signal(signal.SIGINT)

    return on_step


def interrupted_run(config: TrainConfig, folder: Path, step: int) -> None:
    """Train until Ctrl-C after `step`."""
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        training.train(config, folder, on_step=stop_after(step))


def finished_run(config: TrainConfig, folder: Path) -> training.Trainer:
    folder.mkdir()
    return training.train(config, folder)


def differences(one: object, other: object, where: str = "") -> list[str]:
    """Where two nested values differ, bit for bit; times on the clock are left out."""
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        return [
            d for key in one if key != "seconds" for d in differences(one[key], other[key], f"{where}.{key}")
        ]
    if isinstance(one, list | tuple):
        assert len(one) == len(other), where
        return [
            d
            for i, pair in enumerate(zip(one, other, strict=True))
            for d in differences(*pair, f"{where}[{i}]")
        ]
    return [] if one == other else [where]


def assert_same_run(one: Path, other: Path) -> None:
    """Same checkpoint, same log."""
    assert differences(read_checkpoint(one), read_checkpoint(other)) == []
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, other)
    ]
    assert differences(*logs) == []


@pytest.mark.parametrize("stop", [1, 4, 6, 12])
def test_n_and_n_steps_equal_2n(config, tmp_path, stop):
    """Catches: momentum, generator, batch or rate that start afresh; a stop at or off a validation."""
    finished_run(config, tmp_path / "straight")
    interrupted_run(config, tmp_path / "first", stop)
    finished_run(replace(config, resume=tmp_path / "first"), tmp_path / "second")
    assert_same_run(tmp_path / "straight", tmp_path / "second")


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw", "shape": "gpt2"}, {"dtype": "bf16", "shape": "llama"}, {"tokenizer": "bpe"}],
    ids=["adamw", "bf16", "bpe"],
)  # fmt: skip
def test_other_recipes_resume_as_well(config, tmp_path, changes):
    """Catches: optimiser state that is restored in another dtype, a tokenizer that is trained again."""
    config = replace(config, vocab_size=260, **changes)
    finished_run(config, tmp_path / "straight")
    interrupted_run(config, tmp_path / "first", 6)
    finished_run(replace(config, resume=tmp_path / "first" / "checkpoint.pt"), tmp_path / "second")
    assert_same_run(tmp_path / "straight", tmp_path / "second")


def test_runs_with_dropout_differ_by_seed(config, tmp_path):
    """Catches: a comparison above that would also hold if nothing were random."""
    finished_run(config, tmp_path / "one")
    finished_run(replace(config, seed=2), tmp_path / "two")
    found = differences(read_checkpoint(tmp_path / "one"), read_checkpoint(tmp_path / "two"))
    assert any(where.startswith(".model") for where in found) and any("history" in where for where in found)


def test_ctrl_c_in_the_middle_of_a_step(config, tmp_path, monkeypatch):
    """Catches: a checkpoint of half a step, in which Muon has moved and AdamW has not."""
    finished_run(config, tmp_path / "straight")
    usual, calls = torch.optim.AdamW.step, []

    def press_ctrl_c_first(optimizer, *rest):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return usual(optimizer, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", press_ctrl_c_first)
    (tmp_path / "first").mkdir()
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "first")
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "first")["step"] == 7
    finished_run(replace(config, resume=tmp_path / "first"), tmp_path / "second")
    assert_same_run(tmp_path / "straight", tmp_path / "second")


def test_second_ctrl_c_stops_at_once(config, tmp_path):
    """Catches: a step that hangs and cannot be stopped; the checkpoint is that of the last validation."""

    def press_twice(trainer: training.Trainer) -> None:
        if trainer.step_number == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("still running")

    (tmp_path / "run").mkdir()
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "run", on_step=press_twice)
    assert read_checkpoint(tmp_path / "run")["step"] == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_resuming_a_finished_run_changes_nothing(config, tmp_path):
    """Catches: a new run folder without a checkpoint, or a step past the end."""
    finished_run(config, tmp_path / "first")
    finished_run(replace(config, resume=tmp_path / "first"), tmp_path / "second")
    assert_same_run(tmp_path / "first", tmp_path / "second")


def test_more_steps_go_on_from_the_end(config, tmp_path):
    """Catches: `--resume RUN --steps 2N` that stops at once, or starts from step 0."""
    finished_run(config, tmp_path / "first")
    trainer = finished_run(replace(config, resume=tmp_path / "first", steps=16), tmp_path / "second")
    assert [row["step"] for row in trainer.history] == [0, 4, 8, 12, 16]
    assert trainer.history[-1]["val_loss"] < trainer.history[0]["val_loss"]


def test_a_new_rate_holds_after_resuming(config, tmp_path):
    """Catches: the rate of the checkpoint used in silence, so that halving --lr after a NaN does nothing."""
    interrupted_run(config, tmp_path / "first", 6)
    changed = replace(config, resume=tmp_path / "first", lr=1e-4, matrix_lr=2e-4)
    trainer = finished_run(changed, tmp_path / "second")
    assert [g["peak_lr"] for optimizer in trainer.optimizers for g in optimizer.param_groups][:2] == [
        2e-4,
        1e-4,
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 48}, "has another shape"),
        ({"layers": 1}, "has another shape"),
        ({"shape": "gpt2"}, "has another shape"),
        ({"optimizer": "adamw"}, "another optimiser"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(config, tmp_path, changes, words):
    """Catches: torch's screen of keys, or weights that are loaded in part."""
    interrupted_run(config, tmp_path / "first", 1)
    with pytest.raises(LabError, match=words):
        finished_run(replace(config, resume=tmp_path / "first", **changes), tmp_path / "second")


def test_another_corpus_is_refused(config, tmp_path, text):
    """Catches: ids of one alphabet read as another's."""
    interrupted_run(config, tmp_path / "first", 1)
    other = tmp_path / "other.txt"
    other.write_text(text[600:1300], encoding="utf-8")
    with pytest.raises(LabError, match=r"was trained on corpus\.txt, this is other\.txt"):
        finished_run(replace(config, resume=tmp_path / "first", data=str(other)), tmp_path / "second")


def train_and_die_saving(config: TrainConfig, folder: Path, saves: int) -> None:
    """Train; the last of `saves` checkpoints is cut off in the middle by kill -9."""
    usual, done = torch.save, []

    def save(state: dict, file: BinaryIO) -> None:
        done.append(1)
        if len(done) < saves:
            return usual(state, file)
        whole = io.BytesIO()
        usual(state, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save
    training.train(config, folder)


@pytest.mark.parametrize("saves", [2, 3])
def test_kill_9_in_the_middle_of_a_save_costs_nothing(config, tmp_path, saves):
    """Catches: the last whole checkpoint lost, or one of which the resumed run is not the straight one."""
    finished_run(config, tmp_path / "straight")
    (tmp_path / "first").mkdir()
    process = FORK.Process(target=train_and_die_saving, args=(config, tmp_path / "first", saves))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list((tmp_path / "first").glob(".tmp-*"))  # half a checkpoint was there
    assert read_checkpoint(tmp_path / "first")["step"] == 4 * (saves - 2)
    finished_run(replace(config, resume=tmp_path / "first"), tmp_path / "second")
    assert_same_run(tmp_path / "straight", tmp_path / "second")


# --- the same through the command line, with real signals ---

WORDS = [
    "--preset", "smoke", "--dtype", "fp32", "--device", "cpu", "--threads", 1, "--context", 16, "--batch", 4,
    "--accumulation", 2, "--dropout", 0.2, "--steps", 240, "--eval-every", 60,
]  # fmt: skip


def run_until(process, step: int) -> None:
    """Read the output of a training process up to the validation at a step."""
    for line in process.stdout:
        if re.match(rf"step +{step}\b", line):
            return
    raise AssertionError(f"never reached step {step}: {process.communicate()[1]}")


def only_run(runs: Path, *, but: Path | None = None) -> Path:
    """The one run folder (besides another)."""
    (folder,) = (p for p in (runs / "stage1" / "gpt").iterdir() if not p.is_symlink() and p != but)
    return folder


@pytest.fixture
def straight(corpus_file, tmp_path, cli, monkeypatch, runs) -> Path:
    """The run that was never stopped."""
    with monkeypatch.context() as context:
        context.setenv("COURSE_LAB_RUNS", str(tmp_path / "straight"))
        assert cli("train", "--data", corpus_file, *WORDS)[0] == 0
        return only_run(tmp_path / "straight")


def test_ctrl_c_saves_and_says_how_to_resume(spawn, cli, corpus_file, runs, straight):
    """Catches: a traceback on Ctrl-C, an advice that does not work, a resumed run that is another one."""
    process = spawn("-m", "stage1_foundations.gpt", "train", "--data", corpus_file, *WORDS)
    run_until(process, 60)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    message, advice = error.splitlines()[-2:]
    assert message == "error: training stopped by Ctrl-C; the checkpoint is saved"
    assert "Traceback" not in error
    first = only_run(runs)
    report = read_report(first)
    assert report["status"] == "interrupted"
    assert 60 <= read_checkpoint(first)["step"] < 240

    words = advice.removeprefix("  try: python -m stage1_foundations.gpt ").split()
    code, _, error = cli(*words)
    assert code == 0, error
    second = only_run(runs, but=first)
    assert read_report(second)["status"] == "finished"
    assert_same_run(straight, second)


def test_kill_9_leaves_a_run_to_resume(spawn, cli, corpus_file, runs, straight):
    """Catches: a checkpoint that only a clean exit writes; a dead run that claims to be running."""
    process = spawn("-m", "stage1_foundations.gpt", "train", "--data", corpus_file, *WORDS)
    run_until(process, 120)
    process.kill()
    process.communicate()
    first = only_run(runs)
    assert read_report(first)["status"] == "died"
    load_model(first)
    code, _, error = cli("train", "--resume", first)
    assert code == 0, error
    assert_same_run(straight, only_run(runs, but=first))
