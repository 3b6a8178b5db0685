"""Fixtures of labs that train a language model: a Llama of 0.1 M random parameters and a tokenizer of bytes.

A lab's conftest.py imports them by name.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors gain nothing from threads, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """Where this test's runs go; and every test starts from the same random numbers."""
    torch.manual_seed(0)
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("COURSE_LAB_DEBUG", raising=False)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def tokenizer():
    """Bytes, and the two marks of ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    made.chat_template = CHATML
    return made


@pytest.fixture(scope="session")
def build(tokenizer) -> Callable[..., torch.nn.Module]:
    """A small Llama with grouped heads; the seed decides its weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(seed: int = 0, width: int = 32, dtype: torch.dtype = torch.float32):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
            initializer_range=0.2, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        return LlamaForCausalLM(config).to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def tiny_base(build, tokenizer, tmp_path_factory) -> Path:
    """The small model as a folder."""
    folder = tmp_path_factory.mktemp("tiny-base")
    build(0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
