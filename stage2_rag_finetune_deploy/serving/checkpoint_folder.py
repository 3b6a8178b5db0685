"""Is this folder a checkpoint, and is it whole? Asked before a server starts: a server says it late and at length.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header, JSON, which says
where in the rest of the file each tensor lies; so a file that lost its end is found without reading it.
"""

import json
from pathlib import Path
from typing import Any

from labkit.errors import LabError

LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


def check_checkpoint(folder: Path) -> dict[str, Any]:
    """The config.json of a whole checkpoint: settings, tokenizer, and weights as long as they say they are.

    Raises:
        LabError: what is missing, truncated or unreadable.
    """
    again = "the folder that save_pretrained wrote, or write it again"
    if not folder.is_dir():
        raise LabError(f"there is no model folder {folder}", "--model FOLDER, or python -m data fetch NAME")
    config = read_json(folder / "config.json", again)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise LabError(f"{folder} has no tokenizer (tokenizer.json)", again)
    for path in weight_files(folder, again):
        check_safetensors(path)
    return config


def check_adapter(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of a whole LoRA adapter in PEFT's format.

    Raises:
        LabError: what is missing, truncated or unreadable.
    """
    again = "the folder adapter/ of a run of the lab finetune"
    if not folder.is_dir():
        raise LabError(f"there is no adapter folder {folder}", again)
    config = read_json(folder / "adapter_config.json", again)
    check_safetensors(folder / "adapter_model.safetensors")
    return config


def weight_files(folder: Path, advice: str) -> list[Path]:
    """The safetensors files; where there is an index, those that it names.

    Raises:
        LabError: there are none, or the index names one that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        if found := sorted(folder.glob("*.safetensors")):
            return found
        raise LabError(f"{folder} has no weights (*.safetensors)", advice)
    named = sorted({folder / name for name in read_json(index, advice).get("weight_map", {}).values()})
    if missing := [path.name for path in named if not path.is_file()]:
        raise LabError(f"{folder} is incomplete: {missing[0]} is missing, {len(missing)} of {len(named)} files", advice)
    return named


def check_safetensors(path: Path) -> None:
    """Compare a file's length with what its header promises.

    Raises:
        LabError: no file, no header, or another length.
    """
    again = "copy or write the file again"
    if not path.is_file():
        raise LabError(f"{path} is missing", again)
    size = path.stat().st_size
    header = read_header(path)
    if header is None:
        raise LabError(f"{path} is no safetensors file, or only the beginning of one ({size:,} bytes)", again)
    length, tensors = header
    promised = length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if size != promised:
        word = "truncated" if size < promised else "too long"
        raise LabError(f"{path} is {word}: {size:,} bytes, its header promises {promised:,}", again)


def read_header(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Where the data begin and the header's tensors (`dtype`, `shape`, `data_offsets`); None when it is broken."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= LONGEST_HEADER:
            return None
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            if all(len(entry["data_offsets"]) == 2 for entry in tensors.values()):
                return 8 + length, tensors
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
    return None


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        LabError: no file, or something else in it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"{path.parent} has no {path.name}", advice) from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise LabError(f"{path} is not JSON", advice)
    return value
