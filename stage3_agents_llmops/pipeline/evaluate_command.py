"""`evaluate`: a release's figures before customers meet it."""

from dataclasses import dataclass, replace
from pathlib import Path

from labkit.cli import Command, option
from labkit.errors import LabError
from labkit.progress import console


@dataclass(frozen=True)
class EvaluateConfig:
    """Which release, and where its figures go."""

    release: Path | None = option(None, "the folder with model/, rag/ and graph/")
    out: Path | None = option(None, "the report, a JSON file")
    seed: int = option(1, "of the questions that are drawn")


def run_evaluate(config: EvaluateConfig, preset: str) -> None:
    """Evaluate and write the report."""
    from stage3_agents_llmops.pipeline.evaluation import PRESETS as SIZES
    from stage3_agents_llmops.pipeline.evaluation import evaluate, write_evaluation

    if config.release is None or config.out is None:
        raise LabError("which release, and where to?", "evaluate --release FOLDER --out evaluation.json")
    if not config.release.is_dir():
        raise LabError(f"there is no release at {config.release}", "the folder that `load` of the registry wrote")
    figures = evaluate(config.release, replace(SIZES[preset], seed=config.seed))
    write_evaluation(config.out, figures, preset=preset, seed=config.seed)
    for name, figure in figures.items():
        value = "missing" if figure.value is None else f"{figure.value:.4g}"
        console.print(f"{name:22} {value:>10}   n {figure.n}", markup=False)


COMMANDS = [
    Command("evaluate", "a release's figures before customers meet it", EvaluateConfig, run_evaluate,
            {name: EvaluateConfig() for name in ("cpu", "smoke", "study", "gpu")})
]  # fmt: skip
