"""A sentence-transformers model as an encoder: from a folder, or from the hub.

Weights are always float32: since transformers 5 a checkpoint saved in half precision is also loaded in it, and
similarities then shift in the third digit (mteb's result repository, pull request 656).
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labkit.assets import MANIFEST
from labkit.errors import LabError
from labkit.runs import digest
from stage1_foundations.embeddings.encoders import Encoder

BATCH = 16  # texts: with 32 glibc gives large blocks back to the system after each layer (rag/NOTES.md)
HISTORY = "history.json"  # what `train` writes into a folder: name, origin, fine_tuned_on
OFFLINE_ADVICE = "minilm or e5 (they need no hub), HF_ENDPOINT=... for a mirror, or a folder that holds the model"


class TransformerEncoder(Encoder):
    """A transformer with its pooling, as its folder describes them.

    Args:
        folder: a sentence-transformers model (modules.json, config.json, weights, tokenizer).
        name: for tables; by default what `train` called it, or the folder's name.
        prompts: by default those that the folder states.
        origin: the hub id of the weights; by default what `train` wrote into the folder.

    Raises:
        LabError: the folder holds no such model.
    """

    def __init__(
        self, folder: Path, name: str | None = None, prompts: dict[str, str] | None = None, origin: str | None = None
    ) -> None:
        from labkit.device import choose_device  # brings torch

        self.folder = Path(folder)
        if not (self.folder / "config.json").is_file() or not any(self.folder.glob("*.safetensors")):
            raise LabError(f"{folder} holds no sentence-transformers model", "a folder that `train` wrote, or minilm")
        history = read_json(self.folder / HISTORY, {})
        self.name = name or history.get("name") or self.folder.absolute().name
        self.prompts = prompts or folder_prompts(self.folder)
        self.revision = folder_revision(self.folder)
        self.origin = origin or history.get("origin")
        self.fine_tuned_on = tuple(history.get("fine_tuned_on", ()))
        self.device = choose_device("auto")

    @cached_property
    def dimensions(self) -> int:
        """Width of the vectors: the transformer's, unless a layer after the pooling changes it."""
        kinds = {module["type"].rsplit(".", 1)[-1] for module in read_json(self.folder / "modules.json", [])}
        pooling = read_json(self.folder / "1_Pooling" / "config.json", {})
        modes = sum(key.startswith("pooling_mode") and (value is True or isinstance(value, str))  # old and new form
                    for key, value in pooling.items())  # fmt: skip
        hidden = read_json(self.folder / "config.json", {}).get("hidden_size")
        if hidden and modes == 1 and kinds <= {"Transformer", "Pooling", "Normalize"}:
            return int(hidden)
        return int(self.model.get_embedding_dimension())

    @cached_property
    def model(self) -> Any:
        """The SentenceTransformer, in float32, loaded at its first use."""
        import torch
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # e5 has no pooler weights, and needs none
        try:
            model = SentenceTransformer(
                str(self.folder), device=str(self.device), model_kwargs={"dtype": torch.float32}, local_files_only=True
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LabError(f"{self.folder} cannot be loaded: {reason}", "a complete folder of the model") from error
        check_float32(model)
        return model.eval()

    def embed(self, texts: list[str], prompt: str = "") -> np.ndarray:
        """See `Encoder.embed`. The tokenizer cuts a text that is longer than the model's window."""
        return self.model.encode(
            texts, prompt=prompt, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True,
            normalize_embeddings=False,
        )  # fmt: skip


def check_float32(model: Any) -> None:
    """Scores are only comparable where everybody computes them in the same precision.

    Raises:
        LabError: a weight is in another precision.
    """
    found = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters()} - {"float32"}
    if found:
        raise LabError(f"the model's weights are in {', '.join(sorted(found))}", "load them in float32")


def folder_prompts(folder: Path) -> dict[str, str]:
    """The prompts that a model's folder states, by our kinds.

    The library's word for a passage is "document". A model with a prompt for both roles (E5) takes the query's for
    symmetric texts, one with a prompt for queries alone (BGE) takes none.
    """
    stated = read_json(folder / "config_sentence_transformers.json", {}).get("prompts") or {}
    query, passage = stated.get("query") or "", stated.get("passage") or stated.get("document") or ""
    return {"query": query, "passage": passage, "symmetric": stated.get("symmetric", query if passage else "")}


def folder_revision(folder: Path) -> str:
    """The SHA-256 of what the folder holds; for a packaged model, of the list of its files' sums."""
    manifest = read_json(folder / MANIFEST, {}).get("files")
    if manifest:
        return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return digest(folder)[0]


def from_hub(model_id: str) -> TransformerEncoder:
    """A model from the Hugging Face hub (HF_ENDPOINT names a mirror), with the prompts that mteb registers for it.

    Raises:
        LabError: it cannot be reached, or has no such model.
    """
    from huggingface_hub import snapshot_download

    from stage1_foundations.embeddings.model_registry import registered_prompts

    try:
        folder = Path(snapshot_download(
            model_id, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"],
            ignore_patterns=["onnx/*", "openvino/*"],
        ))  # fmt: skip
    except Exception as error:  # the hub has its own dozen of network errors
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise LabError(f"cannot get {model_id} from the hub: {reason}", OFFLINE_ADVICE) from error
    prompts = registered_prompts(model_id) or folder_prompts(folder)
    return TransformerEncoder(folder, name=model_id.split("/")[1], prompts=prompts, origin=model_id)


def read_json(path: Path, default: Any) -> Any:
    """A JSON file, or `default` where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default
