"""A tiny random Llama with heads wide enough for the kernels, engines over it, and what transformers answers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_model import build, one_thread, runs, tokenizer  # noqa: F401 - fixtures

from stage2_rag_finetune_deploy.serving.mini_engine import LLM, SamplingParams


@pytest.fixture
def greedy() -> Callable[..., SamplingParams]:
    """Parameters without chance."""
    return lambda tokens=20, **more: SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, **more)


@pytest.fixture(scope="session")
def tiny_base(build, tokenizer, tmp_path_factory) -> Path:  # noqa: F811
    """A random Llama as a folder: heads of 16, the narrowest that the kernels take."""
    folder = tmp_path_factory.mktemp("tiny-base")
    build(0, width=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def engine_of(tiny_base) -> Callable[..., LLM]:
    """An engine over the tiny model."""

    def make(model: Path = tiny_base, **options) -> LLM:
        usual = {"dtype": "fp32", "device": "cpu", "max_model_len": 256, "kv_cache_bytes": 8 << 20}
        return LLM(model, **usual | options)

    return make


@pytest.fixture(scope="session")
def by_transformers() -> Callable[..., list[list[int]]]:
    """Greedy answers of transformers' own generate, one prompt at a time."""

    def answer(folder: Path, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        answers = []
        for ids in prompts:
            out = model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False, max_new_tokens=tokens,
                min_new_tokens=tokens, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
            answers.append(out[0, len(ids) :].tolist())
        return answers

    return answer
