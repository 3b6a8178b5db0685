"""The inner loops that every index shares, compiled by Numba.

- Smaller is nearer: an inner product becomes a distance by its sign, so that one loop serves both metrics.
- `reassoc` lets LLVM reorder a sum, which is what allows it to use vector registers; rows are padded with zeros to a
  multiple of 16 floats (one cache line), so that no loop has a ragged end and no row starts in mid-line. Not the whole
  of `fastmath`: that would also promise that no number is infinite, and the lists of the k best start with infinity.
- `four_distances` computes four rows side by side. A sum is a chain: each addition waits for the one before, and the
  last step, across the register, waits for all; four chains wait together.
- `prefetch` asks for a row before it is needed: in a graph the next row is anywhere in memory, and waiting for it
  costs more than the arithmetic on it.

Compiled code is kept in `__pycache__` (`cache=True`): the first run on a machine compiles, the next ones load. Numba
compiles a function anew when its own file changes, but not when a function that it calls, in another file, does; so
code that is older than any file of this folder is thrown away here.
"""

from contextlib import suppress
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANE = 16  # floats in a cache line of 64 bytes
FAST = {"reassoc", "contract", "nsz", "nnan"}  # reorder sums, fuse multiply-adds, ignore -0 and NaN
jit = numba.njit(cache=True, fastmath=FAST, nogil=True, boundscheck=False, error_model="numpy")


def drop_stale_code(folder: Path) -> None:
    """Remove what Numba compiled before the newest of the folder's sources was written."""
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for index in (folder / "__pycache__").glob("*.nbi"):
        with suppress(OSError):  # another process was faster, or the folder is read-only
            if index.stat().st_mtime < newest:
                index.unlink()


drop_stale_code(Path(__file__).parent)


def aligned_rows(vectors: np.ndarray, capacity: int | None = None) -> np.ndarray:
    """Copy vectors into rows that are padded with zeros to whole cache lines and start on one.

    Args:
        vectors: (N, D), any float type.
        capacity: rows to allocate; N if not given.

    Returns:
        float32 (capacity, D rounded up to a multiple of 16), C-contiguous, 64-byte aligned.
    """
    count, dimensions = vectors.shape
    rows, width = capacity or count, -(-dimensions // LANE) * LANE
    raw = np.zeros(rows * width * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    out = raw[start : start + rows * width * 4].view(np.float32).reshape(rows, width)
    out[:count, :dimensions] = vectors
    return out


@intrinsic
def prefetch(typingctx, array, row, column):  # noqa: ANN001, ANN201 - Numba calls it with its own types
    """Ask the processor to load `array[row, column]` and go on without waiting."""
    signature = types.void(array, row, column)

    def codegen(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        array_type = signature.args[0]
        struct = context.make_array(array_type)(context, builder, arguments[0])
        indices = [
            context.cast(builder, value, kind, types.intp)
            for value, kind in zip(arguments[1:], signature.args[1:], strict=True)
        ]
        pointer = cgutils.get_item_pointer(context, builder, array_type, struct, indices, wraparound=False)
        byte_pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [byte_pointer.type] + [ir.IntType(32)] * 3)
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0i8")
        read, near, data = (ir.Constant(ir.IntType(32), value) for value in (0, 3, 1))
        builder.call(function, [byte_pointer, read, near, data])
        return context.get_dummy_value()

    return signature, codegen


@jit
def prefetch_row(vectors, row):
    """Ask for all cache lines of a padded row."""
    for column in range(0, vectors.shape[1], 16):
        prefetch(vectors, row, column)


@jit
def distance(vectors, row, query, squared):
    """Distance of a padded row to a padded query: squared L2, or minus the inner product."""
    total = np.float32(0)
    if squared:
        for j in range(query.shape[0]):
            difference = vectors[row, j] - query[j]
            total += difference * difference
        return total
    for j in range(query.shape[0]):
        total += vectors[row, j] * query[j]
    return -total


@jit
def four_distances(vectors, a, b, c, d, query, squared):
    """The same for the rows a, b, c and d at once: the query is read once, and no sum waits for another."""
    sum_a, sum_b, sum_c, sum_d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    if squared:
        for j in range(query.shape[0]):
            sum_a += (vectors[a, j] - query[j]) ** 2
            sum_b += (vectors[b, j] - query[j]) ** 2
            sum_c += (vectors[c, j] - query[j]) ** 2
            sum_d += (vectors[d, j] - query[j]) ** 2
        return sum_a, sum_b, sum_c, sum_d
    for j in range(query.shape[0]):
        sum_a += vectors[a, j] * query[j]
        sum_b += vectors[b, j] * query[j]
        sum_c += vectors[c, j] * query[j]
        sum_d += vectors[d, j] * query[j]
    return -sum_a, -sum_b, -sum_c, -sum_d


@jit
def distance_between(vectors, a, b, squared):
    """The same between two rows. (A view `vectors[b]` would count a reference up and down at every call.)"""
    total = np.float32(0)
    if squared:
        for j in range(vectors.shape[1]):
            difference = vectors[a, j] - vectors[b, j]
            total += difference * difference
        return total
    for j in range(vectors.shape[1]):
        total += vectors[a, j] * vectors[b, j]
    return -total
