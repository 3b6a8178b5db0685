"""One hash for a checkpoint folder: the same for whoever serves it and whoever checks what is served."""

import hashlib
from pathlib import Path

from labkit.errors import LabError
from labkit.files import sha256_file

SETTINGS = ("config.json", "adapter_config.json")


def checkpoint_sha256(folder: str | Path) -> str:
    """SHA-256 over the lines "<sha256 of a file>  <its name>\\n", sorted, of the weights and the settings.

    The weights are all *.safetensors files; the tokenizer does not count.

    Raises:
        LabError: the folder has no weights, or no settings.
    """
    folder = Path(folder)
    weights = sorted(folder.glob("*.safetensors"))
    settings = [folder / name for name in SETTINGS if (folder / name).is_file()]
    if not weights or not settings:
        missing = "*.safetensors file" if not weights else "config.json"
        raise LabError(f"{folder} is no checkpoint: it has no {missing}", "the folder that save_pretrained wrote")
    lines = sorted(f"{sha256_file(path)}  {path.name}\n" for path in weights + settings)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def served_id(name: str, sha256: str) -> str:
    """The second name that a server lists a model under, which tells its weights: `tuned@sha256:0123456789abcdef`."""
    return f"{name}@sha256:{sha256[:16]}"
