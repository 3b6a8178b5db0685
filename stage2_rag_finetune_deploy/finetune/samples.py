"""What is trained on: an understanding set of the course, or a file of one's own in alpaca or ShareGPT format.

A sample that is longer than the limit is counted and left out, never cut: half a label teaches half a label.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
from data.customer_service.prompt import prompt_messages
from data.understanding import SETS, Utterance
from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.chat_format import Encoded, Message, TooLong, encode

Pair = tuple[list[Message], str]  # a prompt and the response to learn


@dataclass(frozen=True)
class Samples:
    """Encoded samples, and how many were too long.

    Attributes:
        pairs: (messages, response) of the samples that were kept, in the same order.
    """

    name: str
    rows: list[Encoded]
    pairs: list[Pair]
    too_long: int

    @property
    def sha256(self) -> str:
        """Of the ids, all in a row."""
        return hashlib.sha256(repr([row.ids for row in self.rows]).encode()).hexdigest()

    @property
    def tokens(self) -> int:
        """Of all samples together."""
        return sum(len(row.ids) for row in self.rows)


def evenly(items: list[Any], count: int) -> list[Any]:
    """`count` items from all over the list (the files are in the order of the voices), or all where there are fewer."""
    return [items[number * len(items) // count] for number in range(count)] if count < len(items) else items


def utterance_pairs(utterances: Sequence[Utterance]) -> list[Pair]:
    """The task's prompt and the label."""
    return [(prompt_messages(each.text, each.language), each.label) for each in utterances]


def file_pairs(path: Path) -> list[Pair]:
    """A JSONL file whose first line decides: `conversations` is ShareGPT, else alpaca.

    Raises:
        LabError: a line that is not JSON or misses a field; its number is in the message.
    """
    from data.formats import convert
    from data.validate import read_file

    try:
        head = next((line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()), "")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"cannot read {path}: {error}", "--data customer-service-en, or a JSONL file") from None
    if not head:
        raise LabError(f"{path} is empty", "one JSON object a line: python -m data validate --help")
    kind = "sharegpt" if '"conversations"' in head else "alpaca"
    reading = read_file(path, kind)
    if reading.problems:
        first, more = reading.problems[0], len(reading.problems) - 1
        others = f" (and {more} more)" if more else ""
        raise LabError(f"{path}, line {first.line}: {first.text}{others}",
                       f"python -m data validate {path} --format {kind}")  # fmt: skip
    pairs = []
    for sample in reading.samples.values():
        talk = convert(sample, kind, "sharegpt")
        roles = {"human": "user", "gpt": "assistant"}
        messages = [{"role": "system", "content": talk.system}] if talk.system else []
        messages += [{"role": roles[role], "content": text} for role, text in talk.turns]
        pairs.append((messages[:-1], messages[-1]["content"]))
    return pairs


def encode_pairs(tokenizer: Any, name: str, pairs: Sequence[Pair], max_length: int) -> Samples:
    """Pairs as ids and labels.

    Raises:
        LabError: a label without tokens, a wrong chat template, or all samples too long.
    """
    rows, kept, too_long = [], [], 0
    for number, (messages, response) in enumerate(pairs, 1):
        try:
            rows.append(encode(tokenizer, messages, response, max_length))
            kept.append((messages, response))
        except TooLong:
            too_long += 1
        except LabError as error:
            raise LabError(f"{name}, sample {number}: {error.message}", error.try_next) from None
    if not rows:
        raise LabError(f"all {too_long} samples of {name} are longer than {max_length} tokens", "a larger --max-length")
    return Samples(name, rows, kept, too_long)


def load_samples(tokenizer: Any, name: str, split: str, max_length: int, limit: int | None = None) -> Samples:
    """A split of an understanding set by its name; or a file, whose every tenth line is `validation`.

    Args:
        limit: as many samples, taken evenly from the whole; None takes all.

    Raises:
        LabError: the data set is unknown, or the file is wrong in a line.
    """
    if name in SETS:
        pairs = utterance_pairs(data.load_understanding(name, split))
    elif Path(name).is_file():
        pairs = file_pairs(Path(name))
        if len(pairs) < 2:
            raise LabError(f"{name} has one sample; two are the least", "one JSON object a line")
        pairs = pairs[::10] if split == "validation" else [p for number, p in enumerate(pairs) if number % 10]
    else:
        raise LabError(f"no data set and no file is called {name!r}",
                       f"--data {nearest(name, list(SETS)) or ', '.join(SETS)}")  # fmt: skip
    return encode_pairs(tokenizer, name, evenly(pairs, limit) if limit else pairs, max_length)
