"""Each test names the bug that it catches."""

import pytest
import torch
from torch.nn import functional as F

from stage1_foundations.gpt.attention import explicit_attention, one_query_attention
from stage1_foundations.gpt.compiled_decoder import CompiledDecoder, decode_step
from stage1_foundations.gpt.linear import Linear, row_product
from stage1_foundations.gpt.model_config import SHAPES
from stage1_foundations.gpt.position_encoding import KINDS as POSITIONS
from stage1_foundations.gpt.position_encoding import alibi_bias, alibi_slopes
from stage1_foundations.gpt.sampling import Sampling, generate_ids


def uncompiled(model, length: int = 20) -> CompiledDecoder:
    """The same step without the compiler."""
    decoder = CompiledDecoder(model, length)
    decoder._step = decode_step
    return decoder


def stepped_logits(decoder: CompiledDecoder, ids: torch.Tensor) -> torch.Tensor:
    """Logits of every position after the first three, token by token."""
    cache = decoder.new_cache()
    decoder(ids[:, :3], cache)
    return torch.cat([decoder(token, cache) for token in ids[:, 3:].split(1, dim=1)], dim=1)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_a_step_with_a_tensor_position_is_the_models_own_step(build, shape, position):
    """Catches: a position off by one, a mask that hides the new token or shows unfilled places."""
    model = build(shape, position=position)
    ids = torch.randint(19, (1, 15))
    assert torch.allclose(stepped_logits(uncompiled(model), ids), model(ids)[:, 3:], atol=3e-5)


@torch.no_grad()
def test_the_step_knows_the_token_before(build):
    """Catches: bigrams that start again at every step."""
    model = build("modern", bigram_rows=19 * 19)
    ids = torch.randint(19, (1, 15))
    assert torch.allclose(stepped_logits(uncompiled(model), ids), model(ids)[:, 3:], atol=3e-5)


GREEDY = Sampling(tokens=17, temperature=0)


def eager_tokens(model, prompt: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    return torch.cat(list(generate_ids(model, prompt, sampling)), dim=1)


@pytest.fixture(scope="module")
def compiled(build) -> dict:
    """Two models with their compiled steps, of different shape and length: compiling is what costs the seconds."""
    torch.manual_seed(0)
    grouped = build("llama", kv_heads=2)
    biased = build("gpt2", position="alibi", bigram_rows=19 * 19)
    return {"llama, grouped heads": (grouped, CompiledDecoder(grouped, length=20)),
            "gpt2, alibi, bigrams": (biased, CompiledDecoder(biased, length=21))}  # fmt: skip


@pytest.mark.parametrize("name", ["llama, grouped heads", "gpt2, alibi, bigrams"])
@torch.inference_mode()
def test_compiled_tokens_and_logits_equal_eager_ones(compiled, name):
    """Catches: a compiled graph that froze the first position, or shares heads in another order."""
    model, decoder = compiled[name]
    prompt = torch.randint(19, (1, 3))
    for _ in range(2):  # the second text starts from a fresh cache
        tokens = torch.cat(list(generate_ids(model, prompt, GREEDY, decoder)), dim=1)
        assert torch.equal(tokens, eager_tokens(model, prompt, GREEDY))
    ids = torch.cat((prompt, tokens), dim=1)
    assert torch.allclose(stepped_logits(decoder, ids), model(ids)[:, 3:], atol=3e-5)


@torch.inference_mode()
def test_two_decoders_keep_apart(compiled):
    """Catches: a second model or length that runs through the first one's graph, which checks nothing."""
    prompt = torch.tensor([[1, 2, 3]])
    for model, decoder in [*compiled.values(), *compiled.values()]:
        greedy = Sampling(tokens=decoder.length - 3, temperature=0)
        tokens = torch.cat(list(generate_ids(model, prompt, greedy, decoder)), dim=1)
        assert torch.equal(tokens, eager_tokens(model, prompt, greedy))


@torch.no_grad()
def test_the_decoder_reads_a_full_context_again(build):
    """Catches: a fixed cache that runs over its end when the text is longer than the context."""
    model = build("llama")
    prompt, greedy = torch.randint(19, (1, 5)), Sampling(tokens=40, temperature=0)
    decoder = uncompiled(model, length=45)
    assert decoder.length == 24
    tokens = torch.cat(list(generate_ids(model, prompt, greedy, decoder)), dim=1)
    assert torch.equal(tokens, eager_tokens(model, prompt, greedy))


@torch.no_grad()
def test_a_full_cache_is_refused(build):
    """Catches: a write past the end, which index_copy would report as an index error of torch."""
    model = build("llama")
    decoder = CompiledDecoder(model, length=4)
    cache = decoder.new_cache()
    decoder(torch.tensor([[1, 2, 3, 4]]), cache)
    with pytest.raises(ValueError, match="holds 4 positions, 5 are needed"):
        decoder(torch.tensor([[5]]), cache)


@pytest.mark.parametrize("bias", [True, False])
def test_row_product_is_the_linear_layer(bias):
    """Catches: a product with the transposed matrix, a bias left out, another shape."""
    layer = Linear(12, 7, bias=bias)
    x = torch.randn(1, 1, 12)
    assert torch.allclose(row_product(x, layer.weight, layer.bias), F.linear(x, layer.weight, layer.bias), atol=1e-6)


def test_row_product_accumulates_in_float32():
    """Catches: sums in bfloat16, which stop growing at 256."""
    x = torch.ones(1, 1024, dtype=torch.bfloat16)
    assert row_product(x, torch.ones(1, 1024, dtype=torch.bfloat16)).item() == 1024


@pytest.mark.parametrize("groups", [6, 2, 1])
def test_one_query_attention_equals_the_explicit_form(groups):
    """Catches: query heads matched with the wrong group of keys, a bias with the wrong head, a missing scale."""
    q, k, v = torch.randn(1, 6, 1, 8), torch.randn(1, groups, 9, 8), torch.randn(1, groups, 9, 8)
    wide_k, wide_v = (t.repeat_interleave(6 // groups, dim=1) for t in (k, v))
    alibi = alibi_bias(1, 9, alibi_slopes(6))
    for bias in (torch.zeros(1, 1, 9), alibi):
        want = explicit_attention(q, wide_k, wide_v, bias)[0]
        assert torch.allclose(one_query_attention(q, k, v, bias), want, atol=1e-6)
