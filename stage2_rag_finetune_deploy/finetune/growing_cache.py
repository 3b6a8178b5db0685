"""Keys and values with room behind them, so that a new token does not copy what is kept.

transformers' `DynamicLayer` puts the new key after the old ones with `torch.cat`: at every token and in every layer all
that is kept is written once more. Here a block of `ROOM` positions is taken at a time, as a vector of C++ grows, and a
new token is written where there is room.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 32  # positions


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, (B, G, S, D): views into blocks that may be longer than S. For inference only."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = self.blocks = (layer.keys, layer.values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write T new positions behind those that are kept; returns all, (B, G, S + T, D)."""
        kept = zip((self.keys, self.values), self.blocks, (key_states, value_states), strict=True)
        self.blocks = tuple(with_room(old, block, new.shape[-2]) for old, block, new in kept)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for block, new in zip(self.blocks, (key_states, value_states), strict=True):
            block[..., start:end, :] = new
        self.keys, self.values = (block[..., :end, :] for block in self.blocks)
        return self.keys, self.values


def with_room(kept: Tensor, block: Tensor, new: int) -> Tensor:
    """A block that begins with `kept` and has room for `new` positions: `block`, where it is that, or a longer copy.

    It is not where rows were taken out of the batch or repeated: then `kept` lies somewhere else.
    """
    length = kept.shape[-2]
    if kept.data_ptr() == block.data_ptr() and length + new <= block.shape[-2]:
        return block
    longer = kept.new_empty(*kept.shape[:-2], length + new + ROOM, kept.shape[-1])
    longer[..., :length, :] = kept
    return longer


def give_room(cache: DynamicCache) -> None:
    """Let the layers of a filled cache grow in blocks from here on; layers that keep a window only stay as they are."""
    cache.layers = [GrowingLayer(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
