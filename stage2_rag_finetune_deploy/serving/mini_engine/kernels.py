"""The two inner loops that PyTorch has no fast form of on a processor, compiled by Numba: RMSNorm, and attention that
reads the cache's blocks where they lie.

- Keys of 16 tokens lie side by side, (D, 16): one vector register holds the same element of 16 keys, so a score is a
  sum of registers and no sum has to be made across one. Values lie the other way round, (16, D).
- The heads that share a key (grouped-query attention) follow each other: for all but the first it is in the cache.
- The softmax runs along (Milakov and Gimelshein 2018): the largest score so far, the sum and the weighted values are
  corrected whenever a larger one comes; no score is kept.
- bfloat16 is the upper half of a float32: numbers are widened by a shift, narrowed by rounding to the nearest even.

Compiled code is kept in `__pycache__`; the first run on a machine compiles for some seconds.
"""

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from stage2_rag_finetune_deploy.serving.mini_engine.vectors import INTS, TILE, Lanes, number, same

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


@intrinsic
def attend_tile(typingctx, queries, t, head, keys, values, tile, kv, count, width, sums, state, g):  # noqa: ANN001, ANN201
    """Take a tile of 16 keys and values into the running softmax of one head.

    Only the first `count` tokens of the tile are there. state[g] is the largest score so far and the sum of all
    exp(score - largest); sums[g] is the sum of exp(score - largest) * value, of `width` numbers.
    """
    signature = types.void(queries, t, head, keys, values, tile, kv, count, width, sums, state, g)

    def codegen(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        lanes, kinds = Lanes(context, builder), signature.args
        queries, t, head, keys, values, tile, kv, count, width, sums, state, g = map(lanes.index, arguments, kinds)
        zero = number(0)
        query = lanes.pointer(queries, kinds[0], (t, head, zero))
        scores = _scores(lanes, query, lanes.pointer(keys, kinds[3], (tile, kv, zero, zero)), kinds[3].dtype, width)
        there = builder.icmp_signed("<", ir.Constant(INTS, list(range(TILE))),
                                    lanes.everywhere(builder.trunc(count, ir.IntType(32))))  # fmt: skip
        scores = builder.select(there, scores, same(-1e30))
        at_largest, at_total = (lanes.pointer(state, kinds[10], (g, number(i))) for i in (0, 1))
        before = builder.load(at_largest)
        top = lanes.larger(lanes.largest(scores), before)
        shrink = lanes.exp(lanes.everywhere(builder.fsub(before, top)))  # what the old sums are worth now
        weights = lanes.exp(builder.fsub(scores, lanes.everywhere(top)))
        builder.store(top, at_largest)
        old = builder.fmul(builder.load(at_total), builder.extract_element(shrink, ir.Constant(ir.IntType(32), 0)))
        builder.store(builder.fadd(old, lanes.sum(weights)), at_total)
        value = lanes.pointer(values, kinds[4], (tile, kv, zero, zero))
        _add_values(lanes, weights, value, kinds[4].dtype, width, shrink, lanes.pointer(sums, kinds[9], (g, zero)))
        return context.get_dummy_value()

    return signature, codegen


def _scores(lanes, query, key, stored, width):  # noqa: ANN001, ANN202
    """16 scores: the sum over j of query[j] * key[j, :]. Four sums go side by side: an addition waits for its last."""
    builder = lanes.builder
    parts = [cgutils.alloca_once_value(builder, same(0.0)) for _ in range(4)]
    with cgutils.for_range_slice(builder, number(0), width, number(4), inc=True) as (first, _):
        for i, part in enumerate(parts):
            j = builder.add(first, number(i))
            row = lanes.load(builder.gep(key, [builder.mul(j, number(TILE))]), stored)
            q = lanes.everywhere(builder.load(builder.gep(query, [j])))
            builder.store(lanes.fma(q, row, builder.load(part)), part)
    return lanes.total([builder.load(part) for part in parts])


def _add_values(lanes, weights, value, stored, width, shrink, sums):  # noqa: ANN001, ANN202
    """sums = sums * shrink + weights @ value (16, width), a stretch of 16 columns at a time."""
    builder = lanes.builder
    rows = [lanes.lane(weights, i) for i in range(TILE)]
    with cgutils.for_range_slice(builder, number(0), width, number(TILE), inc=True) as (column, _):
        place = builder.gep(sums, [column])
        parts = [builder.fmul(lanes.load(place, types.float32), shrink), same(0.0), same(0.0), same(0.0)]
        for i, weight in enumerate(rows):
            at = builder.gep(value, [builder.add(builder.mul(number(i), width), column)])
            parts[i % 4] = lanes.fma(weight, lanes.load(at, stored), parts[i % 4])
        lanes.store(lanes.total(parts), place)


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
    sums, state = np.empty((group, width), np.float32), np.empty((group, 2), np.float32)
    for t in range(first, last):
        row, length = rows[t], positions[t] + 1
        for kv in range(kv_heads):
            sums[:], state[:, 0], state[:, 1] = np.float32(0), np.float32(-1e30), np.float32(0)
            for start in range(0, length, TILE):
                index = start // TILE
                tile = tables[row, index // tiles_a_block] * tiles_a_block + index % tiles_a_block
                for g in range(group):
                    head = kv * group + g
                    attend_tile(queries, t, head, keys, values, tile, kv, length - start, width, sums, state, g)
            for g in range(group):
                scale = np.float32(1) / state[g, 1]
                for j in range(width):
                    out[t, kv * group + g, j] = narrow(sums[g, j] * scale, out[t, 0, 0])
