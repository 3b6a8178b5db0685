"""Each test names the bug that it catches. Two processes really talk over gloo."""

import json
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from stage1_foundations.gpt import distributed, training
from stage1_foundations.gpt.checkpoint import read_checkpoint
from stage1_foundations.gpt.train_config import TrainConfig

FORK = multiprocessing.get_context("fork")  # as torchrun would start them, without a second import of torch


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_two_processes(function, *arguments) -> list[int]:
    """Run function(rank, *arguments) in two processes of one world; their exit codes."""
    port = free_port()

    def child(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
        torch.set_num_threads(1)
        function(rank, *arguments)

    processes = [FORK.Process(target=child, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        process.kill()
    assert not alive, "the processes wait for each other"
    return [process.exitcode for process in processes]


def check_average(rank: int) -> None:
    with distributed.join_world(torch.device("cpu")) as world:
        assert (world.rank, world.size, world.is_main) == (rank, 2, rank == 0)
        parameters = [nn.Parameter(torch.zeros(size)) for size in ((2, 3), (), (4,))]
        for number, parameter in enumerate(parameters[:2]):
            parameter.grad = torch.full(
                parameter.shape, 10.0 * number + 2 * rank
            )  # the mean over ranks adds 1
        distributed.average_gradients(parameters, world)
        for number, parameter in enumerate(parameters[:2]):
            assert torch.equal(parameter.grad, torch.full(parameter.shape, 10.0 * number + 1))
        assert parameters[2].grad is None
        assert distributed.agree(3.5 + rank, world, torch.device("cpu")) == 3.5


def test_gradients_become_their_mean():
    """Catches: a sum, gradients handed to the wrong parameter, a clock on which the processes disagree."""
    assert in_two_processes(check_average) == [0, 0]


def test_a_world_of_one_needs_no_processes(monkeypatch):
    """Catches: a process group that is opened for a plain run."""
    for size in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size:
            monkeypatch.setenv("WORLD_SIZE", size)
        with distributed.join_world(torch.device("cpu")) as world:
            assert world == distributed.World(0, 1) and world.is_main
            assert not torch.distributed.is_initialized()
    assert distributed.agree(3.5, world, torch.device("cpu")) == 3.5


LEAVE = """
import os, torch
from stage1_foundations.gpt import distributed
with distributed.join_world(torch.device("cpu")) as world:
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    distributed.average_gradients([parameter], world)
    torch.optim.AdamW([parameter]).step()
print([name for thread in os.listdir("/proc/self/task")
       if "gloo" in (name := open(f"/proc/self/task/{thread}/comm").read().strip())])
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="lists threads as Linux does")
def test_no_thread_outlives_the_world(spawn):
    """Catches: a group kept alive by a late import of torch: one run in five was aborted at its end."""
    port = str(free_port())
    processes = [
        spawn("-c", LEAVE, RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for rank in range(2)
    ]
    for process in processes:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "[]\n"), error


@pytest.fixture
def config(corpus_file) -> TrainConfig:
    return TrainConfig(
        data=str(corpus_file), layers=2, heads=2, width=32, context=16, batch=8, accumulation=2, steps=10,
        eval_every=5, sample_every=0, device="cpu", dtype="fp32",
    )  # fmt: skip


def train_in(rank: int, config: TrainConfig, folder: Path) -> None:
    training.train(config, folder / str(rank))


def assert_same_training(one: Path, two: Path) -> None:
    """Weights and validation losses. Halving is exact in binary, so the sums differ by an ulp at most."""
    first, second = read_checkpoint(one), read_checkpoint(two)
    for name, weight in first["model"].items():
        assert torch.allclose(weight, second["model"][name], atol=1e-5), name
    losses = [[row["val_loss"] for row in state["history"]] for state in (first, second)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert first["step"] == second["step"]


@pytest.mark.parametrize("shape", ["modern", "gpt2"])
def test_two_processes_match_twice_the_accumulation(config, tmp_path, shape):
    """Catches: both processes on the same rows, gradients summed, files written over each other."""
    config = replace(config, shape=shape)
    for name in ("alone", "0", "1"):
        (tmp_path / name).mkdir()
    training.train(config, tmp_path / "alone")
    assert in_two_processes(train_in, replace(config, accumulation=1), tmp_path) == [0, 0]
    assert_same_training(tmp_path / "alone", tmp_path / "0")
    assert not list((tmp_path / "1").iterdir())  # only the main process writes


def test_torchrun_trains_one_run(config, corpus_file, spawn, cli, tmp_path, runs, monkeypatch):
    """Catches: two run folders, two reports, or a command line that torchrun cannot start."""
    words = [
        "--data", corpus_file, "--preset", "smoke", "--steps", 10, "--eval-every", 5, "--context", 16,
        "--device", "cpu", "--dtype", "fp32", "--threads", 1,
    ]  # fmt: skip
    process = spawn(
        "-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port(),
        "-m", "stage1_foundations.gpt", "train", *words,
    )  # fmt: skip
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    (folder,) = (p for p in (runs / "stage1" / "gpt").iterdir() if not p.is_symlink())
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "finished" and report["metrics"]["val_loss"]["value"] > 0

    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "alone"))
    assert cli("train", *words, "--accumulation", 2)[0] == 0
    assert_same_training(tmp_path / "alone" / "stage1" / "gpt" / "latest-train", folder)


def test_a_batch_that_cannot_be_divided_is_one_clear_line(cli, corpus_file):
    """Catches: rows that nobody trains on, because 8 does not divide by 3."""
    code, _, error = cli("train", "--preset", "smoke", "--data", corpus_file, "--accumulation", 3)
    assert code == 2
    assert error.splitlines()[-2:] == [
        "error: batch 8 does not divide into 3 micro-batches",
        "  try: --batch 9",
    ]
