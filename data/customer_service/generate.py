"""Frames and values become utterances: the same files give the same lines on every machine.

    python -m data.customer_service.generate            # writes utterances/*.jsonl and label.schema.json
    python -m data.customer_service.generate --check    # compares them with what is committed

A frame with something to fill gives four utterances in train and three elsewhere, any other frame one. Each frame has
a random generator of its own, seeded with its id, so that a new frame does not change the others.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from data.customer_service.frames import LANGUAGES, SPLITS, Frame, Voice, load_voices
from data.customer_service.schema import label_schema
from data.customer_service.values import draw
from labkit.cli import Parser
from labkit.errors import LabError, guarded

FOLDER = Path(__file__).parent
FILLINGS = {"train": 4, "validation": 3, "test": 3}


def fill(frame: Frame, values: dict[int, str]) -> tuple[str, dict[str, str], dict[str, list[int]]]:
    """The utterance, its slots, and where each slot stands in it: [start, end)."""
    text, slots, spans = "", {}, {}
    for position, piece in enumerate(frame.pieces):
        words = values.get(position, piece.text)
        if piece.slot:
            slots[piece.slot] = piece.code or words
            spans[piece.slot] = [len(text), len(text) + len(words)]
        text += words
    return text, slots, spans


def fillings(frame: Frame, voice: Voice, count: int, rng: Random) -> Iterator[dict[int, str]]:
    """`count` ways to fill a frame: place -> words. Values of one kind in one filling differ."""
    places = {position: piece.fill for position, piece in enumerate(frame.pieces) if piece.fill}
    drawn: dict[int, list[str]] = {}
    for kind in dict.fromkeys(places.values()):  # a product and another product of one frame are different products
        same = [position for position, other in places.items() if other == kind]
        values = draw(kind, voice, count * len(same), rng)
        drawn |= {position: values[index :: len(same)] for index, position in enumerate(same)}
    for number in range(count):
        yield {position: values[number] for position, values in drawn.items()}


def frame_rows(frame: Frame, voice: Voice) -> Iterator[dict[str, Any]]:
    """The lines of one frame."""
    rng = Random(f"customer service/{frame.id}")
    count = FILLINGS[voice.split] if any(piece.fill for piece in frame.pieces) else 1
    for number, values in enumerate(fillings(frame, voice, count, rng), 1):
        text, slots, spans = fill(frame, values)
        yield {
            "id": f"{frame.id}#{number}",
            "text": text,
            "label": {"intent": frame.intent, "slots": slots},
            "spans": spans,
            "language": voice.language,
            "voice": voice.name,
            "frame": frame.id,
            "split": voice.split,
        }


def generate(voices: list[Voice] | None = None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(language, split) -> its rows, by voice and frame."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {(lang, split): [] for lang in LANGUAGES for split in SPLITS}
    for voice in load_voices() if voices is None else voices:
        for frame in voice.frames:
            rows[voice.language, voice.split] += frame_rows(frame, voice)
    return rows


def files() -> dict[Path, str]:
    """Everything that is generated: path -> text."""
    written = {
        FOLDER / "utterances" / f"{language}-{split}.jsonl": "".join(
            json.dumps(row, ensure_ascii=False) + "\n" for row in rows
        )
        for (language, split), rows in generate().items()
    }
    return written | {FOLDER / "label.schema.json": json.dumps(label_schema(), indent=2) + "\n"}


def stale_files() -> list[Path]:
    """The committed files that are not what the generator gives, byte by byte."""
    return [path for path, text in files().items() if not path.exists() or path.read_bytes() != text.encode()]


def main(argv: list[str]) -> None:
    """Write the files, or with --check say which of them are stale."""
    parser = Parser(prog="python -m data.customer_service.generate", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing, compare with what is there")
    if parser.parse_words(argv).check:
        stale = [path.name for path in stale_files()]
        if stale:
            raise LabError(f"stale: {', '.join(stale)}", parser.prog)
        return print("everything is as the frames give it")
    (FOLDER / "utterances").mkdir(exist_ok=True)
    for path, text in files().items():
        path.write_bytes(text.encode())
        print(f"{path.relative_to(FOLDER)}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
