"""Each test names the bug that it catches."""

import shutil

import numpy as np
import pytest
import torch

from labkit.errors import LabError
from stage1_foundations.embeddings.encoders import load_encoder
from stage1_foundations.embeddings.fine_tuning import save_model
from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder, check_float32, folder_prompts


def test_equals_sentence_transformers(tiny, tiny_folder):
    """Catches: rows in another order, another pooling, vectors of the wrong precision."""
    from sentence_transformers import SentenceTransformer

    texts = ["ask1 ask2 ask3", "say4", "say5 say6 ask7 ask8"]
    reference = SentenceTransformer(str(tiny_folder), device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(tiny.encode_now(texts, "query"), reference, atol=1e-6)


def test_weights_are_float32_whatever_the_folder_holds(tiny, tmp_path):
    """Catches: scores in half precision, which transformers loads where the file holds it."""
    from safetensors.torch import load_file

    before = tiny.encode_now(["ask1 say2"], "query")
    save_model(tiny, tmp_path / "saved", "nothing")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    assert {weight.dtype for weight in stored.values() if weight.is_floating_point()} == {torch.float16}
    loaded = TransformerEncoder(tmp_path / "saved")
    check_float32(loaded.model)
    np.testing.assert_allclose(loaded.encode_now(["ask1 say2"], "query"), before, atol=2e-3)  # half has 11 bits
    with pytest.raises(LabError, match="weights are in float16"):
        check_float32(loaded.model.half())


def test_saved_model_keeps_its_prompts_and_its_history(tiny, tmp_path):
    """Catches: a fine-tuned E5 that is evaluated without its prompts, or on what it was trained on without a mark."""
    tiny.prompts = {"query": "query: ", "passage": "passage: ", "symmetric": "query: "}
    save_model(tiny, tmp_path / "saved", "idioms")
    loaded = load_encoder(str(tmp_path / "saved"))
    assert loaded.prompts == tiny.prompts
    assert (loaded.name, loaded.fine_tuned_on, loaded.dimensions) == ("tiny+idioms", ("idioms",), 64)
    assert loaded.revision != tiny.revision


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"query": "query: ", "document": "passage: "}, ("query: ", "passage: ", "query: ")),
        ({"query": "Represent this: "}, ("Represent this: ", "", "")),
        ({}, ("", "", "")),
    ],
)
def test_prompts_that_a_folder_states(tmp_path, stated, expected):
    """Catches: E5's prompt left off symmetric texts, BGE's put on passages."""
    import json

    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": stated}))
    assert tuple(folder_prompts(tmp_path).values()) == expected


def test_dimensions_are_known_without_loading(tiny_folder):
    """Catches: weights read for a table that the cache could have filled."""
    encoder = TransformerEncoder(tiny_folder)
    assert encoder.dimensions == 64 and "model" not in vars(encoder)


def test_folders_that_hold_no_model(tmp_path, tiny_folder):
    """Catches: a traceback for an empty folder, or for weights that were cut off."""
    with pytest.raises(LabError, match="holds no sentence-transformers model"):
        TransformerEncoder(tmp_path)
    cut = tmp_path / "cut"
    shutil.copytree(tiny_folder, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LabError, match="cannot be loaded"):
        TransformerEncoder(cut).encode(["ask1"], "query")
