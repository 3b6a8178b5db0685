"""The learner's own mini-GPT as an encoder: the mean of its hidden states.

A row to be beaten. The model reads characters of Shakespeare, was trained to guess the next one, and was never told
which texts mean the same: what its states hold is spelling, not meaning.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from labkit.device import choose_device
from labkit.errors import LabError
from labkit.files import sha256_file
from labkit.runs import latest_run
from stage1_foundations.embeddings.encoders import Encoder
from stage1_foundations.gpt.character_tokenizer import CharacterTokenizer
from stage1_foundations.gpt.checkpoint import TRAIN_AGAIN, load_model
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.tokenizer import Tokenizer

MAX_TOKENS = 128  # read of every text, in windows of the model's context
BATCH = 32  # windows


class GPTEncoder(Encoder):
    """The mean over a text's tokens of the state that the head would read.

    Args:
        model: a trained mini-GPT.
        tokenizer: its tokenizer; characters that it does not know are left out.
        revision: the SHA-256 of the checkpoint.
    """

    name = "gpt"

    def __init__(self, model: GPT, tokenizer: Tokenizer, revision: str) -> None:
        self.device = choose_device("auto")
        self.model, self.tokenizer, self.revision = model.to(self.device).float().eval(), tokenizer, revision
        self.dimensions = model.config.width
        known = set(tokenizer.characters) if isinstance(tokenizer, CharacterTokenizer) else None
        self._known = known  # None: a BPE tokenizer can read anything

    @classmethod
    def of_latest_run(cls) -> "GPTEncoder":
        """The model of the newest finished `python -m stage1_foundations.gpt train`.

        Raises:
            LabError: there is none yet, or its checkpoint cannot be read.
        """
        folder = latest_run("stage1", "gpt", "train")
        if folder is None or not (folder / "checkpoint.pt").is_file():
            raise LabError("there is no mini-GPT of your own yet", TRAIN_AGAIN)
        return cls.from_checkpoint(folder / "checkpoint.pt")

    @classmethod
    def from_checkpoint(cls, path: Path) -> "GPTEncoder":
        """The model of a checkpoint file."""
        model, tokenizer = load_model(path)
        return cls(model, tokenizer, f"{sha256_file(path)}-{MAX_TOKENS}")

    def embed(self, texts: list[str], prompt: str = "") -> np.ndarray:
        """See `Encoder.embed`."""
        windows, owner, context = [], [], self.model.config.context
        for row, text in enumerate(texts):
            ids = self._ids(prompt + text)
            pieces = [ids[start : start + context] for start in range(0, len(ids), context)]
            windows += pieces
            owner += [row] * len(pieces)
        sums = np.zeros((len(texts), self.dimensions), np.float64)
        counts = np.zeros((len(texts), 1))
        order = sorted(range(len(windows)), key=lambda index: -len(windows[index]))
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            for index, total in zip(part, self._state_sums([windows[index] for index in part]), strict=True):
                sums[owner[index]] += total
                counts[owner[index]] += len(windows[index])
        return (sums / np.maximum(counts, 1)).astype(np.float32)

    def _ids(self, text: str) -> list[int]:
        """At most MAX_TOKENS ids."""
        text = text[: 8 * MAX_TOKENS]  # a token has seldom more than 8 characters
        if self._known is not None:
            text = "".join(character for character in text if character in self._known)
        return self.tokenizer.encode(text)[:MAX_TOKENS]

    @torch.inference_mode()
    def _state_sums(self, windows: list[list[int]]) -> np.ndarray:
        """The sum of the states of each window's tokens, (B, C). A causal model never sees padding on its right."""
        longest = max(len(window) for window in windows)
        ids = torch.tensor([window + [0] * (longest - len(window)) for window in windows], device=self.device)
        lengths = torch.tensor([len(window) for window in windows], device=self.device)
        mask = torch.arange(longest, device=self.device) < lengths[:, None]  # (B, T)
        states = self._hidden_states(ids)  # (B, T, C)
        return (states * mask[..., None]).sum(dim=1).cpu().double().numpy()

    def _hidden_states(self, ids: Tensor) -> Tensor:
        """What the head is given: (B, T) -> (B, T, C)."""
        seen: list[Tensor] = []
        hook = self.model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model(ids)
        finally:
            hook.remove()
        return seen[0].float()
