"""A small Llama whose layers pack (all sides multiples of 32), and the lab's command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lab_cli import lab_cli
from tiny_model import one_thread, runs, tokenizer  # noqa: F401 - fixtures


@pytest.fixture
def cli(capsys) -> Callable[..., tuple[int, str, str]]:
    """The lab's command line in this process: (exit code, stdout, stderr)."""
    return lab_cli(capsys, "stage2_rag_finetune_deploy.quantization")


@pytest.fixture(scope="session")
def build(tokenizer) -> Callable[..., torch.nn.Module]:  # noqa: F811
    """Two blocks, 64 wide; the seed decides the weights. Without `sharing` every head has its own keys and values."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, sharing: bool = True, bias: bool = False):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2 if sharing else 4, max_position_embeddings=1024,
            tie_word_embeddings=True, initializer_range=0.2, attention_bias=bias,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        model = LlamaForCausalLM(config).to(dtype).eval()
        for name, parameter in model.named_parameters():
            if "norm" in name:  # gains that differ, so that a wrong folding shows
                parameter.data = (torch.rand_like(parameter) * 2 + 0.25).to(dtype)
            elif name.endswith("bias"):
                parameter.data.normal_(std=0.1)
        return model

    return make


@pytest.fixture(scope="session")
def tiny_base(build, tokenizer, tmp_path_factory) -> Path:  # noqa: F811
    """The small model as a folder."""
    folder = tmp_path_factory.mktemp("tiny-base")
    build(0, torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ids(tokenizer) -> torch.Tensor:  # noqa: F811
    """A calibration text. (8, 48)."""
    return torch.randint(0, 256, (8, 48), generator=torch.Generator().manual_seed(3))


def correlated(tokens: int, width: int, seed: int = 0) -> torch.Tensor:
    """Inputs that go together and differ in strength, as a model's do. (tokens, width)."""
    chance = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) * 0.5 + torch.eye(width)
    strength = torch.linspace(0.1, 3, width)[torch.randperm(width, generator=torch.Generator().manual_seed(98))]
    return torch.randn(tokens, width, generator=chance) @ mixing * strength


@pytest.fixture(scope="session")
def inputs() -> Callable[..., torch.Tensor]:
    """`correlated` as a fixture."""
    return correlated
