"""`llamafactory list | prepare | train sft_lora.yaml | export merge_lora.yaml`: the tool that many teams use, for real.

The same data, prompt and model as in the rest of the lab; a YAML instead of code.
"""

import ast
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from labkit.cli import option
from labkit.errors import LabError
from labkit.files import sha256_file
from labkit.progress import console
from labkit.runs import Run, runs_root, shown, start_run
from labkit.timing import human_seconds
from stage2_rag_finetune_deploy.finetune import llamafactory_config as config_file
from stage2_rag_finetune_deploy.finetune.llamafactory_data import (
    check_names,
    count_too_long,
    prepare,
    read_info,
    read_records,
)
from stage2_rag_finetune_deploy.finetune.llamafactory_environment import environment, run_cli

PROG = "python -m stage2_rag_finetune_deploy.finetune llamafactory"
VERBS = ("list", "prepare", "train", "export")


@dataclass(frozen=True)
class LlamafactoryConfig:
    """Options of `llamafactory`."""

    verb: str = option("list", "what to do", choices=VERBS)
    yaml: str = option("sft_lora.yaml", "a configuration by its name, or a file")
    set: str = option("", "settings in the place of the file's: 'max_steps=20 learning_rate=1e-4'")


PRESETS = {name: LlamafactoryConfig() for name in ("cpu", "smoke", "gpu")}


def with_words(words: list[str]) -> list[str]:
    """`llamafactory train sft_lora.yaml max_steps=20`, as LLaMA-Factory's own command line has it, as options."""
    if not words or words[0] != "llamafactory":
        return words
    plain, rest = [], words[1:]
    while rest and not rest[0].startswith("-"):
        plain.append(rest.pop(0))
    settings = [word for word in plain if "=" in word]
    names = [word for word in plain if "=" not in word]
    if len(names) > 2:
        raise LabError(f"unexpected word {names[2]}", f"{PROG} train sft_lora.yaml")
    options = [text for pair in zip(("--verb", "--yaml"), names, strict=False) for text in pair]
    return ["llamafactory", *options, *(["--set", " ".join(settings)] if settings else []), *rest]


def run_llamafactory(config: LlamafactoryConfig, preset: str) -> None:
    """Do what the verb says."""
    if config.verb == "list":
        show_list(preset)
    elif config.verb == "prepare":
        run_prepare()
    else:
        run_tool(config, preset)


def show_list(preset: str) -> None:
    """The course's configurations, and whether the environment is there."""
    table = Table(box=None, pad_edge=False)
    table.add_column("configuration")
    table.add_column("stage")
    table.add_column("what")
    for name, path in config_file.configs(preset).items():
        text = path.read_text(encoding="utf-8")
        stage = re.search(r"^stage: (\w+)", text, re.MULTILINE)
        first = text.splitlines()[0].lstrip("# ")
        table.add_row(f"{name}.yaml", stage[1] if stage else "grpo" if name == config_file.GRPO else "export", first)
    console.print(table)
    try:
        environment()
    except LabError as error:
        console.print(f"\n{error.message}\n  first: {error.try_next}")
    console.print(f"\n{PROG} train sft_lora.yaml", soft_wrap=True)


def data_folder() -> Path:
    """Where the converted data sets are."""
    return runs_root() / "stage2" / "finetune" / "llamafactory-data"


def run_prepare() -> None:
    """Convert the shop's utterances, and say what was written."""
    for name, count in prepare(data_folder()).items():
        console.print(f"{count:6,}  {name}")
    console.print(f"in {shown(data_folder())}, with dataset_info.json", soft_wrap=True)


def run_tool(config: LlamafactoryConfig, preset: str) -> None:
    """`train` or `export`: check everything, then start llamafactory-cli and follow it."""
    path = config_file.find_config(config.yaml, preset)
    settings = config_file.read_config(path)
    if preset == "smoke" and config.verb == "train":
        settings |= config_file.SMOKE
    given = config_file.parse_overrides(config.set)
    settings |= given
    verb = "export" if "export_dir" in settings else "train"
    if config.verb != verb:
        raise LabError(f"{path.name} is for {verb}, not for {config.verb}", f"{PROG} {verb} {path.name}")
    environment()
    if settings.get("dataset_dir") and config_file.local_path(settings["dataset_dir"]) == data_folder():
        prepare(data_folder())
    named = ",".join(settings.get(key) or "" for key in ("dataset", "eval_dataset"))
    sets = [name.strip() for name in named.split(",") if name.strip()]
    folder = config_file.local_path(settings.get("dataset_dir") or "data")
    if sets:
        check_names(sets, folder)
    prefix = "qwen2.5-7b-" if path.parent == config_file.LARGE else ""
    with start_run("stage2", "finetune", f"llamafactory-{prefix}{path.stem}", settings, preset,
                   settings.get("seed")) as run:  # fmt: skip
        output = run.dir / ("model" if verb == "export" else "adapter")
        changed = config_file.overrides_of(path, settings, output)
        extra = (config_file.SMOKE if preset == "smoke" and verb == "train" else {}) | given | changed
        if verb == "train":
            extra["disable_tqdm"] = True
        for name in sets:
            file = folder / read_info(folder)[name].get("file_name", "")
            if file.suffix not in (".json", ".jsonl"):  # from a hub, or a table
                continue
            run.data(name, sha256_file(file), file.stat().st_size)
            warn_of_cuts(run, name, file, Path(changed["model_name_or_path"]) / "tokenizer.json", settings)
        follow(run, verb, path, extra, output)
        record(run, verb, output, preset)


