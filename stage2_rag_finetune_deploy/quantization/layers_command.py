"""`layers`: what rounding does to the outputs of single layers, on the calibration text and on text it has not seen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.progress import console, progress
from labkit.runs import start_run
from stage2_rag_finetune_deploy.quantization import methods
from stage2_rag_finetune_deploy.quantization.awq import search_clips, search_scales
from stage2_rag_finetune_deploy.quantization.blocks import Group, block_groups, decoder_blocks, first_inputs, run_block
from stage2_rag_finetune_deploy.quantization.calibration import WIKITEXT, calibration_ids
from stage2_rag_finetune_deploy.quantization.gptq import gptq
from stage2_rag_finetune_deploy.quantization.grid import Scheme, round_to_nearest, rounded
from stage2_rag_finetune_deploy.quantization.hessian import InputStatistics, output_error
from stage2_rag_finetune_deploy.quantization.methods import Settings
from stage2_rag_finetune_deploy.quantization.plots import draw_hessian, draw_layer_errors
from stage2_rag_finetune_deploy.quantization.source_model import load_source, source_folder

TEXTS = ("calibration", "held-out")
Seen = dict[str, InputStatistics]  # by the name of a group's first layer


@dataclass(frozen=True)
class LayersConfig:
    """Options of `layers`."""

    model: Path | None = option(None, "folder; none is the newest fine-tuned model, or SmolLM2-135M-Instruct")
    blocks: str = option("0,9,19,29", "numbers of blocks, with commas")
    bits: int = option(3, "of a weight: 2, 3, 4 or 8")
    group: int = option(64, "inputs that share a scale; -1 is the whole row")
    samples: int = option(32, "pieces of each of the two texts")
    length: int = option(256, "tokens of a piece")
    picture: str = option("mlp.up_proj", "the layer of the first block named whose Hessian is drawn")
    seed: int = option(1, "of the draw of the pieces")


PRESETS = {
    "smoke": LayersConfig(blocks="0,1", samples=4, length=32),
    "cpu": LayersConfig(samples=16, blocks="0,14,29"),
    "study": LayersConfig(),
}


def run_layers(config: LayersConfig, preset: str) -> None:
    """The table of the layers and two figures, with a report."""
    require_at_least(config, 1, "samples", "length")
    settings = Settings(Scheme(config.bits, config.group))
    model, tokenizer = load_source(source_folder(config.model))
    methods.check(model, "gptq", settings)
    chosen = parse_blocks(config.blocks, len(decoder_blocks(model)))
    texts = {text: calibration_ids(tokenizer, WIKITEXT, config.samples, config.length, config.seed, split)
             for text, split in zip(TEXTS, ("train", "valid"), strict=True)}  # fmt: skip
    with start_run("stage2", "quantization", "layers", config, preset, config.seed) as run:
        seen = {text: statistics(model, ids, chosen, text) for text, ids in texts.items()}
        names, errors, differences = [], {method: {text: [] for text in TEXTS} for method in ("RTN", "GPTQ", "AWQ")}, {}
        for number in progress(chosen, description="blocks"):
            for group in block_groups(decoder_blocks(model)[number]):
                pair = [seen[text][number][group.names[0]] for text in TEXTS]
                approximations = group_approximations(group, pair[0], settings)
                for place, name in enumerate(group.names):
                    names.append(f"{number}.{name.rpartition('.')[2]}")
                    weight = group.layers[place].weight.float()
                    for method, stacked in approximations.items():
                        values = stacked.split(group.heights)[place]
                        for text, statistic in zip(TEXTS, pair, strict=True):
                            errors[method][text].append(output_error(weight, values, statistic.hessian))
                        if number == chosen[0] and name == config.picture:
                            differences[method] = values - weight
                            picture = pair[0].hessian
        show(names, errors)
        for method in ("GPTQ", "AWQ"):
            for text in TEXTS:
                worst = max(a / b for a, b in zip(errors[method][text], errors["RTN"][text], strict=True))
                band = (None, 1.0) if method == "GPTQ" and preset != "smoke" else None
                run.metric(f"largest {method} / RTN {text}", worst, band=band, meaning=f"of {len(names)} layers")
        run.figure(draw_layer_errors(errors, names, run.dir / "layer_errors.png"), "error of each layer's outputs")
        if differences:
            run.figure(draw_hessian(picture, differences, f"{chosen[0]}.{config.picture}", run.dir / "hessian.png"),
                       "the Hessian of a layer, and where the errors lie")  # fmt: skip
        run.learnt("GPTQ makes larger errors in the weights than rounding does, and smaller ones in the outputs")
        run.next("python -m stage2_rag_finetune_deploy.quantization compare")


def parse_blocks(text: str, count: int) -> list[int]:
    """ "0,14" -> [0, 14]."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() and int(word) < count for word in words):
        raise LabError(f"--blocks {text!r} is no list of blocks from 0 to {count - 1}", f"--blocks 0,{count - 1}")
    return sorted({int(word) for word in words})


@torch.inference_mode()
def statistics(model: Any, ids: Tensor, chosen: list[int], text: str) -> dict[int, Seen]:
    """What the inputs of the chosen blocks' layers are, in the model as it is."""
    hidden, arguments = first_inputs(model, ids)
    found: dict[int, Seen] = {}
    for number, block in enumerate(progress(decoder_blocks(model)[: chosen[-1] + 1], description=text)):
        seen: Seen = {}

        def on_inputs(group: Group, inputs: Tensor, seen: Seen = seen) -> None:
            seen[group.names[0]] = InputStatistics(inputs.shape[1])
            seen[group.names[0]].add(inputs)

        hidden = run_block(block, hidden, arguments, on_inputs if number in chosen else None)
        if number in chosen:
            found[number] = seen
    return found


@torch.inference_mode()
def group_approximations(group: Group, statistic: InputStatistics, settings: Settings) -> dict[str, Tensor]:
    """The stacked weights of a group by each method, from the same statistics. AWQ's factors are divided out again."""
    weight, hessian, scheme = group.stacked, statistic.hessian, settings.scheme
    scales = torch.ones(weight.shape[1])
    if group.before is not None:
        scales = search_scales(weight, statistic, scheme, settings.ratios)
    clips = search_clips(weight * scales, hessian / torch.outer(scales, scales), scheme)
    return {
        "RTN": round_to_nearest(weight, scheme).weights(),
        "GPTQ": gptq(weight, hessian, scheme, settings.order, settings.damp, settings.span).weights(),
        "AWQ": rounded(weight * scales, scheme, clips) / scales,
    }


def show(names: list[str], errors: dict[str, dict[str, list[float]]]) -> None:
    """Each layer's errors in per cent, on the calibration text and on unseen text."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for method in errors:
        for text in ("", " unseen"):
            table.add_column(f"{method}{text}", justify="right", no_wrap=True)
    for place, name in enumerate(names):
        cells = [f"{100 * both[text][place]:.2f} %" for both in errors.values() for text in TEXTS]
        table.add_row(name, *cells)
    console.print(table)
