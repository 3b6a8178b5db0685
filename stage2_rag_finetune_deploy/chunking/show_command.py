"""`show FILE`: how a file is cut, chunk by chunk, on the terminal."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.node_parser import get_leaf_nodes
from llama_index.core.schema import BaseNode, MetadataMode
from rich.padding import Padding
from rich.text import Text

from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from stage2_rag_finetune_deploy.chunking.dispatch import make_chunker
from stage2_rag_finetune_deploy.chunking.readers import KINDS, read_file

STYLES = ("cyan", "yellow", "green", "magenta", "blue")
UNSHOWN = {"source", "kind", "language", "window", "original_text", "window_span"}


@dataclass(frozen=True)
class ShowConfig:
    """A file, and how to cut it."""

    file: Path | None = option(None, "the file; it may also stand right behind the command")
    chunker: str = option("dispatch", "a chunker by name; dispatch: the right one for the file's kind")
    kind: str | None = option(None, "kind of the file; none: by its ending, or by a look at it", KINDS)
    cap: int = option(200, "largest chunk in tokens")
    overlap: int = option(25, "tokens that neighbours may share")
    encoder: str = option("minilm", "whose tokens count, and vectors where needed; random needs no model")
    lines: int = option(6, "lines of each chunk to show; 0: all of it")
    chunks: int = option(30, "how many chunks to show; 0: all")


def run_show(config: ShowConfig, preset: str) -> None:
    """Cut the file, and print every chunk with what is known about it."""
    if config.file is None:
        raise LabError("which file?", "python -m stage2_rag_finetune_deploy.chunking show README.md")
    document = read_file(config.file, config.kind)
    chunker = make_chunker(config.chunker, config.cap, config.overlap, config.encoder)
    nodes = chunker.get_nodes_from_documents([document])
    leaves = get_leaf_nodes(nodes)
    sizes = chunker.counter.sizes([node.get_content(MetadataMode.EMBED) for node in leaves])
    shown = leaves[: config.chunks or None]
    for number, (node, size) in enumerate(zip(shown, sizes, strict=False)):
        console.print(headline(number, node, size), style="bold")
        body = node.text.splitlines()
        kept = body[: config.lines or None]
        more = [f"... {len(body) - len(kept)} more lines"] if len(kept) < len(body) else []
        console.print(Padding(Text("\n".join([*kept, *more]), style=STYLES[number % len(STYLES)]), (0, 0, 1, 4)))
    if len(shown) < len(leaves):
        console.print(f"... {len(leaves) - len(shown)} more chunks: --chunks 0 shows all\n")
    parents = f", {len(nodes) - len(leaves)} parents" if len(nodes) > len(leaves) else ""
    console.print(
        f"{document.id_} ({document.metadata['kind']}): {len(leaves)} chunks{parents} of {min(sizes)} to {max(sizes)} "
        f"tokens, median {statistics.median(sizes):.0f}",
        markup=False,
    )


def headline(number: int, node: BaseNode, size: int) -> str:
    """Number, place, size, and metadata of a chunk."""
    known = {key: value for key, value in node.metadata.items() if key not in UNSHOWN and value != ""}
    words = "  ".join(f"{key}: {value}" for key, value in known.items())
    return f"[{number + 1}] {node.start_char_idx}-{node.end_char_idx}, {size} tokens  {words}".replace("[", "\\[")


def with_file(words: list[str]) -> list[str]:
    """`show README.md` as `show --file README.md`."""
    if len(words) < 2 or words[0] != "show" or words[1].startswith("-"):
        return words
    return ["show", "--file", *words[1:]]
