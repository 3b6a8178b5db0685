"""Each test names the bug that it catches."""

import numpy as np
import pytest

from labkit.embedding_cache import EmbeddingCache
from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import RandomEncoder, load_encoder, unit_length


def test_rows_get_length_one():
    """Catches: a dot product that is no cosine; NaN from a row of zeros, which would enter every ranking."""
    vectors = unit_length(np.array([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]]))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)  # 1e-40 is a denormal
    np.testing.assert_allclose(vectors[0], [0.6, 0.8], atol=1e-6)


def test_random_encoder_depends_on_the_text_alone():
    """Catches: vectors by position, which would make the floor of the table another one in every run."""
    encoder = RandomEncoder()
    first, again = encoder.encode(["a", "b"], "query"), encoder.encode(["b", "c", "a"], "query")
    assert np.array_equal(first[0], again[2]) and np.array_equal(first[1], again[0])
    assert abs(first[0] @ first[1]) < 0.2  # two random directions of 384: standard deviation 0.05


def test_kinds_and_strings_are_checked():
    """Catches: "document" for "passage" (no prompt, no error), and a string encoded letter by letter."""
    with pytest.raises(ValueError, match="kind is one of"):
        RandomEncoder().encode(["a"], "document")
    with pytest.raises(TypeError, match="not one string"):
        RandomEncoder().encode("a", "query")


def test_no_texts_give_no_rows(tiny):
    """Catches: a crash on an empty list."""
    assert tiny.encode([], "query").shape == (0, 64) == tiny.encode_now([], "query").shape


def test_prompt_reaches_the_model_and_the_cache(tiny):
    """Catches: prompts that are stated and never used, and a cache that mixes up queries and passages."""
    tiny.prompts = {"query": "query: ", "passage": "passage: ", "symmetric": "query: "}
    texts = ["ask1 ask2", "ask3"]
    query, passage = tiny.encode(texts, "query"), tiny.encode(texts, "passage")
    np.testing.assert_allclose(query, unit_length(tiny.embed(["query: ask1 ask2", "query: ask3"])), atol=1e-6)
    np.testing.assert_allclose(passage, unit_length(tiny.embed(["passage: ask1 ask2", "passage: ask3"])), atol=1e-6)
    assert np.abs(query - passage).max() > 1e-3
    np.testing.assert_array_equal(tiny.encode(texts, "symmetric"), query)


def test_a_text_is_encoded_once(tiny, monkeypatch):
    """Catches: a cache that is never read. Another revision of the weights is another model."""
    texts = ["ask7 say8", "say9"]
    first = tiny.encode(texts, "passage")
    monkeypatch.setattr(tiny, "embed", lambda *_: pytest.fail("encoded again"))
    np.testing.assert_array_equal(tiny.encode(texts[::-1], "passage"), first[::-1])
    assert EmbeddingCache(tiny.name, "another revision", tiny.dimensions).count(texts) == 0


def test_nan_vectors_are_refused(tiny, monkeypatch):
    """Catches: a broken model whose NaN reach an index or a table."""
    monkeypatch.setattr(tiny, "embed", lambda texts, prompt="": np.full((len(texts), 64), np.nan, np.float32))
    with pytest.raises(LabError, match="NaN or infinity for 1 of 1"):
        tiny.encode(["ask11 ask12"], "query")


@pytest.mark.parametrize(
    ("name", "message", "advice"),
    [
        ("minilmm", "no encoder is called 'minilmm'", "minilm"),
        ("zzz", "no encoder is called 'zzz'", "one of random, glove"),
        ("gpt", "no mini-GPT of your own yet", "stage1_foundations.gpt train"),
        ("./nowhere/at-all", "no encoder is called", "one of"),
        ("someone/some-model", "cannot get someone/some-model from the hub", "HF_ENDPOINT"),
    ],
)
def test_names_that_lead_nowhere(name, message, advice, offline):
    """Catches: a traceback of huggingface_hub, a folder taken for a hub id."""
    with pytest.raises(LabError, match=message) as caught:
        load_encoder(name)
    assert advice in caught.value.try_next
