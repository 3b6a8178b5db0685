"""`sample`: stream text to the terminal."""

import sys
from dataclasses import dataclass
from pathlib import Path

from labkit.cli import option
from labkit.device import choose_device
from labkit.errors import LabError
from labkit.runs import latest_run
from stage1_foundations.gpt.checkpoint import load_model
from stage1_foundations.gpt.pretrained import SMOLLM2, load_pretrained
from stage1_foundations.gpt.sampling import Sampling, generate


@dataclass(frozen=True)
class SampleConfig:
    """What to draw from, and how."""

    checkpoint: Path | None = option(None, "checkpoint or run folder; the latest training run if not given")
    pretrained: str | None = option(None, f"draw from published weights: {SMOLLM2}, or a folder")
    prompt: str = option("\n", "text to go on from")
    tokens: int = option(500, "how many tokens")
    temperature: float = option(0.8, "0 is greedy, below 1 sharper, above 1 flatter")
    top_k: int = option(0, "draw from the k best tokens; 0 for all")
    top_p: float = option(1.0, "draw from the best tokens that hold this much probability")
    seed: int | None = option(None, "the same seed draws the same text")
    stop: str | None = option(None, "stop before this text")
    compile: bool = option(False, "compile the decoding step: a minute first, then about twice the speed")
    device: str = option("auto", "auto, cpu, cuda, mps")


def latest_checkpoint() -> Path:
    """The checkpoint of the latest training run.

    Raises:
        LabError: there is none.
    """
    folder = latest_run("stage1", "gpt", "train")
    if folder is None:
        raise LabError("there is no trained model yet", "make stage1, or python -m stage1_foundations.gpt train")
    return folder / "checkpoint.pt"


def run_sample(config: SampleConfig, preset: str) -> None:
    """Write the prompt and what follows it to stdout, as it is drawn."""
    if config.tokens < 1:
        raise LabError("--tokens must be at least 1", "--tokens 500")
    device = choose_device(config.device)
    if config.pretrained:
        model, tokenizer = load_pretrained(config.pretrained, context=2048)
        model = model.to(device)
    else:
        model, tokenizer = load_model(config.checkpoint or latest_checkpoint(), device)
    sampling = Sampling(
        tokens=config.tokens, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p,
        seed=config.seed, stop=(config.stop,) if config.stop else (),
    )  # fmt: skip
    sys.stdout.write(config.prompt)
    for piece in generate(model, tokenizer, config.prompt, sampling, config.compile):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
