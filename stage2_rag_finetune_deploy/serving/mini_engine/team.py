"""Attention on all cores, by the threads that PyTorch has already.

Between two products PyTorch's OpenMP threads do not sleep, they spin and wait for the next one. A second team of
threads (Numba's `prange`, Python's own) would have to share the cores with them (NOTES.md). So the kernel is handed to
that same team, through the function that compilers call for `#pragma omp parallel`. Tokens are taken one by one,
whoever is free takes the next: pasts have different lengths.

Where there is no such function (macOS, Windows), or one thread only, the kernel runs as it is.
"""

import ctypes
from collections.abc import Callable
from functools import cache

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from stage2_rag_finetune_deploy.serving.mini_engine.kernels import attend

ARRAYS = ("queries", "keys", "values", "tables", "rows", "positions", "out")
SIZES = 5  # numbers kept for an array: its address, and up to four sizes
HEAD = 3  # before them: the next token, how many there are, tiles of a block
_KEPT: list = []  # compiled code lives as long as its object


@intrinsic
def take_ticket(typingctx, job):  # noqa: ANN001, ANN201 - Numba calls it with its own types
    """Add one to the job's first number, as one indivisible act; gives what it was."""

    def codegen(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        return builder.atomic_rmw("add", arguments[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.CPointer(types.int64)), codegen


def pointer_to(kind):  # noqa: ANN001, ANN201
    """A function for Numba that makes an address a pointer to numbers of a kind."""

    @intrinsic
    def convert(typingctx, address):  # noqa: ANN001, ANN202
        def codegen(context, builder, signature, arguments):  # noqa: ANN001, ANN202
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), codegen

    return convert


to_float, to_half, to_index = pointer_to(types.float32), pointer_to(types.uint16), pointer_to(types.int64)


def make_worker(to_stored: Callable) -> int:
    """Address of what each thread of the team runs: attention of one token after the other until none is left."""

    @numba.cfunc(types.void(types.CPointer(types.int64)))
    def worker(job):  # noqa: ANN001, ANN202
        a = numba.carray(job, HEAD + SIZES * 7)
        queries = numba.carray(to_float(a[3]), (a[4], a[5], a[6]))
        keys = numba.carray(to_stored(a[8]), (a[9], a[10], a[11], a[12]))
        values = numba.carray(to_stored(a[13]), (a[14], a[15], a[16], a[17]))
        tables = numba.carray(to_index(a[18]), (a[19], a[20]))
        rows, positions = numba.carray(to_index(a[23]), (a[24],)), numba.carray(to_index(a[28]), (a[29],))
        out = numba.carray(to_stored(a[33]), (a[34], a[35], a[36]))
        token = take_ticket(job)
        while token < a[1]:
            attend(queries, keys, values, tables, rows, positions, a[2], token, token + 1, out)
            token = take_ticket(job)

    _KEPT.append(worker)
    return worker.address


@cache
def worker_for(dtype: np.dtype) -> int:
    """The worker for a cache of float32 or of bfloat16 as 16 bits."""
    return make_worker(to_float if dtype == np.float32 else to_half)


@cache
def openmp() -> Callable | None:
    """OpenMP's "run this on the team", of the library that PyTorch uses; None where there is none."""
    try:
        run = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    run.argtypes, run.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return run


def attend_together(*arrays: np.ndarray, tiles_a_block: int) -> None:
    """`kernels.attend` for all tokens. The arrays are those of ARRAYS, each in one piece."""
    tokens, threads = len(arrays[0]), torch.get_num_threads()
    run = openmp() if threads > 1 and tokens > 1 else None
    if run is None:
        attend(*arrays[:-1], tiles_a_block, 0, tokens, arrays[-1])
        return
    job = np.zeros(HEAD + SIZES * len(ARRAYS), np.int64)
    job[:HEAD] = 0, tokens, tiles_a_block
    for place, array in enumerate(arrays):
        start = HEAD + SIZES * place
        job[start] = array.ctypes.data
        job[start + 1 : start + 1 + array.ndim] = array.shape
    run(worker_for(arrays[1].dtype), job.ctypes.data, threads, 0)