def warn_of_cuts(run: Run, name: str, file: Path, tokenizer: Path, settings: dict[str, Any]) -> None:
    """Count what the tool would cut without a word; a file that is not JSON ends here, with its line."""
    records, limit = read_records(file), int(settings.get("cutoff_len", 2048))
    count = count_too_long(records, tokenizer, limit) if tokenizer.is_file() else 0
    run.metric(f"too_long {name}", count, "samples", meaning=f"cut at {limit} tokens, the chat template's marks apart")
    if count:
        console.print(f"{count} samples of {name} are longer than cutoff_len={limit}: the tool cuts off their ends, "
                      "labels first", style="yellow", soft_wrap=True)  # fmt: skip


def follow(run: Run, verb: str, path: Path, settings: dict[str, Any], output: Path) -> None:
    """Run the tool; its losses are one line each, all it prints is in log.txt."""
    console.print(f"llamafactory-cli {verb} {shown(path.absolute())}   (log: {shown(run.dir)}/log.txt)", soft_wrap=True)
    started = time.monotonic()

    def on_line(line: str) -> None:
        values = loss_line(line)
        if values is None:
            if re.match(r"\[(WARNING|ERROR)", line) and "to plot" not in line:
                console.print(line, markup=False, soft_wrap=True, style="dim")
            return
        shown_values = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "epoch")
        console.print(f"{human_seconds(time.monotonic() - started):>8}  {shown_values}{left(output)}", soft_wrap=True)

    run_cli([verb, str(path), *config_file.as_words(settings)], run.dir / "log.txt", on_line)


SHOWN = {"loss": "loss", "eval_loss": "validation loss", "rewards/accuracies": "preference accuracy",
         "rewards/margins": "margin", "kl": "kl", "epoch": "epoch"}  # fmt: skip


def loss_line(line: str) -> dict[str, float] | None:
    """The figures of a line that the trainer prints, `{'loss': '1.2', 'epoch': '0.1'}`; None for other lines."""
    if not line.startswith("{") or "'epoch'" not in line:
        return None
    try:
        values = ast.literal_eval(line)
        found = {text: float(values[name]) for name, text in SHOWN.items() if name in values}
    except (ValueError, SyntaxError):
        return None
    return found if len(found) > 1 else None


def left(output: Path) -> str:
    """The time left, from the tool's own log, which a thread of it writes."""
    time.sleep(0.2)
    try:
        last = json.loads((output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        return f"  (step {last['current_steps']} of {last['total_steps']}, {last['remaining_time']} left)"
    except (OSError, ValueError, LookupError):
        return ""


def record(run: Run, verb: str, output: Path, preset: str) -> None:
    """Figures and artefacts for the report, and what to type next."""
    if verb == "export":
        run.artefact(output, kind="model")
        console.print(f"a model as any other: {shown(output)}", soft_wrap=True)
        run.next(f"{PROG} train dpo_lora.yaml" + (" --preset gpu" if preset == "gpu" else ""))
        return
    results = json.loads((output / "all_results.json").read_text(encoding="utf-8"))
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    steps, seconds = state["global_step"], results["train_runtime"]
    adapter = (output / "adapter_model.safetensors").stat().st_size
    run.metric("train_loss", results["train_loss"], meaning="mean over all steps")
    run.metric("steps", steps)
    run.metric("steps_per_second", steps / seconds, meaning="without loading")
    run.metric("adapter_mb", adapter / 1e6, unit="MB")
    history = {}
    for entry in state["log_history"]:
        history |= entry
    for key, name in (("eval_loss", "validation_loss"), ("rewards/accuracies", "preference_accuracy"),
                      ("rewards/margins", "reward_margin")):  # fmt: skip
        if key in history:
            run.metric(name, history[key], meaning="the last one logged")
    run.artefact(output / "adapter_model.safetensors", kind="adapter")
    for name in ("training_loss", "training_eval_loss", "training_rewards_accuracies"):
        if (output / f"{name}.png").is_file():
            run.figure(output / f"{name}.png", name.replace("_", " "))
    summary = f"{steps} steps, {steps / seconds:.2f} a second; adapter of {adapter / 1e6:.1f} MB in {shown(output)}"
    console.print(summary, soft_wrap=True)
    run.next(f"{PROG} export merge_lora.yaml" + (" --preset gpu" if preset == "gpu" else ""))
