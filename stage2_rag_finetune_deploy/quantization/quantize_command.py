"""`quantize`: one model, one method, one checkpoint; the method is a flag, so the comparison cannot drift."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from labkit.cli import option, require_at_least
from labkit.files import write_json
from labkit.progress import console
from labkit.runs import Run, shown, start_run
from labkit.timing import human_seconds, human_size
from stage2_rag_finetune_deploy.quantization import methods
from stage2_rag_finetune_deploy.quantization.calibration import WIKITEXT, calibration_ids
from stage2_rag_finetune_deploy.quantization.checkpoint import bytes_on_disk
from stage2_rag_finetune_deploy.quantization.gptq import ORDERS, SPANS_OF
from stage2_rag_finetune_deploy.quantization.grid import Scheme
from stage2_rag_finetune_deploy.quantization.libraries.interface import MODULES, Task, quantiser
from stage2_rag_finetune_deploy.quantization.methods import METHODS, WITH_DATA, Settings
from stage2_rag_finetune_deploy.quantization.perplexity import block_losses, perplexity, ratio_interval
from stage2_rag_finetune_deploy.quantization.runtime import kernel_name, load_dense, load_packed
from stage2_rag_finetune_deploy.quantization.source_model import baseline_label, load_source, source_folder


@dataclass(frozen=True)
class QuantizeConfig:
    """Options of `quantize`."""

    method: str = option("gptq", "how", METHODS)
    bits: int = option(4, "of a weight: 2, 3, 4 or 8")
    group: int = option(64, "inputs that share a scale; -1 is the whole row")
    symmetric: bool = option(True, "zero is the middle level; what vLLM's kernel on a CPU reads")
    model: Path | None = option(None, "folder; none is the newest fine-tuned model, or SmolLM2-135M-Instruct")
    out: Path | None = option(None, "folder to write; none is checkpoint/ in the run's folder")
    library: str = option("by-hand", "whose code", tuple(MODULES))
    calibration: str = option(WIKITEXT, "text of the catalog, or a UTF-8 file")
    samples: int = option(32, "pieces of the calibration text")
    length: int = option(256, "tokens of a piece")
    order: str = option("group", "GPTQ: in which order the inputs are rounded", ORDERS)
    span: str = option("search", "GPTQ by hand: a group's levels reach its largest weight, or as far as rounds it with "
                                 "the least error", tuple(SPANS_OF))  # fmt: skip
    damp: float = option(0.01, "GPTQ: share of the mean of the Hessian's diagonal that is added to it")
    ratios: int = option(20, "AWQ: how many ratios are tried")
    test_tokens: int = option(8192, "tokens of WikiText-2's test part for the perplexity; 0 leaves it out")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(1, "of the draw of the pieces")


PRESETS = {
    "smoke": QuantizeConfig(samples=4, length=32, ratios=2, test_tokens=256),
    "cpu": QuantizeConfig(samples=16, ratios=10, test_tokens=4096),
    "study": QuantizeConfig(samples=128),
    "gpu": QuantizeConfig(group=128, samples=128, length=512),
}
CONTEXT = 256  # tokens of a block whose perplexity is measured


def settings_of(config: Any) -> Settings:
    """The methods' settings from a command's options.

    Raises:
        LabError: a number that no method can do.
    """
    require_at_least(config, 1, "samples", "length", "ratios")
    require_at_least(config, 0, "test_tokens", "damp")
    scheme = Scheme(config.bits, config.group, config.symmetric)
    return Settings(scheme, config.order, config.damp, config.ratios, config.span)


def run_quantize(config: QuantizeConfig, preset: str) -> None:
    """Quantise, write, read back, measure."""
    settings = settings_of(config)
    library = quantiser(config.library, config.method)
    source = source_folder(config.model)
    model, tokenizer = load_source(source, config.device)
    methods.check(model, config.method, settings)
    ids = None
    if config.method in WITH_DATA:
        ids = calibration_ids(tokenizer, config.calibration, config.samples, config.length, config.seed)
    test = test_blocks(tokenizer, config.test_tokens)
    with start_run("stage2", "quantization", "quantize", config, preset, config.seed) as run:
        console.print(f"{config.method}, {config.bits} bits, groups of {config.group}, by {config.library}: {source}",
                      markup=False, soft_wrap=True)  # fmt: skip
        before = None if test is None else block_losses(model, test)
        del model
        out = (config.out or run.dir / "checkpoint").absolute()
        seconds = library.quantise(Task(source, out, config.method, settings, ids, config.device))
        report(run, out, seconds, source, test, before)
        if config.out is None:
            run.artefact("checkpoint", kind="checkpoint")
        run.next("python -m stage2_rag_finetune_deploy.quantization compare")


def test_blocks(tokenizer: Any, tokens: int) -> Tensor | None:
    """The first blocks of WikiText-2's test part, or None for no tokens. (blocks, CONTEXT)."""
    if tokens == 0:
        return None
    blocks = max(1, tokens // CONTEXT)
    ids = tokenizer(load_test(tokens), add_special_tokens=False, return_tensors="pt", verbose=False)["input_ids"][0]
    return ids[: blocks * CONTEXT].view(-1, CONTEXT)


def load_test(tokens: int) -> str:
    """Enough of WikiText-2's test part."""
    from data.texts import load_text

    return load_text(WIKITEXT, "test")[: max(tokens, CONTEXT) * 8]


def report(run: Run, out: Path, seconds: float, source: Path, test: Tensor | None, before: Any) -> None:
    """The checkpoint as it lies on the disk: size, kernel, perplexity."""
    size, old = bytes_on_disk(out), bytes_on_disk(source)
    run.metric("seconds_to_quantise", seconds, "s", meaning="without loading and writing")
    run.metric("megabytes_on_disk", size / 1e6, "MB", meaning=f"{old / 1e6:.0f} MB before")
    packed, _ = load_packed(out)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("time to quantise", human_seconds(seconds))
    table.add_row("on disk", f"{human_size(size)}, {old / size:.2f} times smaller than {human_size(old)}")
    table.add_row("kernel here", kernel_name(packed))
    if test is not None:
        model, _ = load_dense(out)
        after = block_losses(model, test)
        ratio, low, high = ratio_interval(after, before)
        run.metric("perplexity_before", perplexity(before), meaning=baseline_label(source))
        run.metric("perplexity", perplexity(after), meaning=f"{test.numel()} tokens of WikiText-2's test part")
        run.metric("perplexity_ratio", ratio, meaning=f"95 % interval {low:.3f} to {high:.3f}")
        write_json(run.dir / "losses.json", {"before": before.tolist(), "after": after.tolist()})
        table.add_row("perplexity", f"{perplexity(after):.2f}; {baseline_label(source)} {perplexity(before):.2f}")
        table.add_row("", f"ratio {ratio:.3f} (95 % interval {low:.3f} to {high:.3f})")
    console.print(table)
    console.print(f"checkpoint: {shown(out)}", markup=False, soft_wrap=True)
