"""E5 in NumPy beside the library that it replaces. Each test names the bug that it catches."""

import subprocess
import sys

import numpy as np
import pytest

from stage1_foundations.embeddings.encoders import load_encoder
from stage3_agents_llmops.agent import text_encoder
from stage3_agents_llmops.agent.text_encoder import load_e5, load_e5_tokens
from stage3_agents_llmops.agent.understanding.classifier import load_classifier

pytestmark = pytest.mark.assets
TEXTS = [
    "cancel KM204817, I ordered it twice",
    "我想退掉上周买的台灯，它坏了",
    "where's my parcel?? 😀 — ﬁnally…",
    "",
    "a window of 512 word pieces is full before this ends " * 60,
]
# float32 sums in another order: twelve layers leave differences of about 1e-7 in vectors of length 1; a forgotten
# bias, a GELU by tanh or an epsilon of 1e-5 are 1e-4 and more
CLOSE = 2e-6


@pytest.fixture(scope="module")
def reference():
    return load_encoder("e5")


def test_vectors_are_those_of_the_library(reference):
    """Catches: a layer that is almost right: a wrong GELU, order of norms, prompt, or end of a long text."""
    ours, theirs = (encoder.encode_now(TEXTS, "symmetric") for encoder in (load_e5(), reference))
    assert np.abs(ours - theirs).max() < CLOSE
    assert np.abs(ours[0] - theirs[1]).max() > 1000 * CLOSE, "the control must fail"
    assert (load_e5().revision, load_e5().dimensions) == (reference.revision, reference.dimensions)


def test_a_batch_is_its_texts_one_by_one():
    """Catches: texts of one batch that look at each other, or come back in another order."""
    encoder = load_e5()
    texts = [f"{word} order {number}" for number in range(40) for word in ("my", "where is my")]
    together = encoder.encode_now(texts, "query")
    assert np.abs(together - np.concatenate([encoder.encode_now([text], "query") for text in texts])).max() < CLOSE
    assert np.abs(together[0] - together[1]).max() > 1000 * CLOSE


def test_tokens_are_those_of_the_library(reference, tmp_path):
    """Catches: token vectors of another layer, and stretches that are lost or begin elsewhere."""
    from stage2_rag_finetune_deploy.rag.token_vectors import TokenEncoder

    theirs = TokenEncoder(reference.folder, "e5", reference.prompts, cache=tmp_path)
    ours = load_e5_tokens()
    for text in TEXTS[:3] + TEXTS[4:]:
        one, other = ours.query(text), theirs.query(text)
        assert one.ids.tolist() == other.ids.tolist()
        cosine = (one.vectors * other.vectors).sum(axis=1) / one.lengths / other.lengths
        assert cosine.min() > 0.99  # theirs may be computed in bfloat16; both are kept in 8 bits


def test_gelu_is_exact_to_float32():
    """Catches: GELU by tanh, off by 5e-4, a sign lost below zero, and a result that overwrites what it was given."""
    from scipy.special import erf

    numbers = np.concatenate([np.linspace(-12, 12, 4801), [0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0]]).astype(np.float32)
    kept = numbers.copy()
    exact = numbers.astype(np.float64) / 2 * (1 + erf(numbers.astype(np.float64) / np.sqrt(2)))
    ours = text_encoder.gelu(numbers)
    assert ours.dtype == np.float32 and np.array_equal(numbers, kept)
    assert np.abs(ours - exact).max() < 2e-6 and np.abs(ours - exact)[np.abs(numbers) < 4].max() < 7e-7
    by_tanh = numbers / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (numbers + 0.044715 * numbers**3)))
    assert np.abs(by_tanh - exact).max() > 1e-4, "the control must fail"


def test_a_text_is_read_once_in_a_while(monkeypatch):
    """Catches: a question that is read for its intent and again for the search, and a memory that only grows."""
    encoder, passes = load_e5(), []
    forward = encoder.bert.forward
    monkeypatch.setattr(encoder.bert, "forward", lambda ids: passes.append(ids.shape) or forward(ids))
    monkeypatch.setattr(text_encoder, "REMEMBERED", 3)
    texts = ["where is it?", "where is it now, please?", "where is it?"]
    first = encoder.embed(texts, "query: ")
    assert len(passes) == 2 and np.array_equal(first[0], first[2])
    assert np.array_equal(encoder.embed(texts, "query: "), first) and len(passes) == 2
    load_e5_tokens()._read(texts[:1], "query: ")
    assert len(passes) == 2, "the search asks for what the classifier has read"
    encoder.embed(["one", "two more", "and three more", "word " * 100], "query: ")
    assert len(encoder.bert._memory) == 3 and all(len(key) <= text_encoder.SHORT for key in encoder.bert._memory)
    assert np.allclose(encoder.embed(texts, "query: "), first, atol=1e-6) and len(passes) > 6


def test_half_a_character_is_read():
    """Catches: a message from a broken client that ends the run with an exception of the tokenizer."""
    assert np.isfinite(load_e5().encode_now(["hello \ud83d"], "symmetric")).all()


def test_a_customer_does_not_wait_for_torch_or_scikit_learn():
    """Catches: an import that makes the service ten seconds and a gigabyte heavier again, or three seconds."""
    load_classifier()  # so that it is trained and kept: only who finds none has to wait for scikit-learn
    code = (
        "import sys; from stage3_agents_llmops.agent.understanding.classifier import load_classifier; "
        "load_classifier(); heavy = ('torch', 'transformers', 'mteb', 'sklearn', 'pandas'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.stdout.strip() == "[]", answer.stderr
