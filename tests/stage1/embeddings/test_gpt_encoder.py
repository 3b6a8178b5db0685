"""Each test names the bug that it catches."""

import numpy as np
import pytest
import torch

from stage1_foundations.embeddings.gpt_encoder import MAX_TOKENS, GPTEncoder
from stage1_foundations.gpt.character_tokenizer import CharacterTokenizer
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.model_config import model_config


@pytest.fixture(scope="module")
def encoder() -> GPTEncoder:
    """An untrained mini-GPT with a context of 16 characters."""
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer.train("abcdefgh ")
    config = model_config("llama", vocab_size=tokenizer.vocab_size, context=16, layers=2, heads=2, width=16)
    return GPTEncoder(GPT(config), tokenizer, "untrained")


def states_of(encoder: GPTEncoder, text: str) -> torch.Tensor:
    """What the head is given for one text by itself, (T, C)."""
    seen = []
    hook = encoder.model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        encoder.model(torch.tensor([encoder.tokenizer.encode(text)]))
    hook.remove()
    return seen[0]


def test_mean_of_the_states_whatever_the_batch(encoder):
    """Catches: padding averaged in, rows in the order of length, logits taken for states."""
    texts = ["abc", "hgfedcba", "a b c d e f"]
    expected = np.stack([states_of(encoder, text).mean(dim=0) for text in texts])
    np.testing.assert_allclose(encoder.embed(texts), expected, atol=1e-5)


def test_long_texts_are_read_in_windows(encoder):
    """Catches: everything after the context lost, or a mean of means of unequal windows."""
    text = "abcdefgh" * 5  # 40 tokens: windows of 16, 16 and 8
    states = torch.cat([states_of(encoder, text[start : start + 16]) for start in (0, 16, 32)])
    np.testing.assert_allclose(encoder.embed([text])[0], states.mean(dim=0), atol=1e-5)
    endless = "abcdefgh" * MAX_TOKENS
    np.testing.assert_allclose(encoder.embed([endless]), encoder.embed([endless[:MAX_TOKENS]]), atol=1e-6)


def test_unknown_characters_are_left_out(encoder):
    """Catches: a crash on Chinese, and NaN for a text of which nothing is left."""
    np.testing.assert_allclose(encoder.embed(["成a语b"]), encoder.embed(["ab"]), atol=1e-6)
    vectors = encoder.encode_now(["成语", ""], "query")
    assert np.isfinite(vectors).all()
