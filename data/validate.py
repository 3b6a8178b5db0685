"""Fine-tuning files, checked line by line and converted.

    python -m data validate FILE --format alpaca
    python -m data convert IN OUT --from alpaca --to sharegpt

A file is read completely before anything is written, and problems are told with their line numbers. A text that is
too long is counted and told as well, but it is no error: whether it is cut, dropped or kept is the trainer's choice.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.formats import FORMATS, FormatError, Sample, convert, get_format, to_row
from labkit.cli import Parser
from labkit.errors import LabError
from labkit.files import write_jsonl
from labkit.progress import console

SHOWN = 20  # problems on the screen
MAX_CHARACTERS = 8_000  # about 2,000 tokens of English


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line, in words."""

    line: int
    text: str


@dataclass
class Reading:
    """A file: its good samples by line number, the problems of the others, and the lines that are too long."""

    samples: dict[int, Sample] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    too_long: dict[int, int] = field(default_factory=dict)  # line -> characters


def parse_line(line: str) -> Any:
    """One JSON object.

    Raises:
        FormatError: the line is not JSON, or not an object.
    """
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise FormatError(f"not JSON: {error.msg} at column {error.colno}") from error
    except UnicodeEncodeError as error:
        raise FormatError("half a surrogate pair, which is no character") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise FormatError(f"not JSON that can be read: {error}") from error
    if isinstance(row, list):
        raise FormatError("a JSON array; one object a line is wanted (jq -c '.[]' FILE)")
    if not isinstance(row, dict):
        raise FormatError(f"{type(row).__name__}, not an object")
    return row


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a row, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)


def read_file(path: Path, format: str, max_characters: int = MAX_CHARACTERS) -> Reading:
    """Read a JSONL file; blank lines do not count.

    Raises:
        LabError: no such file, an unknown format, a file without a sample, or JSON over several lines.
    """
    parse, reading = get_format(format).parse, Reading()
    if not path.is_file():
        raise LabError(f"{path} is not a file", "the path of a .jsonl file")
    first_use: dict[str, int] = {}
    lines = path.read_bytes().split(b"\n")  # not splitlines: U+2028 may stand in a text
    if lines[0].strip() in (b"[", b"{"):
        raise LabError(f"{path} has JSON over several lines", f"jq -c '.[]' {path} > one_object_a_line.jsonl")
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not line:
                continue
            row = parse_line(line)
            sample = parse(row)
            if sample.id and sample.id in first_use:
                raise FormatError(f"id {sample.id!r} is that of line {first_use[sample.id]}")
        except UnicodeDecodeError as error:
            reading.problems.append(Problem(number, f"not UTF-8: byte {error.start + 1}"))
        except FormatError as error:
            reading.problems.append(Problem(number, str(error)))
        else:
            first_use.setdefault(sample.id, number)
            reading.samples[number] = sample
            if (length := sum(map(len, texts_of(row)))) > max_characters:
                reading.too_long[number] = length
    if not reading.samples and not reading.problems:
        raise LabError(f"{path} has no sample in it", "a file with one JSON object a line")
    return reading


def report(path: Path, reading: Reading) -> None:
    """Print what was found; problems first.

    Raises:
        LabError: there are problems.
    """
    for problem in reading.problems[:SHOWN]:
        console.print(f"{path}:{problem.line}: {problem.text}", markup=False, highlight=False, soft_wrap=True)
    if (more := len(reading.problems) - SHOWN) > 0:
        console.print(f"... and {more} more")
    if reading.too_long:
        line, length = max(reading.too_long.items(), key=lambda item: item[1])
        count = len(reading.too_long)
        console.print(f"{count} too long; the longest has {length:,} characters, line {line}", highlight=False)
    if reading.problems:
        bad = len(reading.problems)
        raise LabError(
            f"{bad} bad line{'s' * (bad > 1)} of {bad + len(reading.samples)} in {path.name}",
            "mend the lines named above; data/formats.py shows each format",
        )


def run_validate(words: list[str]) -> None:
    """`validate FILE --format NAME`: exit code 2 when a line is bad."""
    parser = Parser(prog="python -m data validate", allow_abbrev=False)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--format", required=True, metavar="|".join(FORMATS))
    parser.add_argument("--max-characters", type=int, default=MAX_CHARACTERS, help="longer samples are counted")
    values = parser.parse_words(words)
    reading = read_file(values.file, values.format, values.max_characters)
    report(values.file, reading)
    console.print(f"samples: {len(reading.samples)}, all good", highlight=False)


def run_convert(words: list[str]) -> None:
    """`convert IN OUT --from NAME --to NAME`: OUT appears whole, or not at all when a line is bad."""
    parser = Parser(prog="python -m data convert", allow_abbrev=False)
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("target", type=Path, metavar="OUT")
    parser.add_argument("--from", dest="read", required=True, metavar="|".join(FORMATS))
    parser.add_argument("--to", dest="write", required=True, metavar="|".join(FORMATS))
    values = parser.parse_words(words)
    get_format(values.write)
    reading = read_file(values.source, values.read)
    rows = []
    for number, sample in list(reading.samples.items()):
        try:
            rows.append(to_row(convert(sample, values.read, values.write)))
        except FormatError as error:
            del reading.samples[number]
            reading.problems.append(Problem(number, str(error)))
    reading.problems.sort(key=lambda problem: problem.line)
    report(values.source, reading)
    write_jsonl(values.target, rows)
    console.print(f"samples written to {values.target}: {len(rows)}", markup=False, highlight=False, soft_wrap=True)
