"""Data parallelism: every process computes the gradient of its rows, then all take the mean.

    torchrun --nproc-per-node 2 -m stage1_foundations.gpt train

One flat tensor holds all gradients, so there is one all-reduce a step (gloo on CPUs, nccl on GPUs).
Two processes give what one process with twice the accumulation gives: tests/stage1/gpt/test_distributed.py.
"""

import importlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class World:
    """Who this process is among how many."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the logs and checkpoints."""
        return self.rank == 0


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """The world that torchrun describes in the environment, or a world of one."""
    if "WORLD_SIZE" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield World()
        return
    # The optimisers import this at their first step. Imported after the group is made, it keeps a reference to the
    # group, whose threads then outlive destroy_process_group and may abort the process at its exit (torch 2.13).
    importlib.import_module("torch._dynamo")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


# exercise: gpt.average_gradients
def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every gradient by its mean over the processes."""
    if world.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    distributed.all_reduce(flat)
    flat /= world.size
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
# end exercise


def agree(value: float, world: World, device: torch.device) -> float:
    """The main process's value, for decisions that depend on its clock."""
    if world.size == 1:
        return value
    answer = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(answer, 0)
    return answer.item()
