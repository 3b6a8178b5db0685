"""The frames: sentences written by hand, one file a voice, one frame a line.

    description = "a night nurse who types on the bus, all lower case"
    split = "train"
    order_id = ["lower"]                # how this person writes order numbers (values.py); also amount, case, tags

    [frames]
    return_item = \"\"\"
    can i send back the {product}, [the zip is broken](reason:damaged)
    \"\"\"

In a frame, `{product}` is filled with a value and labelled; `{date:day}` fills the slot date from the list day;
`{~product}` is filled but not labelled; `[last night](date)` is labelled as it stands; `[...](reason:damaged)` is
labelled with a code.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.customer_service.schema import INTENTS, REASONS, SLOTS, SLOTS_OF

FOLDER = Path(__file__).parent / "frames"
SPLITS = ("train", "validation", "test")
LANGUAGES = ("en", "zh")
MARK = re.compile(
    r"\{(?P<unlabelled>~?)(?P<slot>[a-z_]+)(?::(?P<list>[a-z_]+))?\}"
    r"|\[(?P<words>[^\[\]{}]+)\]\((?P<name>[a-z_]+)(?::(?P<code>[a-z_]+))?\)"
)


@dataclass(frozen=True)
class Piece:
    """A stretch of a frame.

    Attributes:
        text: the words as they stand; empty where a value is to be filled in.
        slot: the slot that is labelled with this stretch, or None.
        fill: the list of values to fill from, or None.
        code: the value of the label where it is not the text itself.
    """

    text: str = ""
    slot: str | None = None
    fill: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Frame:
    """One hand-written sentence: its id, `<voice>/<intent>/<number>`, and its pieces."""

    id: str
    intent: str
    source: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Voice:
    """One imagined person: how they write, and everything they say. Belongs to one split."""

    name: str
    language: str
    description: str
    split: str
    frames: tuple[Frame, ...]
    order_id: tuple[str, ...] = ("plain",)
    amount: tuple[str, ...] = ("digits",)
    case: str = "as_is"
    tags: tuple[str, ...] = ()


def parse_frame(source: str) -> Iterator[Piece]:
    """Split a frame at its marks.

    Raises:
        ValueError: an unknown slot or reason, or a bracket that belongs to no mark.
    """
    end = 0
    for match in MARK.finditer(source):
        if match.start() > end:
            yield Piece(source[end : match.start()])
        end = match.end()
        name = match["slot"] or match["name"]
        known_reason = match["code"] is None or match["code"] in REASONS
        if name not in SLOTS or (name == "reason") != bool(match["code"]) or not known_reason:
            raise ValueError(f"{match[0]} is not a mark for a known slot or reason")
        if match["slot"]:
            yield Piece(slot=None if match["unlabelled"] else name, fill=match["list"] or name)
        else:
            yield Piece(match["words"], slot=name, code=match["code"])
    if end < len(source):
        yield Piece(source[end:])
    if re.search(r"[{}\[\]]", MARK.sub("", source)):
        raise ValueError(f"a bracket belongs to no mark: {source}")


def make_frame(voice: str, intent: str, number: int, source: str) -> Frame:
    """A frame from its line.

    Raises:
        ValueError: a slot that the intent does not have, or one that is marked twice.
    """
    pieces = tuple(parse_frame(source))
    slots = [piece.slot for piece in pieces if piece.slot]
    wrong = [slot for slot in slots if slot not in SLOTS_OF[intent]]
    if wrong or len(set(slots)) < len(slots):
        raise ValueError(f"{intent} cannot have {wrong or slots}: {source}")
    return Frame(f"{voice}/{intent}/{number}", intent, source, pieces)


def read_voice(path: Path) -> Voice:
    """One voice from its TOML file; its name is the language and the file's name.

    Raises:
        ValueError: an unknown split, intent or mark; the message names the file.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        name = f"{path.parent.name}-{path.stem}"
        lines = table.pop("frames")
        if table["split"] not in SPLITS or path.parent.name not in LANGUAGES or not set(lines) <= set(INTENTS):
            raise ValueError("unknown split, language or intent")
        frames = tuple(
            make_frame(name, intent, number, source.strip())
            for intent, block in lines.items()
            for number, source in enumerate(block.strip().splitlines(), 1)
        )
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
        return Voice(name=name, language=path.parent.name, frames=frames, **options)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.parent.name}/{path.name}: {error}") from error


def load_voices(folder: Path = FOLDER) -> list[Voice]:
    """All voices, by language and name."""
    return [read_voice(path) for path in sorted(folder.glob("*/*.toml"))]
