"""RTN, GPTQ, AWQ and NF4 on a whole model: the method is one word, all else is the same.

Each takes a model and leaves it with the quantised values in its own weights ("simulated": same shapes, same dtype,
only the values are on the grid), so that quality can be measured before anything is packed. What it returns is what
packing.py and checkpoint.py write.

    rtn     no data
    nf4     no data; the codes of the lab finetune
    gptq    block by block, each layer on the outputs of the quantised ones before it
    awq     block by block, on the inputs of the model as it was
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labkit.errors import LabError
from labkit.progress import progress
from stage2_rag_finetune_deploy.finetune.nf4 import BLOCK, NF4, dequantise_nf4, quantise_nf4
from stage2_rag_finetune_deploy.quantization import awq
from stage2_rag_finetune_deploy.quantization.blocks import (
    Group,
    block_groups,
    check_shapes,
    decoder_blocks,
    first_inputs,
    linear_layers,
    run_block,
)
from stage2_rag_finetune_deploy.quantization.gptq import gptq
from stage2_rag_finetune_deploy.quantization.grid import Quantised, Scheme, check_groups, round_to_nearest
from stage2_rag_finetune_deploy.quantization.hessian import DAMP, InputStatistics

METHODS = ("rtn", "gptq", "awq", "nf4")
WITH_DATA = ("gptq", "awq")
Layers = dict[str, Quantised | NF4]


@dataclass(frozen=True)
class Settings:
    """What a method may be told. `order`, `damp` and `span` are GPTQ's, `ratios` is AWQ's."""

    scheme: Scheme = Scheme()
    order: str = "group"
    damp: float = DAMP
    ratios: int = awq.RATIOS
    span: str = "search"


def check(model: Any, method: str, settings: Settings) -> None:
    """Refuse what cannot be done, before any work.

    Raises:
        LabError: an unknown method, a shape that does not pack, groups that do not divide, NF4 with other settings.
    """
    if method not in METHODS:
        raise LabError(f"unknown method {method}", "--method " + ", ".join(METHODS))
    check_shapes(model)
    if method == "nf4":
        if settings.scheme.bits != 4 or settings.scheme.group != BLOCK:
            raise LabError(f"NF4 has 4 bits and blocks of {BLOCK}", f"--method nf4 --bits 4 --group {BLOCK}")
        return
    check_groups(settings.scheme, (layer.in_features for _, layer in linear_layers(model)))


@torch.inference_mode()
def quantise_model(model: Any, method: str, settings: Settings = Settings(), ids: Tensor | None = None) -> Layers:
    """Quantise the linear layers of a model's blocks, in place.

    Args:
        model: a causal language model of transformers, in eval mode.
        method: one of METHODS.
        ids: the calibration text, for GPTQ and AWQ. (sequences, length).

    Returns:
        By the layers' full names.

    Raises:
        LabError: see `check`; no calibration text for a method that wants it.
    """
    check(model, method, settings)
    if method not in WITH_DATA:
        return dict(progress(each_layer(model, method, settings), description=method))
    if ids is None:
        raise LabError(f"{method} needs a calibration text", "--calibration wikitext-2")
    quantise_block = gptq_block if method == "gptq" else awq_block
    hidden, arguments = first_inputs(model, ids)
    found: Layers = {}
    for number, block in enumerate(progress(decoder_blocks(model), description=method)):
        made, hidden = quantise_block(block, hidden, arguments, settings)
        found |= {f"model.layers.{number}.{name}": layer for name, layer in made.items()}
    return found


def each_layer(model: Any, method: str, settings: Settings) -> Iterator[tuple[str, Quantised | NF4]]:
    """RTN and NF4, a layer at a time."""
    for name, layer in linear_layers(model):
        if method == "nf4":
            stored = quantise_nf4(layer.weight)
            layer.weight.copy_(dequantise_nf4(stored))
        else:
            stored = round_to_nearest(layer.weight, settings.scheme)
            layer.weight.copy_(stored.weights())
        yield name, stored


def gptq_block(block: Any, hidden: Tensor, arguments: dict[str, Any], settings: Settings) -> tuple[Layers, Tensor]:
    """One block by GPTQ in one forward pass: each group is quantised when its inputs arrive, then goes on.

    Returns:
        the layers by their names within the block, and the outputs of the quantised block (B, T, C).
    """
    found: Layers = {}

    def on_inputs(group: Group, inputs: Tensor) -> None:
        statistics = InputStatistics(inputs.shape[1], inputs.device)
        statistics.add(inputs)
        whole = gptq(group.stacked, statistics.hessian, settings.scheme, settings.order, settings.damp, settings.span)
        found.update(take_apart(group, whole))

    return found, run_block(block, hidden, arguments, on_inputs)


def awq_block(block: Any, hidden: Tensor, arguments: dict[str, Any], settings: Settings) -> tuple[Layers, Tensor]:
    """One block by AWQ: run it as it is, take note of all inputs, then fold, clip and round.

    Returns:
        the layers by their names within the block, and the outputs of the block as it was (B, T, C).
    """
    seen: dict[str, InputStatistics] = {}

    def on_inputs(group: Group, inputs: Tensor) -> None:
        seen[group.names[0]] = InputStatistics(inputs.shape[1], inputs.device)
        seen[group.names[0]].add(inputs)

    output = run_block(block, hidden, arguments, on_inputs)
    groups, hessians = block_groups(block), {}
    for group in groups:  # all factors first: the last group's go into rows of the one before
        statistics = seen[group.names[0]]
        hessians[group.names[0]] = statistics.hessian
        if group.before is not None:
            scales = awq.search_scales(group.stacked, statistics, settings.scheme, settings.ratios)
            scales = awq.fold(scales, group.before, group.layers)
            hessians[group.names[0]] /= torch.outer(scales, scales)  # of the inputs as they are now
    found: Layers = {}
    for group in groups:
        clips = awq.search_clips(group.stacked, hessians[group.names[0]], settings.scheme)
        parts = list(clips.split(group.heights))
        if group.names[0] == "self_attn.q_proj":
            parts[0].fill_(1), parts[1].fill_(1)
        found |= take_apart(group, round_to_nearest(group.stacked, settings.scheme, torch.cat(parts)))
    return found, output


def take_apart(group: Group, whole: Quantised) -> Layers:
    """What was quantised as one stack, layer by layer; the layers get the values."""
    found: Layers = {}
    pieces = zip(*(part.split(group.heights) for part in (whole.codes, whole.scales, whole.zeros)), strict=True)
    for name, layer, (codes, scales, zeros) in zip(group.names, group.layers, pieces, strict=True):
        group_of = whole.group_of.clone()  # a file keeps no tensor for two layers
        found[name] = Quantised(codes, scales, zeros, group_of, whole.bits)
        layer.weight.copy_(found[name].weights())
    return found


def mean_bits(layers: Layers, settings: Settings) -> float:
    """Bits a quantised weight, with its share of scales and zeros."""
    bits: Sequence[float] = [
        8 * each.nbytes if isinstance(each, NF4)
        else each.codes.numel() * settings.scheme.bits_a_weight(each.codes.shape[1])
        for each in layers.values()
    ]  # fmt: skip
    weights = sum(each.shape.numel() if isinstance(each, NF4) else each.codes.numel() for each in layers.values())
    return sum(bits) / weights
