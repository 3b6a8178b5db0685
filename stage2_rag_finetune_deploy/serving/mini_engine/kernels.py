"""The two inner loops that PyTorch has no fast form of on a processor, compiled by Numba: RMSNorm, and attention that
reads the cache's blocks where they lie.

- Keys of 16 tokens lie side by side, (D, 16): one vector register holds the same element of 16 keys, so a score is a
  sum of registers and no sum has to be made across one. Values lie the other way round, (16, D).
- The heads that share a key (grouped-query attention) are computed together: a key is read once for all of them.
- The softmax runs along (Milakov and Gimelshein 2018): the largest score so far, the sum and the weighted values are
  corrected whenever a larger one comes; no score is kept.
- bfloat16 is the upper half of a float32: numbers are widened by a shift, narrowed by rounding to the nearest even.
- `exp` is 2 to the power of whole and fraction; the fraction by a polynomial, as a call to the library for each number
  would cost more than the rest.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

TILE = 16  # tokens side by side: float32 numbers in a register of 512 bits
FAST = {"reassoc", "contract", "nsz", "nnan", "arcp"}
jit = numba.njit(cache=True, fastmath=FAST, nogil=True, boundscheck=False, error_model="numpy")


@intrinsic
def bits_to_float(typingctx, number):  # noqa: ANN001, ANN201 - Numba calls it with its own types
    """The float32 with these 32 bits."""

    def codegen(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def float_to_bits(typingctx, number):  # noqa: ANN001, ANN201
    """The 32 bits of a float32."""

    def codegen(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


def widen(stored):  # noqa: ANN001, ANN201
    """A stored number, bfloat16 as uint16 or float32, as float32."""


def narrow(number, like):  # noqa: ANN001, ANN201
    """A float32 in the form in which `like` is stored."""


@overload(widen, inline="always")
def _widen(stored):  # noqa: ANN001, ANN202
    if stored == types.uint16:
        return lambda stored: bits_to_float(np.uint32(stored) << np.uint32(16))
    return lambda stored: stored


@overload(narrow, inline="always")
def _narrow(number, like):  # noqa: ANN001, ANN202
    if like == types.uint16:

        def to_bfloat16(number, like):  # noqa: ANN001, ANN202
            bits = float_to_bits(np.float32(number))
            return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return to_bfloat16
    return lambda number, like: np.float32(number)


@numba.njit(fastmath=FAST, inline="always")
def fast_exp(x):  # noqa: ANN001, ANN201
    """exp of a float32 of at most 0, within 2e-7 of its value; 0 below -87. (Taylor of 2^f on [-0.5, 0.5].)"""
    t = max(x, np.float32(-87.0)) * np.float32(1.4426950408889634)
    whole = np.floor(t + np.float32(0.5))
    f = (t - whole) * np.float32(0.6931471805599453)
    p = np.float32(1 / 720) * f + np.float32(1 / 120)
    p = p * f + np.float32(1 / 24)
    p = p * f + np.float32(1 / 6)
    p = p * f + np.float32(0.5)
    p = p * f + np.float32(1)
    p = p * f + np.float32(1)
    return p * bits_to_float(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))


@jit
def rms_norm(x, weight, eps, out):  # noqa: ANN001, ANN201
    """out = x / rms(x) * weight. x, out: (T, C), weight: (C,)."""
    width = x.shape[1]
    for row in range(x.shape[0]):
        total = np.float32(0)
        for j in range(width):
            value = widen(x[row, j])
            total += value * value
        scale = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(eps))
        for j in range(width):
            out[row, j] = narrow(widen(x[row, j]) * scale * widen(weight[j]), out[row, j])


@jit
def store(qkv, cos, sin, slots, keys, values, queries):  # noqa: ANN001, ANN201
    """Rotate queries and keys; keys and values go to their slots of the cache, queries, scaled, to `queries`.

    qkv: (T, H + 2 K, D); cos, sin: (T, D / 2); slots: (T,); keys: (N / 16, K, D, 16), values: (N / 16, K, 16, D);
    queries: float32 (T, H, D).
    """
    tokens, heads, width = queries.shape
    kv_heads, half = keys.shape[1], width // 2
    scale = np.float32(1 / np.sqrt(width))
    for t in range(tokens):
        tile, place = slots[t] // TILE, slots[t] % TILE
        for h in range(heads + kv_heads):
            for j in range(half):
                a, b = widen(qkv[t, h, j]), widen(qkv[t, h, j + half])
                first = a * cos[t, j] - b * sin[t, j]
                second = b * cos[t, j] + a * sin[t, j]
                if h < heads:
                    queries[t, h, j] = first * scale
                    queries[t, h, j + half] = second * scale
                else:
                    keys[tile, h - heads, j, place] = narrow(first, qkv[t, h, j])
                    keys[tile, h - heads, j + half, place] = narrow(second, qkv[t, h, j])
        for h in range(kv_heads):
            for j in range(width):
                values[tile, h, place, j] = qkv[t, heads + kv_heads + h, j]


@jit
def attend(queries, keys, values, tables, rows, positions, tiles_a_block, first, last, out):  # noqa: ANN001, ANN201
    """Attention of the tokens [first, last), each over positions 0 to its own of its sequence.

    queries: float32 (T, H, D), rotated and scaled; keys, values: one layer's cache (see `store`); tables: (S, B) blocks
    of `tiles_a_block` tiles; rows, positions: (T,); out: (T, H, D).
    """
    heads, width = queries.shape[1], queries.shape[2]
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    scores = np.empty((group, TILE), np.float32)
    sums = np.empty((group, width), np.float32)
    largest, total = np.empty(group, np.float32), np.empty(group, np.float32)
    for t in range(first, last):
        row, length = rows[t], positions[t] + 1
        for kv in range(kv_heads):
            largest[:], total[:], sums[:] = np.float32(-1e30), np.float32(0), np.float32(0)
            for start in range(0, length, TILE):
                number = start // TILE
                tile = tables[row, number // tiles_a_block] * tiles_a_block + number % tiles_a_block
                score_tile(scores, queries, keys, t, kv, tile, group, width)
                for g in range(group):
                    add_tile(scores, sums, largest, total, values, g, kv, tile, length - start, width)
            for g in range(group):
                scale = np.float32(1) / total[g]
                for j in range(width):
                    out[t, kv * group + g, j] = narrow(sums[g, j] * scale, out[t, 0, 0])


@numba.njit(fastmath=FAST, inline="always")
def score_tile(scores, queries, keys, t, kv, tile, group, width):  # noqa: ANN001, ANN201
    """Scores of 16 keys for all heads of a group."""
    scores[:] = np.float32(0)
    for j in range(width):
        for g in range(group):
            q = queries[t, kv * group + g, j]
            for lane in range(16):
                scores[g, lane] += q * widen(keys[tile, kv, j, lane])


@numba.njit(fastmath=FAST, inline="always")
def add_tile(scores, sums, largest, total, values, g, kv, tile, count, width):  # noqa: ANN001, ANN201
    """Take a tile into a head's running softmax; only its first `count` tokens are there."""
    top = largest[g]
    for lane in range(16):
        if lane >= count:
            scores[g, lane] = np.float32(-1e30)
        top = max(top, scores[g, lane])
    shrink = fast_exp(largest[g] - top)
    part = np.float32(0)
    for lane in range(16):
        scores[g, lane] = fast_exp(scores[g, lane] - top)
        part += scores[g, lane]
    largest[g], total[g] = top, total[g] * shrink + part
    for j in range(width):
        sums[g, j] *= shrink
    for lane in range(min(count, TILE)):
        p = scores[g, lane]
        for j in range(width):
            sums[g, j] += p * widen(values[tile, kv, lane, j])
