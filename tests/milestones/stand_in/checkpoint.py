"""A hand-in's stage1_foundations/gpt/checkpoint.py for the grader's tests: a trigram table as a model.

Logits depend on the last two characters alone, so everything about it can be computed by hand. `behaviour` in
the checkpoint makes it misbehave in one way.
"""

import os
import time
from types import SimpleNamespace

import torch


class TrigramTable(torch.nn.Module):
    """ids (B, T) -> logits (B, T, V): a row of the table for the last two ids."""

    def __init__(self, table: torch.Tensor, context: int, behaviour: str) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table)  # (V, V, V)
        self.config = SimpleNamespace(context=context, vocab_size=table.shape[0])
        self.behaviour = behaviour
        if behaviour.endswith("cache"):
            self.new_cache = lambda batch: SimpleNamespace(last=None)

    def forward(self, ids: torch.Tensor, cache: SimpleNamespace | None = None) -> torch.Tensor:
        misbehave(self.behaviour)
        before = torch.cat((torch.zeros_like(ids[:, :1]), ids[:, :-1]), dim=1)
        if cache is not None:
            if cache.last is not None and self.behaviour != "forgetful cache":
                before[:, :1] = cache.last
            cache.last = ids[:, -1:]
        logits = self.table[before, ids]
        if self.behaviour == "peeks" and ids.shape[1] > 1:  # the answer is in its input, one place further on
            logits = logits.clone()
            logits[:, :-1].scatter_(2, ids[:, 1:, None], 20.0)
        if self.behaviour == "nan":
            logits = logits / 0.0 * 0.0
        return logits[:, :, :-1] if self.behaviour == "small vocabulary" else logits


def misbehave(behaviour: str) -> None:
    """What a broken or hostile hand-in may do while it is asked."""
    if behaviour == "hangs":
        time.sleep(600)
    if behaviour == "raises":
        raise IndexError("index 64 is out of bounds")
    if behaviour == "exits":
        print("bye")
        os._exit(0)
    if behaviour == "prints":
        print("step 1\n" * 1000)


class Characters:
    """One id a character."""

    def __init__(self, characters: str, behaviour: str) -> None:
        self.characters, self.behaviour = characters, behaviour
        self.id_of = {character: i for i, character in enumerate(characters)}

    def encode(self, text: str) -> list[int]:
        ids = [self.id_of[character] for character in text]
        return ids[::2] if self.behaviour == "loses text" and len(ids) > 1 else ids

    def decode(self, ids: list[int]) -> str:
        return "".join(self.characters[i] for i in ids)


def load_model(path: str, device: str = "cpu") -> tuple[TrigramTable, Characters]:
    state = torch.load(path, map_location=device, weights_only=True)
    config, behaviour = state["model_config"], state["model_config"]["behaviour"]
    model = TrigramTable(state["model"]["table"], config["context"], behaviour)
    return model.eval(), Characters(state["tokenizer"]["characters"], behaviour)
