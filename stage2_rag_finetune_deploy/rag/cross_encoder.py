"""A cross-encoder: query and passage in one input, every layer compares them (Nogueira and Cho 2019).

    reranker = CrossEncoderReranker(folder)        # what `train-reranker` wrote
    reranker.rerank("who discovered the bees' dance?", hits, k=5)

It reads 10 passages a query, not 2,000: a pass of six layers over every pair costs about as much as encoding those
passages anew. In exchange it sees whether the answer stands beside the words, which no sum of similarities does.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from labkit.device import choose_device, choose_dtype
from labkit.errors import LabError
from labkit.runs import digest, latest_run
from stage1_foundations.embeddings.transformer_encoder import read_json
from stage2_rag_finetune_deploy.rag.pair_reranker import Pair, PairReranker, revision_of

DEPTH = 10
SETTINGS = "reranker.json"  # beside the weights: what the training found out about using them
LONGEST = 192  # tokens of query and passage together
BATCH = 16
TRAIN = "python -m stage2_rag_finetune_deploy.rag train-reranker"


class CrossEncoderReranker(PairReranker):
    """A folder of sentence-transformers' CrossEncoder.

    Args:
        folder: of the model.
        depth: see `Reranker`.
        weight: of its score; by default what the training found best on held-out questions.

    Raises:
        LabError: the folder holds no model.
    """

    name = "cross-encoder"

    def __init__(self, folder: Path, depth: int = DEPTH, weight: float | None = None) -> None:
        self.folder, self.depth = Path(folder), depth
        if not (self.folder / "config.json").is_file() or not any(self.folder.glob("*.safetensors")):
            raise LabError(f"{folder} holds no cross-encoder", TRAIN)
        known = read_json(self.folder / SETTINGS, {})
        self.weight = float(known.get("weight", 0.5)) if weight is None else weight
        self.device = choose_device("auto")
        self.dtype = choose_dtype("auto", self.device)
        self.revision = revision_of(digest(self.folder)[0], LONGEST, self.dtype)

    @classmethod
    def of_latest_run(cls, **kwargs: Any) -> "CrossEncoderReranker":
        """The one that was trained last. Raises LabError when none was."""
        run = latest_run("stage2", "rag", "train-reranker")
        if run is None:
            raise LabError("no cross-encoder has been trained yet", TRAIN)
        return cls(run / "model", **kwargs)

    @cached_property
    def model(self) -> Any:
        """The library's CrossEncoder, loaded at its first use."""
        from sentence_transformers import CrossEncoder
        from transformers.utils import logging

        logging.disable_progress_bar()
        return CrossEncoder(
            str(self.folder), device=str(self.device), max_length=LONGEST, local_files_only=True,
            model_kwargs={"dtype": self.dtype, "attn_implementation": "eager"},
        )  # fmt: skip

    def score_pairs(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The model's logit for each pair, (N,)."""
        import torch

        scores = self.model.predict(
            list(pairs), batch_size=BATCH, activation_fn=torch.nn.Identity(), convert_to_tensor=True,
            show_progress_bar=False,
        )  # fmt: skip
        return scores.float().cpu().numpy().reshape(-1)
