"""Whole and broken checkpoint folders. Each test names the bug that it catches."""

import json
import shutil
from pathlib import Path

import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_adapter, check_checkpoint


@pytest.fixture
def folder(tiny_base, tmp_path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        check_checkpoint(folder)
    assert caught.value.try_next


def test_a_whole_one(folder):
    """Catches: a good folder refused."""
    assert check_checkpoint(folder)["model_type"] == "llama"


@pytest.mark.parametrize(
    ("name", "words"),
    [("config.json", "has no config.json"), ("tokenizer.json", "has no tokenizer"),
     ("model.safetensors", "has no weights")],
)  # fmt: skip
def test_incomplete(folder, name, words):
    """Catches: vLLM's page of traceback after twenty seconds instead of one line at once."""
    (folder / name).unlink()
    refused(folder, words)


def test_truncated(folder):
    """Catches: a file that lost its end taken for whole because its beginning is."""
    weights = folder / "model.safetensors"
    whole = weights.stat().st_size
    promise = f"truncated: {whole - 1:,} bytes, its header promises {whole:,}"
    for size, words in ((whole - 1, promise), (100, "only the beginning"), (3, "only the"), (0, "only the")):
        with open(weights, "rb+") as file:
            file.truncate(size)
        refused(folder, words)


def test_too_long_or_something_else(folder):
    """Catches: two files in one, a zip or an HTML page called model.safetensors."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"more")
    refused(folder, "too long")
    weights.write_bytes(b"<html>not found</html>" * 100)
    refused(folder, "no safetensors file")


def test_a_shard_that_is_missing(folder):
    """Catches: an interrupted download of one of several files."""
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    refused(folder, "model-00002-of-00002.safetensors is missing, 1 of 2 files")


def test_settings_that_are_no_json(folder):
    """Catches: a half-written config.json."""
    (folder / "config.json").write_text('{"model_type": ', encoding="utf-8")
    refused(folder, "config.json is not JSON")


def test_no_folder(tmp_path):
    """Catches: a hub name looked up on the network because the folder was mistyped."""
    refused(tmp_path / "gone", "there is no model folder")


def test_adapters(folder, tmp_path):
    """Catches: a merged model given as an adapter; an adapter without weights."""
    with pytest.raises(LabError, match=r"has no adapter_config\.json"):
        check_adapter(folder)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 8}', encoding="utf-8")
    with pytest.raises(LabError, match=r"adapter_model\.safetensors is missing"):
        check_adapter(adapter)
    shutil.copy(folder / "model.safetensors", adapter / "adapter_model.safetensors")
    assert check_adapter(adapter) == {"r": 8}
