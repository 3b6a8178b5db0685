"""Paged attention against sums by hand, both forms. Each test names the bug that it catches."""

import pytest
import torch

from stage2_rag_finetune_deploy.serving.mini_engine.attention import Attention, make_batch, rotate
from stage2_rag_finetune_deploy.serving.mini_engine.checkpoint import LlamaConfig
from stage2_rag_finetune_deploy.serving.mini_engine.scheduler import Chunk
from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence

HEADS, KV_HEADS, WIDTH, BLOCK = 6, 2, 16, 16
CONFIG = LlamaConfig(50, HEADS * WIDTH, 8, 1, HEADS, KV_HEADS, WIDTH, 1e-5, 1e4, True, 128, ())


def sequence(length, table):
    """A sequence whose blocks lie where `table` says."""
    return Sequence("s", list(range(length)), block_table=table)


def by_hand(queries, keys, values):
    """Softmax of one query per head over all keys, in float64: (H, D), (P, K, D), (P, K, D) -> (H * D)."""
    out = []
    for head, query in enumerate(queries.double()):
        k, v = (each[:, head * KV_HEADS // HEADS].double() for each in (keys, values))
        out.append((k @ query / WIDTH**0.5).softmax(0) @ v)
    return torch.cat(out)


def check(attention, dtype, tolerance):
    """Two sequences, one in two chunks and beside the other's single token, in blocks that lie apart."""
    torch.manual_seed(1)
    long, short = sequence(37, [5, 0, 3]), sequence(20, [2, 6])
    projected = {each: torch.randn(len(each), HEADS + 2 * KV_HEADS, WIDTH).to(dtype) for each in (long, short)}
    for chunks in ([Chunk(long, 0, 21), Chunk(short, 0, 19)], [Chunk(long, 21, 16), Chunk(short, 19, 1)]):
        attention.prepare(make_batch(chunks, BLOCK))
        qkv = torch.cat([projected[each][start : start + count] for each, start, count in chunks])
        out, row = attention(0, qkv.flatten(1)).double(), 0
        for each, start, count in chunks:
            cos, sin = attention.cos[: len(each), None], attention.sin[: len(each), None]
            q, k, v = projected[each].float().split([HEADS, KV_HEADS, KV_HEADS], 1)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            for position in range(start, start + count):
                expected = by_hand(q[position], k[: position + 1], v[: position + 1])
                torch.testing.assert_close(out[row], expected, atol=tolerance, rtol=0)
                row += 1


def test_gathered_attention_by_hand():
    """Catches: a neighbour's tokens, a later token or a free block seen; heads and keys paired otherwise."""
    check(Attention(CONFIG, 8, BLOCK, 128, torch.float32, torch.device("cpu")), torch.float32, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_the_kernel_by_hand(dtype, tolerance):
    """Catches: the same in the compiled form, and a softmax that forgets what came before a larger score.

    bfloat16 keeps 8 bits: keys of size 3 are off by 0.006, the answers by a few of these.
    """
    from stage2_rag_finetune_deploy.serving.mini_engine.kernel_attention import KernelAttention

    check(KernelAttention(CONFIG, 8, BLOCK, 128, dtype, torch.device("cpu")), dtype, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_threads_give_what_one_gives(dtype):
    """Catches: a token that two threads take or none does, sizes handed over in another order."""
    from stage2_rag_finetune_deploy.serving.mini_engine import team
    from stage2_rag_finetune_deploy.serving.mini_engine.kernel_attention import KernelAttention

    if team.openmp() is None:
        pytest.skip("this system's PyTorch does not use libgomp")
    attention = KernelAttention(CONFIG, 64, BLOCK, 128, dtype, torch.device("cpu"))
    chunks = [Chunk(sequence(length, [4 * i, 4 * i + 1]), length - 5, 5) for i, length in enumerate(range(8, 24))]
    qkv = torch.randn(80, (HEADS + 2 * KV_HEADS) * WIDTH).to(dtype)
    outs = {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            attention.prepare(make_batch(chunks, BLOCK))
            outs[threads] = [attention(0, qkv) for _ in range(5)]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(out, outs[1][0]) for some in outs.values() for out in some)


def test_the_kernels_exp_and_norm():
    """Catches: a polynomial cut too early, a bit shifted too far, a mean over the wrong length."""
    import numpy as np

    from stage2_rag_finetune_deploy.serving.mini_engine import kernels

    x = torch.randn(5, 40) * 3
    weight, out = torch.rand(40), torch.empty(5, 40)
    kernels.rms_norm(x.numpy(), weight.numpy(), 1e-5, out.numpy())
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (40,), weight, 1e-5))
    # one key a tile is far above the others: the rest's weights are exp of large negative numbers, down to 0
    for gap in (0.0, 0.3, 5.0, 30.0, 200.0):
        keys = np.zeros((2, 1, 16, 16), np.float32)
        keys[0, 0, 0, :], keys[1, 0, 0, 3] = -gap, gap
        values = np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32)
        queries, found = np.zeros((1, 1, 16), np.float32), np.empty((1, 1, 16), np.float32)
        queries[0, 0, 0] = 1.0
        words = (np.array([[0, 1]]), np.array([0]), np.array([31]), 1, 0, 1, found)
        kernels.attend(queries, keys, values, *words)
        scores = torch.tensor(keys[:, 0, 0].reshape(-1)).double()
        expected = scores.softmax(0) @ torch.tensor(values[:, 0].reshape(32, 16)).double()
        np.testing.assert_allclose(found[0, 0], expected, atol=3e-7)
