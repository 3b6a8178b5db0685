"""Small releases on the disk, as the pipeline writes them."""

from pathlib import Path


def write_release(folder: Path, label: str, evaluated: bool = True, weights: bytes = b"weights" * 1000) -> Path:
    """A folder with all parts; the label is its prompt."""
    files = {"model/model.safetensors": weights, "rag/rag.json": b'{"k": 4}', "graph/prompt.txt": label.encode()}
    if evaluated:
        files["evaluation.json"] = b'{"metrics": {"exact": {"value": 0.75}, "latency": 2}}'
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder
