"""Memory by arithmetic against files, against published figures and against vLLM's own log."""

import re

import pytest
import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.checkpoint_folder import read_header, read_json
from stage2_rag_finetune_deploy.serving.memory import (
    GIB,
    SHAPES,
    Shape,
    cache_tokens,
    check_cards,
    kv_bytes_per_token,
    linear_parameters,
    other_parameters,
    weight_bytes,
)

QWEN, SMOL = SHAPES["qwen2.5-7b"], SHAPES["smollm2-135m"]

# What vLLM 0.32 logged for SmolLM2-135M on a processor with VLLM_CPU_KVCACHE_SPACE=2 (block size 128)
VLLM_LOG = "CPU KV cache size: 93,184 tokens, Maximum concurrency for 1,024 tokens per request: 91.00x"


def parameters(shape: Shape) -> int:
    return linear_parameters(shape) + other_parameters(shape)


def test_parameters_of_known_models():
    """Catches: a forgotten bias or norm, a tied head counted twice. The figures are those of the model cards' files."""
    assert parameters(SMOL) == 134_515_008
    assert parameters(SHAPES["qwen2.5-0.5b"]) == 494_032_768
    assert parameters(QWEN) == 7_615_616_512


def test_parameters_of_a_folder(tiny_base):
    """Catches: arithmetic that only fits the listed models. Counted in the file's own header."""
    shape = Shape.of(read_json(tiny_base / "config.json", ""))
    _, tensors = read_header(tiny_base / "model.safetensors")
    assert parameters(shape) == sum(int(torch.tensor(entry["shape"]).prod()) for entry in tensors.values())


def test_cache_is_vllms():
    """Catches: heads taken for KV heads, values forgotten, GB taken for GiB, tokens that are no whole blocks."""
    tokens, context, requests = re.findall(r"[\d,.]+\d", VLLM_LOG)
    fits = cache_tokens(SMOL, 2 * GIB, block_size=128)
    assert f"{fits:,}" == tokens
    assert fits / int(context.replace(",", "")) == float(requests)


def test_cache_of_qwen():
    """Catches: 28 query heads in place of 4 KV heads (seven times too much)."""
    assert kv_bytes_per_token(QWEN) == 2 * 28 * 4 * 128 * 2 == 57_344
    assert kv_bytes_per_token(QWEN, cards=4) * 4 == kv_bytes_per_token(QWEN)
    assert kv_bytes_per_token(QWEN, cards=28) == kv_bytes_per_token(QWEN, cards=4)  # one head each, repeated
    assert cache_tokens(QWEN, 100 * 57_344, block_size=16) == 96


def test_weights_of_four_bits():
    """Catches: embeddings and head divided by four as well: SmolLM2 in 4 bits is 2.4 times smaller, not 4 times."""
    ratio = weight_bytes(SMOL, "bf16") / weight_bytes(SMOL, "int4", group_size=64)
    assert 2.2 < ratio < 2.5
    assert weight_bytes(QWEN, "bf16") == 2 * parameters(QWEN)
    assert weight_bytes(QWEN, "bf16", cards=2) == parameters(QWEN)


def test_cards_that_cannot_share_heads():
    """Catches: a size that vLLM refuses after it has loaded for minutes."""
    check_cards(QWEN, 4)
    check_cards(QWEN, 28)
    for cards in (3, 8, 0):
        with pytest.raises(LabError, match=f"28 heads cannot be dealt out to {cards} cards") as caught:
            check_cards(QWEN, cards)
    assert "1, 2, 4, 28" in caught.value.try_next


def test_a_model_of_another_kind():
    """Catches: KeyError for a config.json of something that is no such model."""
    with pytest.raises(LabError, match="has no 'hidden_size'"):
        Shape.of({"model_type": "bert"})


def test_command(cli, tiny_base):
    """Catches: a model that does not fit shown with tokens below zero; an unknown name without advice."""
    code, out, _ = cli("memory", "--card-gib", "16")
    assert code == 0 and re.search(r"bf16 +1 .*does not fit", out) and "7,615,616,512 parameters" in out
    assert cli("memory", "--model", tiny_base, "--cards", "1,2")[0] == 0
    code, _, err = cli("memory", "--model", "qwen2.5-7")
    assert code == 2 and "--model qwen2.5-7b" in err
    assert cli("memory", "--cards", "3")[0] == 2
