"""The shop's utterances as LLaMA-Factory reads them: ShareGPT, preference pairs, thumbs up and down.

- `dataset_info.json` is the tool's list of data sets: name -> file, format, columns
- the prompt is the one of all other paths of this lab (`understanding.py`), so that the results compare
- sums with their answers for grpo_trl.yaml, which is TRL's: prompts only
- a rejected answer is the label with one mistake, from data/customer_service/preferences.py
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import data
from data.customer_service.preferences import preference_pairs
from data.customer_service.prompt import prompt_messages
from data.formats import Conversation, to_row
from data.understanding import Utterance
from labkit.cli import nearest
from labkit.errors import LabError
from labkit.files import write_jsonl, write_text

INFO = Path(__file__).with_name("llamafactory") / "dataset_info.json"
SEED = 1
SUMS = 512
Record = dict[str, Any]


def conversation(utterance: Utterance, answer: str | None = None) -> Record:
    """A ShareGPT record: the prompt's messages, and the answer where one is given; the system message apart."""
    messages = prompt_messages(utterance.text, utterance.language)
    system = "".join(message["content"] for message in messages if message["role"] == "system")
    turns = [("human", message["content"]) for message in messages if message["role"] == "user"]
    turns += [] if answer is None else [("gpt", answer)]
    return to_row(Conversation(tuple(turns), system, utterance.id))


def supervised(utterances: Iterable[Utterance]) -> Iterable[Record]:
    """Prompt and label."""
    return (conversation(utterance, utterance.label) for utterance in utterances)


def preference(utterances: Sequence[Utterance]) -> Iterable[Record]:
    """Prompt, label, and a worse one."""
    for utterance, pair in zip(utterances, preference_pairs(utterances, SEED), strict=True):
        answers = {"chosen": pair.chosen, "rejected": pair.rejected}
        yield conversation(utterance) | {name: {"from": "gpt", "value": text} for name, text in answers.items()}


def feedback(utterances: Sequence[Utterance]) -> Iterable[Record]:
    """Prompt and one answer, the label or a worse one by turns, with thumbs up or down."""
    for number, (utterance, pair) in enumerate(zip(utterances, preference_pairs(utterances, SEED), strict=True)):
        good = number % 2 == 0
        yield conversation(utterance, pair.chosen if good else pair.rejected) | {"good": good}


def builders() -> dict[str, Callable[[], Iterable[Record]]]:
    """Data set's name -> what makes its records; the names of dataset_info.json."""
    made: dict[str, Callable[[], Iterable[Record]]] = {}
    for language in ("en", "zh"):
        name, shop = f"customer_service_{language}", f"customer-service-{language}"
        made[name] = lambda shop=shop: supervised(data.load_understanding(shop, "train"))
        made[f"{name}_validation"] = lambda shop=shop: supervised(data.load_understanding(shop, "validation"))
        made[f"{name}_preference"] = lambda shop=shop: preference(data.load_understanding(shop, "train"))
        made[f"{name}_feedback"] = lambda shop=shop: feedback(data.load_understanding(shop, "train"))
    return made


def prepare(folder: Path) -> dict[str, int]:
    """Write every data set and the list of them into a folder; returns name -> records."""
    info, counts = read_info(INFO.parent), {}
    for name, build in builders().items():
        records = list(build())
        write_jsonl(folder / info[name]["file_name"], records)
        counts[name] = len(records)
    sums = [{"prompt": [{"role": "user", "content": question.prompt}], "answer": question.answer}
            for question in data.load_verifiable("chain_sum", SUMS, SEED)]  # fmt: skip
    write_jsonl(folder / "chain_sum.jsonl", sums)
    counts["chain_sum"] = len(sums)
    write_text(folder / INFO.name, INFO.read_text(encoding="utf-8"))
    return counts


def read_info(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """The `dataset_info.json` of a folder.

    Raises:
        LabError: there is none, or it is not JSON.
    """
    path = folder / INFO.name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        advice = "python -m stage2_rag_finetune_deploy.finetune llamafactory prepare"
        raise LabError(f"no {INFO.name} in {folder}", advice) from None
    except ValueError as error:
        raise LabError(f"{path} is not JSON: {error}", f"start from {INFO}") from None


def check_names(names: Iterable[str], folder: Path) -> None:
    """See that each data set is in the list of its folder, with its file.

    Raises:
        LabError: one is not; the advice is the nearest name, or what makes the file.
    """
    info = read_info(folder)
    for name in names:
        if name not in info:
            advice = nearest(name, list(info)) or f"one of: {', '.join(info)}"
            raise LabError(f"the data set {name} is not in {folder / INFO.name}", advice)
        file = info[name].get("file_name")
        if file and not (folder / file).exists():
            raise LabError(f"{name} has no file {folder / file}", "llamafactory prepare, or put it there")


def read_records(path: Path) -> list[Record]:
    """The records of a .jsonl file, or of a .json file with a list.

    Raises:
        LabError: not JSON; the message has the number of the line.
    """
    text = path.read_text(encoding="utf-8")
    number = 0
    try:
        if path.suffix != ".jsonl":
            return json.loads(text)
        records = []
        for number, line in enumerate(text.splitlines(), 1):  # noqa: B007 - the message needs it
            records += [json.loads(line)] if line.strip() else []
        return records
    except ValueError as error:
        line = number or getattr(error, "lineno", 1)
        raise LabError(f"{path}, line {line}: not JSON: {error}", "one JSON object a line") from None


def count_too_long(records: Sequence[Record], tokenizer: Path, limit: int) -> int:
    """Records with more tokens than `limit`; of a preference pair the longer answer counts.

    Args:
        tokenizer: a tokenizer.json. The marks of the chat template are left out: a few more may be cut.
    """
    from tokenizers import Tokenizer

    core, parts = Tokenizer.from_file(str(tokenizer)), ("chosen", "rejected")

    def tokens(value: Any) -> int:
        if isinstance(value, str):
            return len(core.encode(value, add_special_tokens=False).ids)
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        return sum(map(tokens, inner))

    def whole(record: Record) -> int:
        said = {name: value for name, value in record.items() if name not in (*parts, "id")}
        return tokens(said) + max(tokens(record.get(part)) for part in parts)

    return sum(whole(record) > limit for record in records)
