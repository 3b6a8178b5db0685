"""The four file formats of fine-tuning, one JSON object a line, and what each can become.

    alpaca      {"instruction": ..., "input": ..., "output": ..., "system": ..., "history": [[question, answer], ...]}
    sharegpt    {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}], "system": ...}
    preference  {"prompt": ..., "chosen": ..., "rejected": ...}            for DPO; TRL's field names
    prompt      {"prompt": ..., "answer": ...}                             for GRPO; the answer is for the verifier

All may carry an `id`; input, system, history and answer may be missing. The field names are the ones that
LLaMA-Factory (alpaca, sharegpt) and TRL (preference, prompt) read without settings.

Everything is converted by way of a conversation. What would be lost is refused, with two exceptions: alpaca's input is
appended to its instruction, as every trainer does, and of a preference pair only the better answer is imitated.
"""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.cli import nearest
from labkit.errors import LabError

ROLES = ("system", "human", "gpt")


class FormatError(ValueError):
    """A row that is not a sample of its format, or that another format cannot hold; the text is one line."""


@dataclass(frozen=True)
class Alpaca:
    """An instruction with its answer; `history` are earlier questions and answers."""

    instruction: str
    output: str
    input: str = ""
    system: str = ""
    history: tuple[tuple[str, str], ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Conversation:
    """A ShareGPT sample: turns (role, text), human and gpt by turns, the last one gpt's."""

    turns: tuple[tuple[str, str], ...]
    system: str = ""
    id: str = ""


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, the better one first."""

    prompt: str
    chosen: str
    rejected: str
    id: str = ""


@dataclass(frozen=True)
class Prompt:
    """A prompt that a model answers while it learns; `answer` is what a verifier compares with."""

    prompt: str
    answer: str = ""
    id: str = ""


Sample = Alpaca | Conversation | Preference | Prompt


def is_blank(text: str) -> bool:
    """Whether a text has nothing to read: only spaces, control characters and invisible ones."""
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in text)


def read_text(row: Mapping[str, Any], name: str, required: bool = True) -> str:
    """One text field of a row.

    Raises:
        FormatError: it is missing, no text, or blank although it is required.
    """
    value = row.get(name)
    if value is None and not required:
        return ""
    if name not in row:
        close = nearest(name, [other for other in row if isinstance(other, str)])
        raise FormatError(f"missing field {name}" + (f"; is {close} meant?" if close else ""))
    if not isinstance(value, str):
        raise FormatError(f"{name} is {type(value).__name__}, not text")
    if required and is_blank(value):
        raise FormatError(f"{name} is empty")
    return value


def read_id(row: Mapping[str, Any]) -> str:
    """The id, also where it is a number; empty when there is none."""
    value = row.get("id")
    if value is not None and not isinstance(value, str | int):
        raise FormatError(f"id is {type(value).__name__}, not text")
    return "" if value is None else str(value)


def parse_alpaca(row: Mapping[str, Any]) -> Alpaca:
    """An alpaca row. FormatError says what is wrong with it."""
    history = row.get("history") or []
    pairs = isinstance(history, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in history)
    if not pairs or not all(isinstance(text, str) and not is_blank(text) for pair in history for text in pair):
        raise FormatError("history is not a list of [question, answer] with text in both")
    required = read_text(row, "instruction"), read_text(row, "output")
    optional = read_text(row, "input", required=False), read_text(row, "system", required=False)
    return Alpaca(*required, *optional, tuple((question, answer) for question, answer in history), read_id(row))


def parse_sharegpt(row: Mapping[str, Any]) -> Conversation:
    """A ShareGPT row; a system turn at the start counts as its system. FormatError says what is wrong with it."""
    turns = row.get("conversations")
    if "conversations" not in row:
        read_text(row, "conversations")
    if not isinstance(turns, list) or not turns:
        raise FormatError("conversations is not a list of turns")
    read: list[tuple[str, str]] = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or turn.get("from") not in ROLES:
            role = turn.get("from") if isinstance(turn, dict) else turn
            raise FormatError(f"turn {number} is from {role!r}, not from {', '.join(ROLES)}")
        if not isinstance(turn.get("value"), str) or is_blank(turn["value"]):
            raise FormatError(f"turn {number}, {turn['from']}, is empty")
        read.append((turn["from"], turn["value"]))
    system = read_text(row, "system", required=False)
    if read[0][0] == "system":
        if system:
            raise FormatError("a system field and a system turn")
        system = read.pop(0)[1]
    wanted = [("human", "gpt")[number % 2] for number in range(len(read))]
    roles = [role for role, _ in read]
    if roles != wanted or len(read) % 2 or not read:
        raise FormatError(f"wrong role order: {', '.join(roles) or 'no turn'}; human and gpt by turns, gpt last")
    return Conversation(tuple(read), system, read_id(row))


def parse_preference(row: Mapping[str, Any]) -> Preference:
    """A preference row. FormatError says what is wrong with it."""
    pair = Preference(*(read_text(row, name) for name in ("prompt", "chosen", "rejected")), read_id(row))
    if pair.chosen == pair.rejected:
        raise FormatError("chosen and rejected are the same")
    return pair


def parse_prompt(row: Mapping[str, Any]) -> Prompt:
    """A prompt row. FormatError says what is wrong with it."""
    return Prompt(read_text(row, "prompt"), read_text(row, "answer", required=False), read_id(row))


def to_row(sample: Sample) -> dict[str, Any]:
    """A sample as it is written: empty optional fields are left out, but alpaca's input stays."""
    if isinstance(sample, Conversation):
        turns = [{"from": role, "value": text} for role, text in sample.turns]
        row: dict[str, Any] = {"id": sample.id, "conversations": turns, "system": sample.system}
    elif isinstance(sample, Alpaca):
        row = {name: getattr(sample, name) for name in ("id", "instruction", "input", "output", "system")}
        row["history"] = [list(pair) for pair in sample.history]
    else:
        row = {"id": sample.id} | {name: value for name, value in vars(sample).items() if name != "id"}
    return {name: value for name, value in row.items() if value or name == "input"}


def alpaca_to_conversation(sample: Alpaca) -> Conversation:
    """History, then the instruction with its input on a new line, then the output."""
    question = f"{sample.instruction}\n{sample.input}" if sample.input else sample.instruction
    exchanges = (*sample.history, (question, sample.output))
    return Conversation(
        tuple(turn for q, a in exchanges for turn in (("human", q), ("gpt", a))), sample.system, sample.id
    )


def conversation_to_alpaca(sample: Conversation) -> Alpaca:
    """The last exchange is instruction and output, the earlier ones are history."""
    texts = [text for _, text in sample.turns]
    history = tuple(zip(texts[:-2:2], texts[1:-2:2], strict=True))
    return Alpaca(texts[-2], texts[-1], system=sample.system, history=history, id=sample.id)


def prompt_to_conversation(sample: Prompt) -> Conversation:
    """The prompt and its answer. FormatError when it has none."""
    if is_blank(sample.answer):
        raise FormatError("it has no answer, and a conversation needs one")
    return Conversation((("human", sample.prompt), ("gpt", sample.answer)), id=sample.id)


def conversation_to_prompt(sample: Conversation) -> Prompt:
    """One exchange as prompt and answer. FormatError when there is more to it."""
    if len(sample.turns) > 2 or sample.system:
        more = "a system text" if sample.system else f"{len(sample.turns)} turns"
        raise FormatError(f"it has {more}, and a prompt is one text")
    return Prompt(sample.turns[0][1], sample.turns[1][1], sample.id)


@dataclass(frozen=True)
class Format:
    """How one format is read, and how it becomes a conversation and comes back."""

    parse: Callable[[Mapping[str, Any]], Any]
    to_conversation: Callable[[Any], Conversation]
    from_conversation: Callable[[Conversation], Sample] | None


FORMATS = {
    "alpaca": Format(parse_alpaca, alpaca_to_conversation, conversation_to_alpaca),
    "sharegpt": Format(parse_sharegpt, lambda sample: sample, lambda sample: sample),
    # a pair's better answer can be imitated; a single answer has no worse one beside it
    "preference": Format(
        parse_preference, lambda pair: prompt_to_conversation(Prompt(pair.prompt, pair.chosen, pair.id)), None
    ),
    "prompt": Format(parse_prompt, prompt_to_conversation, conversation_to_prompt),
}


def get_format(name: str) -> Format:
    """A format by its name.

    Raises:
        LabError: there is no such format.
    """
    if name not in FORMATS:
        raise LabError(f"no format is called {name!r}", nearest(name, list(FORMATS)) or f"one of: {', '.join(FORMATS)}")
    return FORMATS[name]


def convert(sample: Any, source: str, target: str) -> Any:
    """A sample of one format as one of another.

    Raises:
        LabError: an unknown format, or one that has no way to the other (nothing becomes a preference pair).
        FormatError: this sample has more than the other format holds.
    """
    read, write = get_format(source), get_format(target)
    if source == target:
        return sample
    if write.from_conversation is None:
        raise LabError(f"{source} cannot become {target}: it has no rejected answer", "--to sharegpt")
    return write.from_conversation(read.to_conversation(sample))
