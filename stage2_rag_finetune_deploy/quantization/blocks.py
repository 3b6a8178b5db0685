"""A decoder, block by block: which linear layers it has, which share their inputs, and what those inputs are.

Quantising a model means walking through it once. The hidden states of the whole calibration text go from block to
block; only one block's inputs are in memory at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit.errors import LabError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
PART = 32  # packed words hold whole columns and rows of 32 codes


@dataclass(frozen=True)
class Group:
    """Linear layers of a block that read the same inputs."""

    names: tuple[str, ...]  # within the block
    layers: list[nn.Linear]
    before: nn.Module | None  # computes the inputs, so that a factor an input can be folded into it

    @property
    def stacked(self) -> Tensor:
        """All weights, one under the other, float32. (sum of out, in)."""
        return torch.cat([layer.weight.detach().float() for layer in self.layers])

    @property
    def heights(self) -> list[int]:
        """Rows of each layer."""
        return [layer.out_features for layer in self.layers]


def decoder_blocks(model: Any) -> list[nn.Module]:
    """The blocks of a causal language model.

    Raises:
        LabError: a family that these names and this folding were not checked for.
    """
    family = model.config.model_type
    if family not in FAMILIES:
        raise LabError(f"models of the family {family} are not supported", "one of: " + ", ".join(FAMILIES))
    return list(model.model.layers)


def block_groups(block: nn.Module) -> list[Group]:
    """The four groups of a block, in the order in which they compute."""
    attention, mlp = block.self_attn, block.mlp
    same_width = attention.v_proj.out_features == attention.o_proj.in_features  # not where heads share keys and values
    return [
        Group(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
              [attention.q_proj, attention.k_proj, attention.v_proj], block.input_layernorm),
        Group(("self_attn.o_proj",), [attention.o_proj], attention.v_proj if same_width else None),
        Group(("mlp.gate_proj", "mlp.up_proj"), [mlp.gate_proj, mlp.up_proj], block.post_attention_layernorm),
        Group(("mlp.down_proj",), [mlp.down_proj], mlp.up_proj),
    ]  # fmt: skip


def linear_layers(model: Any) -> Iterator[tuple[str, nn.Linear]]:
    """All linear layers inside the blocks with their full names. The embedding and the head stay as they are."""
    for number, block in enumerate(decoder_blocks(model)):
        for group in block_groups(block):
            for name, layer in zip(group.names, group.layers, strict=True):
                yield f"model.layers.{number}.{name}", layer


def check_shapes(model: Any) -> None:
    """Refuse layers whose sides are no multiples of 32.

    Raises:
        LabError: with the layer.
    """
    for name, layer in linear_layers(model):
        if layer.in_features % PART or layer.out_features % PART:
            shape = f"{layer.out_features} x {layer.in_features}"
            raise LabError(f"{name} is {shape}: packed words need multiples of {PART}", "another model")


class Stop(Exception):
    """Raised when the model has run far enough."""


def first_inputs(model: Any, ids: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """What the first block is called with: hidden states (B, T, C) and its other arguments.

    Args:
        ids: (B, T).
    """
    caught: dict[str, Any] = {}

    def catch(_: nn.Module, positional: tuple, named: dict[str, Any]) -> None:
        caught.update(named, hidden_states=positional[0])
        raise Stop

    hook = decoder_blocks(model)[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model.model(ids.to(model.device), use_cache=False)
    except Stop:
        pass
    finally:
        hook.remove()
    return caught.pop("hidden_states"), caught


def run_block(
    block: nn.Module, hidden: Tensor, arguments: dict[str, Any],
    on_inputs: Callable[[Group, Tensor], None] | None = None,
) -> Tensor:  # fmt: skip
    """One block's outputs (B, T, C).

    Args:
        on_inputs: is called with each group and its inputs (tokens, in) before the group computes. If it changes the
            group's weights, they are used at once: what follows sees the outputs of the quantised layers.
    """
    hooks = []
    for group in block_groups(block) if on_inputs else []:

        def call(_: nn.Module, positional: tuple, group: Group = group) -> None:
            on_inputs(group, positional[0].flatten(0, -2))

        hooks.append(group.layers[0].register_forward_pre_hook(call))
    try:
        output = block(hidden, **arguments)
    finally:
        for hook in hooks:
            hook.remove()
    return output[0] if isinstance(output, tuple) else output
