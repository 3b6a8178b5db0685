"""A LLaMA-Factory YAML: found, read, completed with this machine's paths, and checked before anything is started."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import data
from labkit.cli import nearest
from labkit.errors import LabError
from labkit.runs import runs_root, shown

FOLDER = Path(__file__).with_name("llamafactory")
LARGE = FOLDER / "qwen2.5-7b"  # the same names, for the `gpu` preset
GRPO = "grpo_trl"
WORDS = ("no", "yes", "on", "off")  # booleans to YAML 1.1, choices to the tool: eval_strategy=no
SMOKE = {"max_steps": 2, "max_samples": 16, "eval_strategy": "no", "plot_loss": False}
Settings = dict[str, Any]


def configs(preset: str = "cpu") -> dict[str, Path]:
    """Name -> file of the course's configurations."""
    return {path.stem: path for path in sorted((LARGE if preset == "gpu" else FOLDER).glob("*.yaml"))}


def find_config(name: str, preset: str) -> Path:
    """A configuration of the course by its name (with or without .yaml), or a file.

    Raises:
        LabError: there is neither.
    """
    path, known = Path(name), configs(preset)
    if path.is_file():
        return path
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if stem not in known:
        best = nearest(stem, list(known))
        raise LabError(f"no configuration {name}", f"{best}.yaml" if best else f"one of: {', '.join(known)}")
    return known[stem]


def read_config(path: Path) -> Settings:
    """The settings of a YAML file.

    Raises:
        LabError: it is not YAML, or no list of settings, or GRPO, which LLaMA-Factory does not have.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise LabError(f"{path.name}{line}: {getattr(error, 'problem', error)}", "`name: value`, a line each") from None
    if not isinstance(settings, dict):
        raise LabError(f"{path.name} holds no settings", "`name: value`, a line each")
    if settings.get("stage") == "grpo" or "num_generations" in settings:
        raise LabError(f"LLaMA-Factory has no GRPO stage, {path.name} is for TRL", f"trl grpo --config {shown(path)}")
    return settings


def parse_overrides(text: str) -> Settings:
    """`max_steps=5 learning_rate=1e-4` as settings, values read as YAML reads them.

    Raises:
        LabError: a word without `=`.
    """
    settings: Settings = {}
    for word in text.split():
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise LabError(f"{word} is no setting", "name=value, for instance max_steps=20")
        settings[name] = value if value in WORDS else yaml.safe_load(value)
    return settings


def as_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the tool's command line takes them: `name=value`, read there as YAML again."""
    return [f"{name}={json.dumps(value) if isinstance(value, bool) or value in WORDS else value}"
            for name, value in settings.items()]  # fmt: skip


def local_path(text: str) -> Path:
    """`runs/...` of a configuration is where this course's runs are; other paths stay."""
    return runs_root() / text.removeprefix("runs/") if text.startswith("runs/") else Path(text)


def model_path(name: str, example: str) -> str:
    """The folder of a model named in a configuration: an asset, a folder, or (unchanged) a name on the hub.

    Args:
        name: `model_name_or_path`.
        example: what to type when a folder of an earlier run is missing.

    Raises:
        LabError: a folder that does not exist or holds no model.
    """
    if name in data.catalog():
        return str(data.fetch(name))
    folder = local_path(name)
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise LabError(f"no model in {folder}: config.json is missing", "a folder that from_pretrained can load")
        return str(folder.resolve())
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).parent.exists():
        return name
    raise LabError(f"the model's folder is missing: {name or '(model_name_or_path is not set)'}", example)


def adapter_path(name: str, model: str, example: str) -> str:
    """The folder of a LoRA adapter.

    Raises:
        LabError: it does not exist, holds no adapter, or one for another base.
    """
    folder = local_path(name)
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise LabError(f"no adapter in {name}", example) from None
    base = config.get("base_model_name_or_path")
    if base and base != model:
        raise LabError(f"the adapter in {name} belongs to {base}, not to {model}", f"model_name_or_path={base}")
    return str(folder.resolve())


def overrides_of(path: Path, settings: Mapping[str, Any], output: Path) -> Settings:
    """What this machine puts in the place of a configuration's paths."""
    prog = "python -m stage2_rag_finetune_deploy.finetune llamafactory"
    preset = " --preset gpu" if path.parent == LARGE else ""
    model = model_path(settings.get("model_name_or_path") or "", f"{prog} export merge_lora.yaml{preset}")
    changed: Settings = {"model_name_or_path": model}
    if adapter := settings.get("adapter_name_or_path"):
        changed["adapter_name_or_path"] = adapter_path(adapter, model, f"{prog} train sft_lora.yaml{preset}")
    if "dataset_dir" in settings:
        changed["dataset_dir"] = str(local_path(settings["dataset_dir"]))
    key = "export_dir" if "export_dir" in settings else "output_dir"
    return changed | {key: str(output)}
